"""Gold beads: found before anything else, as their streaks outshine particles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cryopick.tomogram.locate_filters import gaussian_filter, local_maxima, radius_grid
from cryopick.tomogram.locate_source import Corner, blocks_of

__all__ = ["Bead", "ReadBox", "find_beads"]

ReadBox = Callable[[Corner, Corner], Tensor]

_SMOOTH = 1.0  # voxels
_NOTICED = 6.0  # deviations of the smoothed volume: a maximum that noise hardly makes
_LEAST = 20.0  # 3 deviations of a voxel: no protein is that dark before denoising
_OUTSHINES = 3.5  # times the median of the noticed maxima
_MANY = 20  # noticed maxima from which their median is trusted
_HALO = 8  # voxels: 4 of the smoothing, 3 of the maxima, 1
_WINDOW = 20  # voxels to each side of a bead in which its core is measured
_CORE = 0.2  # of the largest value
_FRINGE = 1.6  # radii


@dataclass(frozen=True)
class Bead:
    """A gold bead."""

    centre: tuple[float, float, float]  # (z, y, x), voxels
    radius: float  # of what is masked, voxels
    strength: float  # mean of its core


def find_beads(read: ReadBox, shape: Corner, *, deviation: float, side: int) -> tuple[Bead, ...]:
    """Find beads, dark or bright, as maxima far above all others.

    Parameters
    ----------
    read
        Reads a box of normalised voxels that may reach beyond the volume.
    shape
        Of the volume, voxels.
    deviation
        Robust deviation of the volume smoothed by one voxel.
    side
        Of a block, voxels.

    Returns
    -------
    tuple of Bead
        The strongest first.
    """
    places, values = _noticed(read, shape, deviation=deviation, side=side)
    threshold = _LEAST
    if len(values) >= _MANY:
        threshold = max(threshold, _OUTSHINES * float(np.median(values)))
    order = np.argsort(-values, kind="stable")
    beads: list[Bead] = []
    for place, value in zip(places[order], values[order], strict=True):
        if value <= threshold:
            break
        if not any(_explains(bead, place) for bead in beads):
            beads.append(_measure(read, place))
    return tuple(beads)


def _noticed(
    read: ReadBox, shape: Corner, *, deviation: float, side: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    places, values = [], []
    for lower, upper in blocks_of((0, 0, 0), shape, side=side):
        start, end = _grow(lower, -_HALO), _grow(upper, _HALO)
        smooth = gaussian_filter(read(start, end), _SMOOTH).abs()[1:-1, 1:-1, 1:-1] / deviation
        found = local_maxima(smooth, reach=3, least=_NOTICED)
        values.append(smooth[tuple(found.T)].double().numpy())
        places.append(found.numpy() + np.array(start) + 5.0)
    return np.concatenate(places), np.concatenate(values)


def _explains(bead: Bead, place: NDArray[np.float64]) -> bool:
    """Whether a maximum belongs to a bead: to its core, or to the fringe that the wedge makes."""
    return bool(np.linalg.norm(place - np.array(bead.centre)) <= _FRINGE * bead.radius)


def _measure(read: ReadBox, place: NDArray[np.float64]) -> Bead:
    """Measure centre, radius and strength of the bead at a maximum."""
    z, y, x = (int(p) for p in place)
    lower = (z - _WINDOW, y - _WINDOW, x - _WINDOW)
    reach = 4
    box = read(
        _grow(lower, -reach), (z + _WINDOW + reach, y + _WINDOW + reach, x + _WINDOW + reach)
    )
    smooth = gaussian_filter(box, _SMOOTH).numpy()
    sign = float(np.sign(smooth[_WINDOW, _WINDOW, _WINDOW]))
    smooth = smooth * sign
    labels, _ = ndimage.label(smooth > 0.5 * smooth[_WINDOW, _WINDOW, _WINDOW])
    core = labels == labels[_WINDOW, _WINDOW, _WINDOW]
    centre = np.array(ndimage.center_of_mass(np.where(core, smooth, 0.0)))
    radius = (0.75 * core.sum() / np.pi) ** (1 / 3)  # of a ball of its volume
    shells = np.round(radius_grid(2 * _WINDOW, offset=tuple(centre - _WINDOW)).numpy()).astype(int)
    sums = np.bincount(shells.ravel(), smooth.ravel().astype(np.float64))
    profile = (sums / np.maximum(np.bincount(shells.ravel()), 1))[1:_WINDOW]
    beyond = np.flatnonzero(profile < _CORE * profile[0])
    edge = 1.0 + float(beyond[0]) if len(beyond) else radius
    zc, yc, xc = centre + np.array(lower)
    return Bead((zc, yc, xc), max(edge, radius) + 1.0, sign * float(smooth[core].mean()))


def _grow(corner: Corner, step: int) -> Corner:
    z, y, x = corner
    return z + step, y + step, x + step
