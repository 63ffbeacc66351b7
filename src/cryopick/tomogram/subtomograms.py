"""Boxes about picks: cut on whole voxels, padded at the faces, normalised."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.checks import require_above, require_even
from cryopick.tomogram.locate_filters import radius_grid
from cryopick.tomogram.locate_source import VoxelSource, read_padded

__all__ = ["cut_subtomogram"]


def cut_subtomogram(
    source: VoxelSource,
    place: NDArray[np.float64],
    *,
    box_size: int,
    radius: float,
    fill: float,
    is_white: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Cut the box about a pick; nothing is interpolated.

    Parameters
    ----------
    source
        The volume.
    place
        (3,): z, y, x of the pick in voxels.
    box_size
        Side, voxels, even; the pick's voxel is number box_size // 2 along each axis.
    radius
        Of the particle, voxels. Voxels beyond it, within the volume, get mean 0 and deviation 1.
    fill
        What voxels beyond the faces hold before that: the middle of the volume.
    is_white
        Protein is bright in the volume; it always is in the box.

    Returns
    -------
    tuple
        float32 (z, y, x), and what the pick lies beyond its voxel, (3,) in [-0.5, 0.5].

    Raises
    ------
    ParameterError
        If `box_size` is odd or `radius` is not above 0.
    """
    require_even(box_size, name="box_size", unit="voxels")
    require_above(radius, 0, name="radius", unit="voxels")
    nearest = np.floor(np.asarray(place, np.float64) + 0.5)
    z, y, x = (int(c) - box_size // 2 for c in nearest)
    upper = (z + box_size, y + box_size, x + box_size)
    box = read_padded(source, (z, y, x), upper, fill=float("nan"))
    is_padded = box.isnan()
    distance = radius_grid(box_size + 1)[:-1, :-1, :-1]
    background = box[(distance > radius) & ~is_padded]
    if background.numel() < 2:
        background = box[~is_padded]
    deviation = float(background.std()) if background.numel() > 1 else 0.0
    box = torch.where(is_padded, torch.tensor(fill), box)
    box = (box - float(background.mean())) / (deviation or 1.0)
    if not is_white:
        box = -box
    return box.numpy(), np.asarray(place, np.float64) - nearest
