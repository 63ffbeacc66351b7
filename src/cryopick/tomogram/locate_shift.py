"""Mean shift: from a maximum to the middle of the object that it belongs to.

A maximum of a filter lies on a part of a particle, such as one of two domains. The mean of the
evidence in a ball about it lies nearer to the middle of the whole; a ball about that mean, again,
until it rests (Comaniciu and Meer 2002). Starts that come to rest at one place are one particle.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.tomogram.locate_source import ArraySource, Corner, VoxelSource, read_padded

__all__ = ["evidence_about", "shift_to_means"]

_STEPS = 20
_RESTS = 0.02  # voxels
_BATCH = 64  # boxes in memory at once


def shift_to_means(
    source: VoxelSource | NDArray[np.floating],
    places: NDArray[np.float64],
    *,
    radius: float | NDArray[np.float64],
    least: float | NDArray[np.float64],
) -> NDArray[np.float64]:
    """Move each place to the mean of the evidence about it, until it rests.

    Parameters
    ----------
    source
        Evidence, (z, y, x); what is above `least` counts by how much it is.
    places
        (n, 3): z, y, x in voxels.
    radius
        Of the ball, voxels; one for all or one for each. Its edge is soft over a voxel.
    least
        Evidence that counts nothing; one for all or one for each.

    Returns
    -------
    numpy.ndarray
        (n, 3).
    """
    radii = np.broadcast_to(np.asarray(radius, np.float64), (len(places),))
    floors = np.broadcast_to(np.asarray(least, np.float64), (len(places),))
    moved = np.array(places, np.float64)
    active = np.arange(len(places))
    for _ in range(_STEPS):
        steps = np.zeros((len(active), 3))
        for start in range(0, len(active), _BATCH):
            batch = active[start : start + _BATCH]
            steps[start : start + _BATCH] = _steps(
                source, moved[batch], radii[batch], floors[batch]
            )
        moved[active] += steps
        active = active[np.abs(steps).max(axis=1, initial=0) > _RESTS]
        if not len(active):
            break
    return moved


def evidence_about(
    source: VoxelSource | NDArray[np.floating], place: NDArray[np.float64], *, half: int
) -> tuple[Tensor, Corner]:
    """Read the cube of evidence about a place.

    Returns
    -------
    tuple
        Cube of 2 half + 1 voxels a side, and its lower corner.
    """
    volume = ArraySource(source) if isinstance(source, np.ndarray) else source
    z, y, x = (int(c) - half for c in np.round(place))
    side = 2 * half + 1
    return read_padded(volume, (z, y, x), (z + side, y + side, x + side)), (z, y, x)


def _steps(
    source: VoxelSource | NDArray[np.floating],
    places: NDArray[np.float64],
    radii: NDArray[np.float64],
    floors: NDArray[np.float64],
) -> NDArray[np.float64]:
    half = int(np.ceil(radii.max())) + 1
    cubes = torch.stack([evidence_about(source, p, half=half)[0] for p in places])
    floor = torch.from_numpy(floors.copy()).reshape(-1, 1, 1, 1)
    weights = (cubes.double() - floor).clamp(min=0)
    rest = torch.from_numpy(places - np.round(places))
    grid = torch.arange(-half, half + 1, dtype=torch.float64)
    away = [
        (grid - rest[:, a, None]).reshape([-1] + [2 * half + 1 if b == a else 1 for b in range(3)])
        for a in range(3)
    ]
    distance = (away[0] ** 2 + away[1] ** 2 + away[2] ** 2).sqrt()
    edges = torch.from_numpy(radii.copy()).reshape(-1, 1, 1, 1)
    weights = weights * torch.sigmoid((edges - distance) * 2)
    total = weights.sum((1, 2, 3)).clamp(min=1e-9)
    means = [(weights * a).sum((1, 2, 3)) / total for a in away]
    return np.asarray(torch.stack(means, 1).numpy())
