"""How well every image of a tile fits every class, at every rotation and shift of a grid.

With Y = w CTF X / sigma^2 the weighted image (w: Fourier pixels of the half plane a ring stands
for) and A a class, the log-likelihood of a pose against that of no particle at all is

    L(psi, t) = 2 Re <Y(t), A(psi)> - <CTF^2 / sigma^2, |A(psi)|^2>

and, in angular harmonics, L(psi, t) = Re sum_m f_m c_m(t) exp(-i m psi), f_0 = 1, f_m = 2 else:

    c_m(t) = 2 sum_r Y_m(r, t) conj(A_m(r)) - sum_r G_m(r) conj(P_m(r))

where G = w CTF^2 / sigma^2 and P = |A|^2, whose harmonics beyond m = 4 are left out. Both sums are
matrix products: per order m over rings for all classes, images and shifts at once, then over m
for all rotations. Even orders repeat after half a turn and odd ones change sign, so half of the
rotations are computed and the best of a pair is even + |odd|.

All tensors keep images last: (order, ring, image, shift). Buffers are reused (`Workspace`):
fresh ones of this size cost more in page faults than the products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import torch
from torch import Tensor

from cryopick.alignment.references import POWER_ORDERS, References
from cryopick.alignment.rings import RingBasis

__all__ = [
    "Candidates",
    "Rotations",
    "Tile",
    "Workspace",
    "make_rotations",
    "no_rotation",
    "search",
    "shift_tile",
]

_CHUNK_VALUES = 600_000  # of products with some of the classes at once


@dataclass
class Workspace:
    """Buffers by name, grown when asked for more; one for each thread."""

    device: torch.device | str = "cpu"
    _buffers: dict[str, Tensor] = field(default_factory=dict)

    def get(self, name: str, *shape: int) -> Tensor:
        """Hand out a float32 buffer of this shape; its values are whatever was there."""
        count = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < count:
            buffer = torch.empty(count, device=self.device)
            self._buffers[name] = buffer
        return buffer[:count].view(shape)


@dataclass(frozen=True, kw_only=True)
class Rotations:
    """The grid of rotations: psi = 0 ... 360 deg in n steps, and the sums over orders."""

    angles: Tensor  # (n,) rad
    even: Tensor  # (n / 2, 2 n_even)
    odd: Tensor  # (n / 2, 2 n_odd)
    is_paired: bool = True  # False: only the angles of the first half turn count


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Some images, weighted, at all shifts of a grid, in harmonics."""

    weighted: Tensor  # (B, 2 R, n, S): Y, real then imaginary
    power: Tensor  # (R, n, 3) complex64: harmonics 0, 2, 4 of G
    shifts: Tensor  # (S, 2) A: x, y


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The best classes and shifts of each image with the likelihoods of all their rotations."""

    class_index: Tensor  # (n, T) int64
    shift_index: Tensor  # (n, T) int64
    log_likelihood: Tensor  # (n, T, n_psi), the priors included
    class_best: Tensor  # (n, K): best of each class over rotations and shifts
    peak: Tensor  # (n, T): best over the rotations


def make_rotations(basis: RingBasis, *, step: float | None = None) -> Rotations:
    """Lay out rotations at most `step` deg apart; as fine as the orders ask if not given."""
    fine_enough = 1.7 * basis.n_orders if step is None else 360 / step
    half = max(math.ceil(fine_enough / 2), 1)
    angles = torch.arange(2 * half, dtype=torch.float64) * (math.pi / half)
    order = basis.orders.cpu().double()
    factor = torch.where(order == 0, 1.0, 2.0)
    turn = angles[:half, None] * order
    rows = torch.stack([factor * torch.cos(turn), factor * torch.sin(turn)], dim=2)

    def put(values: Tensor) -> Tensor:
        return values.to(basis.angles)

    return Rotations(
        angles=put(angles),
        even=put(rows[:, : basis.n_even].flatten(1)),
        odd=put(rows[:, basis.n_even :].flatten(1)),
    )


def no_rotation(basis: RingBasis) -> Rotations:
    """Only psi = 0, for images that are turned already."""
    grid = make_rotations(basis, step=360.0)
    return Rotations(angles=grid.angles[:1], even=grid.even, odd=grid.odd, is_paired=False)


def shift_tile(
    real: Tensor,
    imaginary: Tensor,
    power: Tensor,
    *,
    shifts: Tensor,
    basis: RingBasis,
    workspace: Workspace,
) -> Tile:
    """Move weighted half rings by each shift of a grid and take their harmonics.

    Parameters
    ----------
    real, imaginary
        (H, R, n): w CTF X / sigma^2.
    power
        (R, n, 3) complex: harmonics of w CTF^2 / sigma^2.
    shifts
        (S, 2), A: x and y.
    """
    n_angles, n_rings, n = real.shape
    n_shifts = len(shifts)
    kx, ky = basis.wave_vectors
    phase = 2 * math.pi * (kx[..., None] * shifts[:, 0] + ky[..., None] * shifts[:, 1])
    cosine, sine = torch.cos(phase)[:, :, None], torch.sin(phase)[:, :, None]  # (H, R, 1, S)
    moved = workspace.get("moved", n_angles, n_rings, n, n_shifts)
    weighted = workspace.get("weighted", basis.n_orders, 2 * n_rings, n, n_shifts)
    columns = n_rings * n * n_shifts
    torch.mul(real[..., None], cosine, out=moved)
    moved.addcmul_(imaginary[..., None], sine)
    even = weighted[: basis.n_even].view(2 * basis.n_even, columns)
    torch.mm(basis.from_even, moved.view(n_angles, columns), out=even)
    torch.mul(imaginary[..., None], cosine, out=moved)
    moved.addcmul_(real[..., None], sine, value=-1)
    odd = weighted[basis.n_even :].view(-1, columns)
    torch.mm(basis.from_odd, moved.view(n_angles, columns), out=odd)
    return Tile(weighted=weighted, power=power, shifts=shifts)


def search(
    tile: Tile,
    references: References,
    rotations: Rotations,
    *,
    prior: Tensor,
    n_candidates: int,
    workspace: Workspace,
    score: Literal["likelihood", "correlation"] = "likelihood",
) -> Candidates:
    """Score all classes, rotations and shifts, and keep the best classes and shifts.

    Parameters
    ----------
    tile
        The images.
    references
        K classes.
    rotations
        The grid of psi.
    prior
        (n, S): log prior of the shifts.
    n_candidates
        Pairs of class and shift kept for each image.
    score
        ``correlation`` lets the contrast of each image be free: L is replaced by its maximum
        over a factor on A, which frees it from the scale of the averages.
    """
    norm = torch.einsum("rnj,krj->jkn", tile.power, references.power.conj())
    size = _chunk_size(tile, references)
    found = []
    for start in range(0, len(references), size):
        some = slice(start, min(start + size, len(references)))
        even, odd = _all_rotations(tile, references, some, norm, rotations, workspace, score)
        peak = _peaks(even, odd, norm[0, some].real, rotations, workspace, score) + prior
        found.append(_best_of(even, odd, peak, start, n_candidates, rotations))
    best = _best_of_all(found, n_candidates)
    columns = best.log_likelihood
    image = torch.arange(len(columns), device=columns.device)[:, None]
    if score == "correlation":
        norms = norm[0].real[best.class_index, image].clamp_min(1e-20)[..., None]
        columns = columns.clamp_min(0) ** 2 / (4 * norms)
    return replace(best, log_likelihood=columns + prior[image, best.shift_index][..., None])


def _chunk_size(tile: Tile, references: References) -> int:
    """Classes whose products with the tile stay in a fast cache of a CPU."""
    n_orders, _, n, n_shifts = tile.weighted.shape
    if tile.weighted.device.type != "cpu":
        return len(references)
    return min(len(references), max(_CHUNK_VALUES // (2 * n_orders * n * n_shifts), 1))


def _all_rotations(
    tile: Tile,
    references: References,
    some: slice,
    norm: Tensor,
    rotations: Rotations,
    workspace: Workspace,
    score: str,
) -> tuple[Tensor, Tensor]:
    """Sum even and odd orders for some of the classes, (n_psi / 2, c, n, S) each."""
    n_orders, _, n, n_shifts = tile.weighted.shape
    c, all_rows = some.stop - some.start, references.matrix
    if c < len(references):
        real, imaginary = all_rows.chunk(2, dim=1)
        all_rows = torch.cat([real[:, some], imaginary[:, some]], dim=1)
    product = workspace.get("product", n_orders, 2 * c, n * n_shifts)
    torch.bmm(all_rows, tile.weighted.view(n_orders, -1, n * n_shifts), out=product)
    product *= 2
    by_class = product.view(n_orders, 2, c, n, n_shifts)
    if score == "likelihood":
        _subtract_norm(by_class, norm[:, some], references.basis)
    even, odd = _sum_orders(product, rotations, references.basis, workspace)
    size = (len(rotations.even), c, n, n_shifts)
    return even.view(size), odd.view(size)


def _peaks(
    even: Tensor,
    odd: Tensor,
    norm: Tensor,
    rotations: Rotations,
    workspace: Workspace,
    score: str,
) -> Tensor:
    """Best value over the rotations, (c, n, S)."""
    best = workspace.get("sum", *even.shape)
    if rotations.is_paired:
        torch.abs(odd, out=best)
        best += even
    else:
        torch.add(odd, even, out=best)
    peak = best.amax(0)
    if score == "correlation":
        peak = peak.clamp_min(0) ** 2 / (4 * norm.clamp_min(1e-20)[..., None])
    return peak


def _best_of(
    even: Tensor, odd: Tensor, peak: Tensor, start: int, most: int, rotations: Rotations
) -> Candidates:
    """Keep the best pairs of class and shift, with the values at all their rotations."""
    c, n, n_shifts = peak.shape
    flat = peak.permute(1, 0, 2).reshape(n, c * n_shifts)
    top = flat.topk(min(most, c * n_shifts), dim=1).indices
    class_index, shift_index = top // n_shifts, top % n_shifts
    image = torch.arange(n, device=top.device)[:, None]
    column_even = even[:, class_index, image, shift_index]
    column_odd = odd[:, class_index, image, shift_index]
    columns = column_even + column_odd
    if rotations.is_paired:
        columns = torch.cat([columns, column_even - column_odd])
    return Candidates(
        class_index=class_index + start,
        shift_index=shift_index,
        log_likelihood=columns.permute(1, 2, 0),
        class_best=peak.amax(2).T,
        peak=flat.gather(1, top),
    )


def _best_of_all(found: list[Candidates], most: int) -> Candidates:
    """Keep the best of what all chunks of classes have found."""
    if len(found) == 1:
        return found[0]
    joined = {f.name: torch.cat([getattr(p, f.name) for p in found], dim=1)
              for f in fields(Candidates)}  # fmt: skip
    top = joined["peak"].topk(min(most, joined["peak"].shape[1]), dim=1).indices
    image = torch.arange(len(top), device=top.device)[:, None]
    kept = {name: joined[name][image, top] for name in joined if name != "class_best"}
    return Candidates(class_best=joined["class_best"], **kept)


def _subtract_norm(by_class: Tensor, norm: Tensor, basis: RingBasis) -> None:
    """Take the norm term, the same for all shifts, from the products of orders 0, 2 and 4."""
    for place, order in enumerate(POWER_ORDERS):
        row = order // 2  # even orders come first
        if row < basis.n_even:
            by_class[row, 0] -= norm[place].real[..., None]
            by_class[row, 1] -= norm[place].imag[..., None]


def _sum_orders(
    product: Tensor, rotations: Rotations, basis: RingBasis, workspace: Workspace
) -> tuple[Tensor, Tensor]:
    columns = product.shape[1] // 2 * product.shape[2]
    n_even = 2 * basis.n_even
    flat = product.view(-1, columns)
    even = workspace.get("even", len(rotations.even), columns)
    odd = workspace.get("odd", len(rotations.odd), columns)
    torch.mm(rotations.even, flat[:n_even], out=even)
    torch.mm(rotations.odd, flat[n_even:], out=odd)
    return even, odd
