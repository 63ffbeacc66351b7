"""What one tomogram is searched with: filters, their scale, and the least score of a pick."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cryopick.tomogram.dog import dog_filters
from cryopick.tomogram.locate_filters import Filters
from cryopick.tomogram.locate_noise import (
    ResponseScale,
    ball_filters,
    measure_noise,
    measure_scales,
)
from cryopick.tomogram.locate_parameters import TomogramPickParameters
from cryopick.tomogram.locate_prepare import PreparedTomogram
from cryopick.tomogram.locate_significance import significance_threshold
from cryopick.tomogram.locate_source import Corner

__all__ = ["Search", "make_search"]

_STEP = 1.28  # between the radii of two filters
_LARGEST_BALL = 0.85  # of the largest diameter: what is inside makes particles look smaller


@dataclass(frozen=True)
class Search:
    """What one tomogram is searched with."""

    tomogram: PreparedTomogram
    filters: Filters
    scales: list[ResponseScale]
    threshold: float
    slab: tuple[int, int]
    device: str

    def read(self, lower: Corner, upper: Corner) -> Tensor:
        """Read a box of the tomogram onto the device."""
        return self.tomogram.read(lower, upper).to(self.device)


def make_search(
    tomogram: PreparedTomogram,
    parameters: TomogramPickParameters,
    voxel_size: float,
    slab: tuple[int, int],
    *,
    device: str,
) -> Search:
    """Measure the noise of a tomogram and make the filters for it.

    Parameters
    ----------
    tomogram
        Prepared.
    parameters
        Of the picking.
    voxel_size
        A.
    slab
        First section and the one after the last that are searched.
    device
        Where the tomogram is filtered.
    """

    def read(lower: Corner, upper: Corner) -> Tensor:
        return tomogram.read(lower, upper).to(device)

    radii = _radii(parameters, voxel_size)
    if parameters.method == "dog":
        filters = dog_filters(radii)
    else:
        noise = measure_noise(read, tomogram.shape, is_usable=tomogram.is_free)
        filters = ball_filters(radii, noise)
    scales = measure_scales(
        filters.respond,
        read,
        tomogram.shape,
        halo=filters.halo,
        is_usable=tomogram.is_free,
    )
    volume = float(np.prod(tomogram.shape[1:])) * (slab[1] - slab[0])
    threshold = parameters.min_score
    if threshold is None:
        threshold = significance_threshold(
            [s.roughness for s in scales],
            volume=volume,
            false_positives=parameters.false_positives,
        )
    return Search(tomogram, filters, scales, threshold, slab, device)


def _radii(parameters: TomogramPickParameters, voxel_size: float) -> list[float]:
    """Radii of the balls, voxels, at most a factor 1.28 apart."""
    low = parameters.min_diameter / 2 / voxel_size
    high = max(_LARGEST_BALL * parameters.max_diameter / 2 / voxel_size, low)
    count = int(np.ceil(np.log(high / low) / np.log(_STEP) - 1e-9)) + 1
    return [float(r) for r in np.geomspace(low, high, count)]
