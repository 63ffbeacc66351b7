"""Smooth a tile and put its grey levels on the scale of its tomogram's noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.errors import DataError

__all__ = ["Levels", "blur_matrix", "blur_radius", "find_levels", "scale_levels", "smooth"]

_REACH = 4.0  # standard deviations of the Gaussian
_TO_DEVIATION = 1.4826  # of a Gaussian, from the median absolute deviation
_LEAST_LIMIT = 6.0  # deviations; noise does not get there
_LIMIT_QUANTILE = 0.995


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The scale of a smoothed tomogram."""

    center: float  # its median
    spread: float  # its deviation, from the median absolute deviation
    limit: float  # deviations at which levels saturate, so that gold does not rule


def blur_radius(sigma: float) -> int:
    """Voxels that the smoothing reaches to each side, for a deviation in voxels."""
    return math.ceil(_REACH * sigma)


def blur_matrix(sigma: float, *, size: int, margin: int) -> Tensor:
    """Matrix that smooths a row: each output is a Gaussian sum of the row.

    Parameters
    ----------
    sigma
        Deviation in voxels; 0 smooths nothing.
    size
        Of the output.
    margin
        Of the input on each side of the output; at least `blur_radius`.

    Returns
    -------
    Tensor
        float32, (size, size + 2 margin); rows sum to 1.
    """
    places = torch.arange(size + 2 * margin, dtype=torch.float64)
    distance = places[None, :] - (places[:size, None] + margin)
    weights = (distance == 0).double()
    if sigma > 0:
        weights = torch.exp(-0.5 * (distance / sigma).square())
        weights = weights * (distance.abs() <= blur_radius(sigma))
    return (weights / weights.sum(1, keepdim=True)).float()


def smooth(tile: Tensor, matrix: Tensor) -> Tensor:
    """Smooth a cube along its three axes.

    Parameters
    ----------
    tile
        (s, s, s) float32.
    matrix
        (t, s), of `blur_matrix`.

    Returns
    -------
    Tensor
        (t, t, t).
    """
    side, longer = matrix.shape
    along_z = (matrix @ tile.reshape(longer, -1)).view(side, longer, longer)
    return torch.matmul(matrix, along_z) @ matrix.T


def scale_levels(smoothed: Tensor, levels: Levels) -> Tensor:
    """Count grey levels in deviations from the median; beyond the limit they saturate smoothly."""
    scaled = (smoothed - levels.center).mul_(1 / (levels.spread * levels.limit))
    return scaled.tanh_().mul_(levels.limit)


def find_levels(values: NDArray[np.float32], *, name: str, is_white: bool = False) -> Levels:
    """Find the scale of a tomogram from a sample of its smoothed voxels.

    Parameters
    ----------
    values
        (n,).
    name
        Of the tomogram, for the error.
    is_white
        Particles are brighter than what is around them; on that side levels saturate late.

    Raises
    ------
    DataError
        If the sample has values that are no numbers, or all are equal.
    """
    if not np.isfinite(values).all():
        raise DataError(
            name,
            must="hold numbers only",
            got="voxels that are NaN or infinite",
            remedy="Write the tomogram again",
        )
    center = float(np.median(values))
    away = np.abs(values.astype(np.float64) - center)
    spread = _TO_DEVIATION * float(np.median(away))
    if spread <= 1e-6 * float(away.max()):  # more than half of it is padding of one value
        inside = away[away > 0]
        spread = _TO_DEVIATION * float(np.median(inside)) if inside.size else 0.0
    if not spread > 0:
        raise DataError(
            name,
            must="have contrast",
            got=f"{center:g} in every voxel looked at",
            remedy="Check that this is the tomogram, or leave it out",
        )
    towards = (values - center) * (1 if is_white else -1)
    limit = max(_LEAST_LIMIT, float(np.quantile(towards, _LIMIT_QUANTILE)) / spread)
    return Levels(center=center, spread=spread, limit=limit)
