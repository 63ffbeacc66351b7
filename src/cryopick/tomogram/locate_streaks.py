"""What gold beads have in common about their cores: streaks, that are taken away from the volume.

A bead in a tomogram is the bead seen through the missing wedge: a core, and streaks much longer
than a particle. Cores are masked; the mean of what lies about them is subtracted from each bead, in
its strength and at its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.tomogram.locate_beads import Bead, ReadBox
from cryopick.tomogram.locate_filters import gaussian_filter, radius_grid
from cryopick.tomogram.locate_source import Corner

__all__ = ["BeadStreaks", "learn_streaks"]

_KEPT = 8  # patterns, moved to their bead
_SEEN = 0.3  # of the beads, that a voxel about them must be seen beside
_NEARBY = 2.0  # voxels over which the power of a pattern is averaged
_NOISE = 2.0  # of its expected power, that noise hardly exceeds there
_STREAK = 1.0  # voxels: streaks are no finer than a bead
_FEW = 3  # beads from which streaks are learned
_ROUNDS = 2


@dataclass(frozen=True, kw_only=True)
class BeadStreaks:
    """What the beads of a tomogram have in common about their cores."""

    beads: tuple[Bead, ...]
    pattern: Tensor | None  # (k, k, k) for a bead of strength 1; None where they are too few
    _moved: dict[int, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def subtract(self, box: Tensor, lower: Corner, *, but: int = -1) -> Tensor:
        """Take the streaks of all beads from a box, and mask their cores with 0.

        Parameters
        ----------
        box
            (z, y, x), of the volume; left as it is.
        lower
            Of the box, voxels.
        but
            Number of a bead that is left.
        """
        box = box.clone()
        for number, bead in enumerate(self.beads):
            if number != but and self._reaches(bead, lower, box):
                _add_cube(box, lower, bead.centre, self._pattern_of(number))
        for number, bead in enumerate(self.beads):
            if number != but:
                _mask_ball(box, lower, bead)
        return box

    def touches(self, lower: Corner, upper: Corner) -> bool:
        """Whether the core of a bead reaches into a box."""
        for bead in self.beads:
            nearest = np.clip(bead.centre, lower, np.array(upper) - 1)
            if np.linalg.norm(nearest - np.array(bead.centre)) <= bead.radius:
                return True
        return False

    def covers(self, places: NDArray[np.float64], *, margin: float) -> NDArray[np.bool_]:
        """Which places (n, 3), in voxels, lie within `margin` voxels of a core."""
        inside = np.zeros(len(places), bool)
        for bead in self.beads:
            distance = np.linalg.norm(places - np.array(bead.centre), axis=1)
            inside |= distance <= bead.radius + margin
        return inside

    def _reaches(self, bead: Bead, lower: Corner, box: Tensor) -> bool:
        if self.pattern is None:
            return False
        away = np.round(bead.centre) - np.array(lower)
        half = self.pattern.shape[0] // 2
        return bool(((away + half >= 0) & (away - half < np.array(box.shape))).all())

    def _pattern_of(self, number: int) -> Tensor:
        if number not in self._moved:
            if len(self._moved) >= _KEPT:
                self._moved.pop(next(iter(self._moved)))
            assert self.pattern is not None
            bead = self.beads[number]
            rest = np.array(bead.centre) - np.round(bead.centre)
            self._moved[number] = -bead.strength * _shifted(self.pattern, rest)
        return self._moved[number]


def learn_streaks(
    read: ReadBox, beads: Sequence[Bead], *, reach: int, shape: Corner
) -> BeadStreaks:
    """Average the surroundings of the beads, each with the streaks of the others taken away.

    Parameters
    ----------
    read
        Reads a box of normalised voxels that may reach beyond the volume.
    beads
        From `find_beads`.
    reach
        Of the streaks that are learned, voxels to each side.
    shape
        Of the volume, voxels.

    Returns
    -------
    BeadStreaks
        Without a pattern if there are fewer than three beads.
    """
    streaks = BeadStreaks(beads=tuple(beads), pattern=None)
    if len(beads) < _FEW:
        return streaks
    for _ in range(_ROUNDS):
        total = torch.zeros((2 * reach + 1,) * 3)
        weight = torch.zeros_like(total)
        for number, bead in enumerate(beads):
            box, inside = _surroundings(read, streaks, number, reach=reach, shape=shape)
            total += bead.strength * (box + box.flip(0, 1, 2))  # a bead is its own mirror image
            weight += bead.strength**2 * (inside + inside.flip(0, 1, 2))
        weight = torch.where(weight > _SEEN * weight.max(), weight, 0)
        mean = torch.where(weight > 0, total / weight.clamp(min=1e-6), 0)
        pattern = _without_noise(mean, weight)
        streaks = BeadStreaks(beads=tuple(beads), pattern=pattern)
    return streaks


def _without_noise(pattern: Tensor, weight: Tensor) -> Tensor:
    """Smooth a mean, and keep it where its power is more than that of the noise left (Wiener).

    Voxels have noise of variance 1, so that of their weighted mean is 1 / weight.
    """
    smooth = _smoothed(pattern * weight, _STREAK) / _smoothed(weight, _STREAK).clamp(min=1e-6)
    noise = (2 * np.pi**0.5 * _STREAK) ** -3 / weight.clamp(min=1e-6)
    share = _smoothed((weight > 0).float(), _NEARBY).clamp(min=1e-6)
    excess = _smoothed(torch.where(weight > 0, smooth.square() / noise, 0), _NEARBY) / share
    kept = (1 - _NOISE / excess.clamp(min=1e-6)).clamp(min=0)
    return torch.where(weight > 0, smooth * kept, 0)


def _smoothed(cube: Tensor, sigma: float) -> Tensor:
    reach = int(np.ceil(4 * sigma))
    return gaussian_filter(torch.nn.functional.pad(cube, [reach] * 6), sigma)


def _surroundings(
    read: ReadBox, streaks: BeadStreaks, number: int, *, reach: int, shape: Corner
) -> tuple[Tensor, Tensor]:
    """Read the box about a bead without the others, and where it lies in the volume."""
    bead = streaks.beads[number]
    middle = np.round(bead.centre).astype(int)
    z, y, x = (int(m) - reach for m in middle)
    end = (z + 2 * reach + 1, y + 2 * reach + 1, x + 2 * reach + 1)
    box = streaks.subtract(read((z, y, x), end), (z, y, x), but=number)
    inside = torch.zeros_like(box)
    inside[tuple(slice(max(-a, 0), n - a) for a, n in zip((z, y, x), shape, strict=True))] = 1
    for other, there in enumerate(streaks.beads):
        if other != number:
            _mask_ball(inside, (z, y, x), there)
    return _shifted(box * inside, middle - np.array(bead.centre)), inside


def _shifted(cube: Tensor, shift: NDArray[np.float64]) -> Tensor:
    """Move a cube by a fraction of a voxel."""
    transform: Tensor = torch.fft.rfftn(cube)
    axes = [torch.fft.fftfreq(n) for n in cube.shape[:2]] + [torch.fft.rfftfreq(cube.shape[2])]
    for axis, (frequency, step) in enumerate(zip(axes, shift, strict=True)):
        shape = [1, 1, 1]
        shape[axis] = -1
        transform = transform * torch.exp(-2j * np.pi * frequency * float(step)).reshape(shape)
    moved: Tensor = torch.fft.irfftn(transform, s=cube.shape)
    return moved


def _add_cube(box: Tensor, lower: Corner, centre: tuple[float, float, float], cube: Tensor) -> None:
    first = np.round(centre).astype(int) - cube.shape[0] // 2 - np.array(lower)
    place, part = [], []
    for start, length, side in zip(first, box.shape, cube.shape, strict=True):
        low, high = max(int(start), 0), min(int(start) + side, length)
        if low >= high:
            return
        place.append(slice(low, high))
        part.append(slice(low - int(start), high - int(start)))
    box[tuple(place)] += cube[tuple(part)]


def _mask_ball(box: Tensor, lower: Corner, bead: Bead) -> None:
    half = int(np.ceil(bead.radius)) + 1
    middle = np.round(bead.centre).astype(int)
    distance = radius_grid(2 * half + 1, offset=tuple(np.array(bead.centre) - middle))
    place, part = [], []
    for start, length in zip(middle - half - np.array(lower), box.shape, strict=True):
        low, high = max(int(start), 0), min(int(start) + 2 * half + 1, length)
        if low >= high:
            return
        place.append(slice(low, high))
        part.append(slice(low - int(start), high - int(start)))
    outside = distance[tuple(part)] > bead.radius
    box[tuple(place)] *= outside
