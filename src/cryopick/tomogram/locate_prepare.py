"""A tomogram as the pickers see it: protein positive, noise of deviation 1, without gold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryopick.errors import DataError
from cryopick.tomogram.locate_beads import Bead, find_beads
from cryopick.tomogram.locate_filters import gaussian_filter
from cryopick.tomogram.locate_source import (
    Corner,
    Levels,
    VoxelSource,
    measure_levels,
    read_padded,
    sample_corners,
)
from cryopick.tomogram.locate_streaks import BeadStreaks, learn_streaks

__all__ = ["PreparedTomogram", "prepare_tomogram"]

_STREAK_REACH = 640.0  # A to each side of a bead
_MOST_REACH = 63  # voxels
_NO_BEADS = BeadStreaks(beads=(), pattern=None)


@dataclass(frozen=True, kw_only=True)
class PreparedTomogram:
    """A volume whose boxes come normalised and without gold beads."""

    source: VoxelSource
    levels: Levels
    is_white: bool  # protein is brighter than its surroundings
    streaks: BeadStreaks = _NO_BEADS

    @property
    def shape(self) -> Corner:
        """(z, y, x), voxels."""
        return self.source.shape

    @property
    def beads(self) -> tuple[Bead, ...]:
        """The gold beads."""
        return self.streaks.beads

    def read(self, lower: Corner, upper: Corner) -> Tensor:
        """Read a box that may reach beyond the volume, where it holds 0.

        Parameters
        ----------
        lower, upper
            Voxels; `upper` is exclusive.

        Returns
        -------
        Tensor
            float32, (z, y, x), in deviations of the noise, protein positive.

        Raises
        ------
        DataError
            If a voxel is not finite.
        """
        return self.streaks.subtract(self.read_raw(lower, upper), lower)

    def read_raw(self, lower: Corner, upper: Corner) -> Tensor:
        """Read a box as `read` does, with the beads."""
        box = read_padded(self.source, lower, upper, fill=self.levels.middle)
        if not bool(torch.isfinite(box).all()):
            raise DataError(
                "tomogram",
                must="hold finite numbers",
                got="NaN or infinity",
                remedy="Reconstruct it again, or leave it out",
            )
        sign = 1.0 if self.is_white else -1.0
        return (box - self.levels.middle) * (sign / self.levels.deviation)

    def is_free(self, lower: Corner, upper: Corner) -> bool:
        """Whether no bead reaches into a box."""
        return not self.streaks.touches(lower, upper)


def prepare_tomogram(
    source: VoxelSource, *, voxel_size: float, is_white: bool, find_gold: bool, side: int
) -> PreparedTomogram:
    """Measure a tomogram and find its gold beads.

    Parameters
    ----------
    source
        The volume.
    voxel_size
        A.
    is_white
        Protein is brighter than its surroundings.
    find_gold
        Look for beads.
    side
        Of a block, voxels.

    Returns
    -------
    PreparedTomogram
        To read boxes from.

    Raises
    ------
    DataError
        If the volume is constant or not finite.
    """
    levels = measure_levels(source)
    plain = PreparedTomogram(source=source, levels=levels, is_white=is_white)
    if not find_gold:
        return plain
    beads = find_beads(plain.read_raw, plain.shape, deviation=_smooth_deviation(plain), side=side)
    reach = min(int(_STREAK_REACH / voxel_size), _MOST_REACH)
    streaks = learn_streaks(plain.read_raw, beads, reach=reach, shape=plain.shape)
    return PreparedTomogram(source=source, levels=levels, is_white=is_white, streaks=streaks)


def _smooth_deviation(tomogram: PreparedTomogram) -> float:
    """Robust deviation of the volume smoothed by one voxel."""
    side = min(32, *tomogram.shape)
    parts = []
    for z, y, x in sample_corners(tomogram.shape, side=side):
        end = (z + side + 4, y + side + 4, x + side + 4)
        box = tomogram.read_raw((z - 4, y - 4, x - 4), end)
        parts.append(gaussian_filter(box, 1.0).numpy().ravel())
    values = np.concatenate(parts)
    spread = float(np.median(np.abs(values - np.median(values)))) * 1.4826
    return spread or 1.0
