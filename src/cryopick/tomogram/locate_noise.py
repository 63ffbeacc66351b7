"""The spectrum of the background, and balls filtered so that they stand out from it best.

Against noise of power P the best linear detector of a shape S is correlation with S / P (North
1943, Turin 1960). P is taken by rings, as the median over boxes of the tomogram, so that boxes
with particles do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.tomogram.locate_filters import Filters, radial_frequency, radius_grid
from cryopick.tomogram.locate_source import Corner, sample_corners

__all__ = ["NoiseSpectrum", "ResponseScale", "ball_filters", "measure_noise", "measure_scales"]

_SIDE = 48  # voxels, of the boxes in which the spectrum is measured
_LEAST = 0.1  # of the median power: what a wedge left empty is not worth its weight
_FINEST = 0.5  # cycles per radius of the smallest ball: what is finer counts as much
_SOFT = 0.5  # voxels, of the edge of a ball
_REACH = 6  # voxels that a filter extends beyond its ball
_VALID = 48  # voxels, side of what is kept of a box whose responses are measured

ReadBox = Callable[[Corner, Corner], Tensor]


@dataclass(frozen=True)
class NoiseSpectrum:
    """Power of the background over frequency."""

    frequency: NDArray[np.float64]  # (n,) cycles per voxel
    power: NDArray[np.float64]  # (n,)

    def at(self, frequency: Tensor) -> Tensor:
        """Power at each frequency, cycles per voxel."""
        values = np.interp(frequency.numpy(), self.frequency, self.power)
        return torch.from_numpy(values).to(torch.float32)


@dataclass(frozen=True)
class ResponseScale:
    """What turns responses of one filter into z-scores, and how smooth they are."""

    middle: float
    deviation: float
    roughness: float  # variance of the slope of the z-score, per voxel squared, mean over axes


def measure_noise(
    read: ReadBox, shape: Corner, *, is_usable: Callable[[Corner, Corner], bool]
) -> NoiseSpectrum:
    """Measure the power spectrum of the background.

    Parameters
    ----------
    read
        Reads a box of voxels that may reach beyond the volume.
    shape
        Of the volume, voxels.
    is_usable
        Whether a box holds no gold bead.

    Returns
    -------
    NoiseSpectrum
        Rings of one box frequency; nowhere below a tenth of the median power.
    """
    side = min(_SIDE, *shape) // 2 * 2
    window = torch.hann_window(side, periodic=False)
    window = window[:, None, None] * window[:, None] * window
    corners = [(c, _add(c, side)) for c in sample_corners(shape, side=side)]
    usable = [c for c in corners if is_usable(*c)] or corners
    powers = []
    for lower, upper in usable:
        box = read(lower, upper)
        power = torch.fft.rfftn((box - box.mean()) * window.to(box.device)).abs() ** 2
        powers.append(power.cpu())
    middle = torch.stack(powers).median(0).values / np.log(2)  # mean of an exponential variable
    rings = (radial_frequency(side) * side).round().long().flatten()
    sums = torch.bincount(rings, middle.flatten().double())
    counts = torch.bincount(rings)
    power = (sums / counts)[1 : side // 2 + 1].numpy() / float((window**2).sum())
    power = np.maximum(power, _LEAST * np.median(power))
    return NoiseSpectrum(np.arange(1, len(power) + 1) / side, power)


def ball_filters(radii: Sequence[float], noise: NoiseSpectrum) -> Filters:
    """Make matched filters of balls against the noise.

    Parameters
    ----------
    radii
        Voxels.
    noise
        Of the background.

    Returns
    -------
    Filters
        One for each radius.
    """
    half = int(np.ceil(max(radii))) + _REACH
    side = 2 * half + 1
    grid = 2 * side + 1  # room for what the division by the power spreads
    radius = radius_grid(grid)
    # Where a smoothed tomogram has no noise left, its faces and roundings would count most.
    least = float(noise.at(torch.tensor([_FINEST / min(radii)])))
    weight = 1 / noise.at(radial_frequency(grid)).clamp(min=least)
    kernels = []
    for ball in radii:
        shape = torch.sigmoid((ball - radius) / (_SOFT / 2))
        spread = torch.fft.irfftn(torch.fft.rfftn(shape) * weight, s=radius.shape)
        fade = torch.sigmoid((ball + _REACH - 1 - radius) * 2)  # the support ends softly
        cut = grid // 2 - half
        kernel = (spread * fade)[cut : cut + side, cut : cut + side, cut : cut + side]
        kernels.append(kernel / kernel.square().sum().sqrt())
    return Filters(torch.stack(kernels))


def measure_scales(
    respond: Callable[[Tensor], Tensor],
    read: ReadBox,
    shape: Corner,
    *,
    halo: int,
    is_usable: Callable[[Corner, Corner], bool],
) -> list[ResponseScale]:
    """Measure the level, spread and smoothness of responses in boxes spread over the volume.

    Parameters
    ----------
    respond
        Takes a box and gives the responses (n, z, y, x) without `halo` on each side.
    read, shape, is_usable
        As for `measure_noise`.
    halo
        Voxels.

    Returns
    -------
    list of ResponseScale
        One for each response.
    """
    side = min(_VALID, *shape)
    corners = [(c, _add(c, side)) for c in sample_corners(shape, side=side)]
    usable = [c for c in corners if is_usable(*c)] or corners
    boxes = [respond(read(_add(a, -halo), _add(b, halo))) for a, b in usable]
    return [_scale(torch.stack(parts)) for parts in zip(*boxes, strict=True)]


def _scale(values: Tensor) -> ResponseScale:
    """Measure one response; values (boxes, z, y, x)."""
    middle = float(values.median())
    deviation = 1.4826 * float((values - middle).abs().median())
    slopes = [values.diff(dim=axis).abs().median() * 1.4826 for axis in (1, 2, 3)]
    rough = float(np.mean([float(s) ** 2 for s in slopes])) / max(deviation, 1e-30) ** 2
    return ResponseScale(middle, max(deviation, 1e-30), rough)


def _add(corner: Corner, step: int) -> Corner:
    z, y, x = corner
    return z + step, y + step, x + step
