"""The plain threshold: two levels of grey in the smoothed tomogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.tomogram.locate_filters import gaussian_filter
from cryopick.tomogram.locate_prepare import PreparedTomogram
from cryopick.tomogram.locate_source import Corner, VoxelSource, sample_corners

__all__ = ["dark_threshold", "smoothed_source"]

_SIGMA = 2.0  # voxels
_ROUNDS = 100
_SAMPLED = 512  # boxes


@dataclass(frozen=True)
class _Smoothed:
    tomogram: PreparedTomogram

    @property
    def shape(self) -> Corner:
        return self.tomogram.shape

    def read(self, lower: Corner, upper: Corner) -> NDArray[np.float32]:
        reach = int(np.ceil(4 * _SIGMA))
        start, end = ((c[0] + s, c[1] + s, c[2] + s) for c, s in ((lower, -reach), (upper, reach)))
        return np.asarray(gaussian_filter(self.tomogram.read(start, end), _SIGMA).numpy())


def smoothed_source(tomogram: PreparedTomogram) -> VoxelSource:
    """Smooth a tomogram with a Gaussian of two voxels as it is read."""
    return _Smoothed(tomogram)


def dark_threshold(source: VoxelSource) -> float:
    """Find the level between two groups of voxels (two-means; Lloyd 1982).

    Parameters
    ----------
    source
        Smoothed levels, protein positive.

    Returns
    -------
    float
        Half way between the means of the groups.
    """
    side = min(16, *source.shape)
    parts = [
        np.asarray(source.read((z, y, x), (z + side, y + side, x + side))).ravel()
        for z, y, x in sample_corners(source.shape, side=side, number=_SAMPLED)
    ]
    values = np.concatenate(parts).astype(np.float64)
    level = float(np.quantile(values, 0.99))
    for _ in range(_ROUNDS):
        above = values > level
        if not above.any() or above.all():
            break
        new = 0.5 * (float(values[above].mean()) + float(values[~above].mean()))
        if abs(new - level) < 1e-6:
            break
        level = new
    return level
