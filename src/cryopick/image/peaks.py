"""Peaks of a map: local maxima, below the pixel grid, at a distance from one another."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryopick.checks import require_shape

__all__ = ["local_maxima", "refine_peaks", "suppress_close"]


def local_maxima(scores: Tensor, *, radius: int, floor: float) -> Tensor:
    """Find pixels that are the largest of their neighbourhood.

    Parameters
    ----------
    scores
        (y, x), real; -inf where nothing may be found.
    radius
        Half side of the square neighbourhood, px, at least 1.
    floor
        Smaller maxima are left out.

    Returns
    -------
    Tensor
        (n, 2) int64, row and column, best first; ties in the order of the rows.
    """
    require_shape(scores, "y x", name="scores")
    side = 2 * radius + 1
    pooled = torch.nn.functional.max_pool2d(scores[None, None], (side, 1), 1, (radius, 0))
    pooled = torch.nn.functional.max_pool2d(pooled, (1, side), 1, (0, radius))[0, 0]
    found = torch.nonzero((scores == pooled) & (scores > floor))
    order = torch.sort(scores[found[:, 0], found[:, 1]], descending=True, stable=True).indices
    return found[order]


def refine_peaks(scores: Tensor, peaks: Tensor) -> tuple[Tensor, Tensor]:
    """Move peaks below the pixel grid with a parabola along each axis.

    Parameters
    ----------
    scores
        (y, x), real.
    peaks
        (n, 2) int64, local maxima of `scores`.

    Returns
    -------
    tuple of Tensor
        Positions (n, 2) in px, at most half a pixel from `peaks`, and the height of the
        parabola there (n,). A peak on the rim or beside a -inf stays where it is.
    """
    height, width = scores.shape
    y, x = peaks[:, 0], peaks[:, 1]
    middle = scores[y, x]
    position, value = peaks.to(scores.dtype), middle.clone()
    for axis, (index, size) in enumerate(((y, height), (x, width))):
        before = (index - 1).clamp_min(0)
        after = (index + 1).clamp_max(size - 1)
        low = scores[before, x] if axis == 0 else scores[y, before]
        high = scores[after, x] if axis == 0 else scores[y, after]
        curvature = low - 2 * middle + high
        slope = (high - low) / 2
        can = (before < index) & (after > index) & torch.isfinite(curvature) & (curvature < 0)
        step = torch.where(can, -slope / torch.where(can, curvature, -1.0), 0.0).clamp(-0.5, 0.5)
        position[:, axis] += step
        gain = slope * step + curvature * step**2 / 2
        value = value + torch.where(can, gain, 0.0)
    return position, value


def suppress_close(
    positions: NDArray[np.float64], *, min_distance: NDArray[np.float64] | float
) -> NDArray[np.int64]:
    """Keep the best of points that lie too close together.

    Parameters
    ----------
    positions
        (n, 2), best first, in any unit.
    min_distance
        In the same unit; (n,) gives each kept point its own reach.

    Returns
    -------
    numpy.ndarray
        (k,) int64, ascending: which points are kept. A point goes if a better point that is
        kept lies within that point's distance.
    """
    count = len(positions)
    if not count:
        return np.zeros(0, np.int64)
    reach = np.broadcast_to(np.asarray(min_distance, float), (count,))
    neighbours = cKDTree(positions).query_ball_point(positions, reach)
    is_kept = np.ones(count, bool)
    for index in range(count):
        if is_kept[index]:
            for other in neighbours[index]:
                if other > index:
                    is_kept[other] = False
    return np.flatnonzero(is_kept)
