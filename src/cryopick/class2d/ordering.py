"""Put class averages in an order in which neighbours look alike, and align them to one another.

As SPHIRE's sp_chains does for ISAC, from every pair's best correlation over rotation, shift and
mirror image; here with an open path (`cryopick.class2d.ordering_path`) in place of annealing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.transform import transform_images
from cryopick.checks import require_above, require_shape
from cryopick.class2d.em_workers import one_core
from cryopick.class2d.ordering_path import nearest, shortest_path
from cryopick.class2d.ordering_similarity import (
    Alignment,
    Rings,
    align_pairs,
    distances,
    sample_rings,
)
from cryopick.errors import DataError, ParameterError

__all__ = ["MOST_AVERAGES", "Ordering", "apply_ordering", "order_averages"]

MOST_AVERAGES = 10_000  # their distances take 400 MB
_RINGS, _FINE_RINGS = 14, 26  # to search with, and to align with
_REFINED = 12  # neighbours of each average whose distance is measured below the grid
_SHIFT_SHARE = 1 / 30  # of the diameter, ISAC's two of 58 px
_KEPT = 0.9  # of the shift of the one before: alignment errors must not add up to a drift


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """n averages in order; row k is of the average ``order[k]``.

    An average is moved by its shift, turned about pixel y // 2, and mirrored (x -> -x) if
    `mirrors` says so; then it lies as the one before it does.
    """

    order: NDArray[np.int64]  # (n,) places in the stack given
    angles: NDArray[np.float64]  # (n,) deg, from x towards y
    shifts: NDArray[np.float64]  # (n, 2) px: x, y
    mirrors: NDArray[np.bool_]  # (n,)
    similarity: NDArray[np.float64]  # (n,) correlation with the one before; NaN for the first


def order_averages(
    images: Tensor,
    *,
    diameter: float,
    shift_range: float | None = None,
    mirrors: bool = True,
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Ordering:
    """Order averages so that each looks like the one before it.

    Parameters
    ----------
    images
        (n, y, y) float32, about centred; each with some contrast. The device decides where it is
        worked out.
    diameter
        Of the circle that is compared, px.
    shift_range
        Largest shift between two averages along x and y, px; a thirtieth of `diameter` if not
        given.
    mirrors
        Take an average and its mirror image for alike.
    threads
        On a CPU. The result does not depend on them.
    progress
        Called with the share that is done, 0 to 1.

    Returns
    -------
    Ordering
        An open path. Of its two directions, that which begins with the lower place.

    Raises
    ------
    ShapeError
        If the images are not square.
    ParameterError
        If the diameter is not within the box, or there are more than 10,000 averages.
    DataError
        If an average is constant or holds values that are not numbers.
    """
    require_shape(images, "n y y", name="images")
    require_above(diameter, 4, name="diameter", unit="px")
    _require_usable(images, diameter)
    reach = _SHIFT_SHARE * diameter if shift_range is None else shift_range
    with one_core(), torch.inference_mode():
        coarse = sample_rings(images, diameter=diameter, n_rings=_RINGS)
        fine = sample_rings(images, diameter=diameter, n_rings=_FINE_RINGS)
        apart = distances(
            coarse, shift_range=reach, mirrors=mirrors, threads=threads, progress=progress
        )
        _refine_nearest(apart, coarse, shift_range=reach, mirrors=mirrors, threads=threads)
        order = shortest_path(apart)
        del apart
        if len(order) < 2:
            return _chain(order, None)
        pairs = align_pairs(
            coarse,
            fine,
            moving=order[1:],
            still=order[:-1],
            shift_range=reach,
            mirrors=mirrors,
            threads=threads,
        )
    return _chain(order, pairs)


def apply_ordering(images: Tensor, ordering: Ordering) -> Tensor:
    """Bring averages into their order and onto one another.

    Parameters
    ----------
    images
        (n, y, y), as they were given to `order_averages`.
    ordering
        Of these.

    Returns
    -------
    Tensor
        (n, y, y), dtype and device of `images`; detail beyond Nyquist in the corners of the
        transform is removed from all, as `transform_images` does.
    """
    turned = transform_images(
        images[torch.from_numpy(ordering.order)],
        psi=torch.from_numpy(ordering.angles).to(images),
        shift_x=torch.from_numpy(ordering.shifts[:, 0]).to(images),
        shift_y=torch.from_numpy(ordering.shifts[:, 1]).to(images),
    )
    mirrored = turned.flip(-1)
    if images.shape[-1] % 2 == 0:  # about pixel y // 2, which is not the middle
        mirrored = mirrored.roll(1, -1)
    chosen = torch.from_numpy(ordering.mirrors).to(images.device)
    return torch.where(chosen[:, None, None], mirrored, turned)


def _refine_nearest(
    apart: NDArray[np.float32], rings: Rings, *, shift_range: float, mirrors: bool, threads: int
) -> None:
    """Measure between near neighbours below the grid, where they differ by less than its steps."""
    near = nearest(apart, _REFINED)
    pairs = np.stack([np.repeat(np.arange(len(apart)), near.shape[1]), near.ravel()], axis=1)
    one, other = np.unique(np.sort(pairs, axis=1), axis=0).T
    if not len(one):
        return
    found = align_pairs(
        rings,
        rings,
        moving=one,
        still=other,
        shift_range=shift_range,
        mirrors=mirrors,
        threads=threads,
    )
    lower = np.minimum(apart[one, other], (1 - found.similarity).clip(0).astype(np.float32))
    apart[one, other] = apart[other, one] = lower


def _chain(order: NDArray[np.int64], pairs: Alignment | None) -> Ordering:
    """Add up what brings each average onto the one before, from the first on."""
    n = len(order)
    psi, shift = np.zeros(n), np.zeros((n, 2))
    is_mirrored, similarity = np.zeros(n, bool), np.full(n, np.nan)
    for k in range(1, n if pairs is not None else 0):
        assert pairs is not None
        turn, flips = float(pairs.psi[k - 1]), bool(pairs.is_mirrored[k - 1])
        before = _KEPT * shift[k - 1] * ((-1, 1) if flips else (1, 1))
        cos, sin = math.cos(turn), math.sin(turn)
        back = np.array([cos * before[0] + sin * before[1], cos * before[1] - sin * before[0]])
        shift[k] = pairs.shift[k - 1] + back
        psi[k] = turn + (-psi[k - 1] if flips else psi[k - 1])
        is_mirrored[k] = is_mirrored[k - 1] != flips
        similarity[k] = pairs.similarity[k - 1]
    angles = (np.rad2deg(psi) + 180) % 360 - 180
    return Ordering(
        order=order, angles=angles, shifts=shift, mirrors=is_mirrored, similarity=similarity
    )


def _require_usable(images: Tensor, diameter: float) -> None:
    n, size = images.shape[0], images.shape[-1]
    if diameter > size:
        raise ParameterError(
            "diameter", must=f"be at most the box, {size} px", got=f"{diameter:g} px",
            remedy="Give a smaller diameter",
        )  # fmt: skip
    if n > MOST_AVERAGES:
        raise ParameterError(
            "number of averages", must=f"be at most {MOST_AVERAGES:,}", got=f"{n:,}",
            remedy="Order a part of them",
        )  # fmt: skip
    flat = images.flatten(1)
    is_bad = ~torch.isfinite(flat).all(1) | (flat.amax(1) == flat.amin(1))
    if bool(is_bad.any()):
        raise DataError(
            f"average {int(is_bad.int().argmax()) + 1}", must="hold densities",
            got="one value, or values that are not numbers", remedy="Leave it out",
        )  # fmt: skip
