"""Power spectrum of the background of a field, whatever the shape of the background."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryopick.checks import require_shape
from cryopick.image.fourier import good_size

__all__ = ["noise_power"]

_DYNAMIC_RANGE = 6.0  # largest over smallest power: less was filtered away, with the signal


def noise_power(
    image: Tensor, is_background: Tensor, frequency: Tensor, *, pixel_size: float, reach: float
) -> Tensor:
    """Estimate the mean power of the background on every ring.

    Parameters
    ----------
    image
        (y, x), real.
    is_background
        (y, x) bool: pixels that show background only.
    frequency
        (y, x // 2 + 1), 1/A: where the result is wanted.
    pixel_size
        A/px.
    reach
        Longest distance over which noise is taken to be correlated, A; finer features of the
        spectrum than 1 / reach are smoothed away.

    Returns
    -------
    Tensor
        As `frequency`: power of a pixel's noise (white noise of variance 1 gives 1), positive.

    Notes
    -----
    Autocovariance over the pairs of background pixels at each offset, times a Parzen window,
    transformed and averaged over directions (Blackman & Tukey, The Measurement of Power
    Spectra, 1959). Gaps in the background, where the particles were, do not bias it.
    """
    require_shape(image, "y x", name="image")
    side = max(2, math.ceil(reach / pixel_size))
    covariance = _covariance(image, is_background, reach=side)
    steps = torch.arange(-side, side + 1, device=image.device, dtype=image.dtype)
    lag_window = _parzen(torch.hypot(steps[:, None], steps[None, :]) / side)
    power = _ring_power(covariance * lag_window, side)
    power = power.clamp_min(float(power.max()) / _DYNAMIC_RANGE)
    place = (frequency * pixel_size * (2 * side + 2)).clamp_max(len(power) - 1)
    below = place.floor().long().clamp_max(len(power) - 2)
    part = place - below
    return power[below] * (1 - part) + power[below + 1] * part


def _covariance(image: Tensor, is_background: Tensor, *, reach: int) -> Tensor:
    """Mean product of two background pixels at each offset of -reach ... reach px."""
    weight = is_background.to(image.dtype)
    mean = (image * weight).sum() / weight.sum().clamp_min(1)
    shape = (good_size(image.shape[0] + reach), good_size(image.shape[1] + reach))
    products = torch.fft.rfft2((image - mean) * weight, s=shape).abs().square()
    pairs = torch.fft.rfft2(weight, s=shape).abs().square()
    total = _near(torch.fft.irfft2(products, s=shape), reach)
    count = _near(torch.fft.irfft2(pairs, s=shape), reach)
    return torch.where(count > 0.5, total / count.clamp_min(1), 0.0)


def _near(correlation: Tensor, reach: int) -> Tensor:
    rolled = torch.roll(correlation, (reach, reach), (0, 1))
    return rolled[: 2 * reach + 1, : 2 * reach + 1]


def _parzen(x: Tensor) -> Tensor:
    inner = 1 - 6 * x.square() * (1 - x)
    outer = 2 * (1 - x).clamp_min(0) ** 3
    return torch.where(x <= 0.5, inner, outer)


def _ring_power(covariance: Tensor, side: int) -> Tensor:
    """Power at 0, 1, 2 ... cycles over 2 * side + 2 px, averaged over directions."""
    size = 2 * side + 2
    grid = covariance.new_zeros(size, size)
    grid[:-1, :-1] = covariance
    power = torch.fft.fft2(torch.roll(grid, (-side, -side), (0, 1))).real
    index = torch.arange(size, device=grid.device)
    index = torch.minimum(index, size - index).to(grid.dtype)
    ring = torch.hypot(index[:, None], index[None, :]).round().long().reshape(-1)
    counts = torch.bincount(ring)
    totals: Tensor = grid.new_zeros(len(counts)).index_add_(0, ring, power.reshape(-1))
    return totals / counts
