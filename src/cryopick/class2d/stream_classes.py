"""What classes of a stream have in common, and which of them to merge and to split.

Two averages are compared over all rotations in units of the noise: with |.|^2 the sum over rings
of w / sigma^2 and over orders,

    difference(i, j) = min over psi |A_i - A_j(psi)|^2

is the log-likelihood by which one image of average contrast is expected to tell the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.rings import RingBasis
from cryopick.alignment.search import make_rotations
from cryopick.class2d.em_state import Poses

__all__ = ["ClassChange", "Comparison", "compare_classes", "find_changes", "unexplained"]

_ALIKE = 3.5  # times what noise gains by being in an average: classes less apart are one
_AT_MOST = 10  # a tenth of the classes changes in a round
_LARGE = 1.5  # times the median class, to be split
_CLEAR = 3.0  # standard errors of what a class leaves unexplained, to be split
_FEWEST = 20  # members of a class that is split
_DEAD = 0.1  # of its fair share


@dataclass(frozen=True)
class ClassChange:
    """A class merged into another, or a part of another put in its place."""

    kind: Literal["merge", "split"]
    class_index: int  # merged away, or made
    other: int  # into which, or from which


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """K classes against L, at the best rotation of each pair."""

    correlation: Tensor  # (K, L)
    difference: Tensor  # (K, L) nats


def compare_classes(
    harmonics: Tensor, other: Tensor, basis: RingBasis, *, noise: Tensor
) -> Comparison:
    """Compare averages over all rotations.

    Parameters
    ----------
    harmonics, other
        (K, R, B) and (L, R, B) complex.
    basis
        Their rings.
    noise
        (R,) power of the noise.
    """
    weight = (basis.weights / noise).to(torch.complex64)
    cross = torch.einsum("r,krm,lrm->mkl", weight, harmonics, other.conj())
    rotations = make_rotations(basis)
    parts = torch.view_as_real(cross).permute(0, 3, 1, 2)  # (B, 2, K, L)
    flat = parts.reshape(2 * basis.n_orders, -1)
    even = rotations.even @ flat[: 2 * basis.n_even]
    odd = rotations.odd @ flat[2 * basis.n_even :]
    best = (even + odd.abs()).amax(0).view(cross.shape[1:])
    factor = torch.where(basis.orders == 0, 1.0, 2.0)

    def power(values: Tensor) -> Tensor:
        return torch.einsum("r,krm,m->k", weight.real, values.abs().square(), factor)

    own, theirs = power(harmonics)[:, None], power(other)
    return Comparison(
        correlation=best / (own * theirs).sqrt().clamp_min(1e-30),
        difference=(own + theirs - 2 * best).clamp_min(0),
    )


def unexplained(poses: Poses, n_classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find what classes leave of their members beyond the median class.

    Returns
    -------
    tuple of numpy.ndarray
        (K,) total over the members, in units of the noise of an image, and its standard error.
    """
    members = poses.is_member
    left = poses.norm[members].astype(np.float64) ** 2
    index = poses.class_index[members]
    counts = np.bincount(index, minlength=n_classes)
    mean = np.bincount(index, left, minlength=n_classes) / np.maximum(counts, 1)
    typical = float(np.median(mean[counts > 0])) if counts.any() else 1.0
    spread = float(left.std()) if len(left) else 0.0
    return counts * (mean - typical), spread * np.sqrt(counts) + 1e-9


def find_changes(
    poses: Poses, shares: Tensor, difference: Tensor, own_gain: Tensor
) -> tuple[tuple[ClassChange, ...], list[int]]:
    """Choose classes to merge and to split.

    A dead class takes a part of the class that explains its members worst, or of the largest. Of
    two classes that are alike the smaller is merged into the larger, as long as there is a class
    worth splitting: one that clearly explains its members worse than others do, or a large one.

    Parameters
    ----------
    poses
        Of the particles.
    shares
        (K,) of the classes.
    difference
        (K, K) from `compare_classes`.
    own_gain
        (K,) log-likelihood that noise gains in a class by being one of its members; averages of
        one view differ by about as much.

    Returns
    -------
    tuple
        The changes, and for each class the one it now comes from: itself where nothing changes.
    """
    k = len(shares)
    parent = list(range(k))
    total, error = unexplained(poses, k)
    counts = np.bincount(poses.class_index[poses.is_member], minlength=k)
    parts = np.ones(k)
    changes: list[ClassChange] = []
    dead = [c for c in range(k) if float(shares[c]) < _DEAD / k]
    for c in dead:
        large = counts / parts * (counts >= _FEWEST) * ~np.isin(np.arange(k), dead)
        if not large.any():
            break
        bad = np.where(total > _CLEAR * error, total / parts, 0) * (large > 0)
        chosen = int(bad.argmax() if bad.any() else large.argmax())
        _split(c, chosen, parent, parts, changes)
    noise = (own_gain[:, None] + own_gain).clamp_min(1e-6) / 2
    typical = float(np.median(counts))
    for small, large_one in _alike(difference / noise, counts, dead)[: max(k // _AT_MOST, 1)]:
        worth = (total > _CLEAR * error) | (counts >= _LARGE * typical)
        worth &= counts >= 2 * _FEWEST
        worth[[small, large_one, *dead]] = False
        worth &= parts == 1
        if not worth.any() or parent[small] != small or parts[small] > 1:
            continue
        changes.append(ClassChange("merge", small, large_one))
        chosen = int(np.where(worth, np.maximum(total / error, 0) + counts / typical, 0).argmax())
        _split(small, chosen, parent, parts, changes)
    return tuple(changes), parent


def _split(
    place: int,
    source: int,
    parent: list[int],
    parts: NDArray[np.float64],
    changes: list[ClassChange],
) -> None:
    parent[place] = source
    parts[source] += 1
    changes.append(ClassChange("split", place, source))


def _alike(apart: Tensor, counts: NDArray[np.int64], dead: list[int]) -> list[tuple[int, int]]:
    """Pairs (smaller, larger) of classes that are one, most alike first."""
    values = apart.numpy().copy()
    values[np.tril_indices(len(values))] = np.inf
    values[dead], values[:, dead] = np.inf, np.inf
    pairs, used = [], set()
    for flat in np.argsort(values, axis=None, kind="stable"):
        i, j = divmod(int(flat), len(values))
        if values[i, j] >= _ALIKE:
            break
        if i not in used and j not in used:
            used |= {i, j}
            pairs.append((i, j) if counts[i] < counts[j] else (j, i))
    return pairs
