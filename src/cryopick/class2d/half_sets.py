"""What two independent halves of a class say about its signal: spectra, ring by ring.

Ring r of an image of n pixels holds the Fourier samples nearest to r / n cycles per pixel; there
are n // 2 + 1 rings, and the corners beyond belong to none. Transforms are halves, as
``torch.fft.rfft2`` gives them: samples that stand for two count twice.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryopick.image.fourier import frequency_grid

__all__ = [
    "correlate_halves",
    "crossing_resolution",
    "first_ring_below",
    "ring_means",
    "ring_numbers",
    "signal_to_noise",
    "smooth_rings",
]

_HIGHEST_FRC = 0.9999  # a ratio of signal to noise stays a number


def ring_numbers(size: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Find the ring that each sample of a half transform lies on.

    Parameters
    ----------
    size
        Side of the image, px.
    device
        Of the result.

    Returns
    -------
    Tensor
        (size, size // 2 + 1) int64; corners have ``size // 2 + 1``.
    """
    fy, fx = frequency_grid((size, size), device=device, dtype=torch.float64)
    ring = torch.round(torch.hypot(fy, fx) * size).long()
    return ring.clamp_max(size // 2 + 1)


def ring_means(values: Tensor, *, size: int) -> Tensor:
    """Average over rings.

    Parameters
    ----------
    values
        (..., size, size // 2 + 1), real, of half transforms.
    size
        Side of the image, px.

    Returns
    -------
    Tensor
        (..., size // 2 + 1) float64.

    Examples
    --------
    >>> ring_means(torch.ones(3, 8, 5), size=8).shape
    torch.Size([3, 5])
    """
    ring = ring_numbers(size, device=values.device).ravel()
    share = _samples(size, values.device).ravel()
    flat = values.reshape(-1, values.shape[-2] * values.shape[-1]).double() * share
    sums = flat.new_zeros(len(flat), size // 2 + 2).index_add_(1, ring, flat)
    counts = share.new_zeros(size // 2 + 2).index_add_(0, ring, share)
    return (sums / counts)[:, :-1].reshape(*values.shape[:-2], size // 2 + 1)


def correlate_halves(first: Tensor, second: Tensor, *, size: int) -> Tensor:
    """Fourier ring correlation of two images given by their transforms.

    Parameters
    ----------
    first, second
        (..., size, size // 2 + 1), complex.
    size
        Side of the images, px.

    Returns
    -------
    Tensor
        (..., size // 2 + 1) float64, from -1 to 1; 0 where one is empty.

    Notes
    -----
    Saxton & Baumeister, J. Microsc. 127 (1982) 127.
    """
    cross = ring_means((first * second.conj()).real, size=size)
    one, two = (ring_means(f.abs().square(), size=size) for f in (first, second))
    power = (one * two).sqrt()
    return torch.where(power > 0, cross / power.clamp_min(1e-300), 0.0)


def smooth_rings(frc: Tensor) -> Tensor:
    """Average a curve over three neighbouring rings, each weighted by its samples.

    Parameters
    ----------
    frc
        (..., rings) float64. Ring 0, one sample, takes the value of ring 1.
    """
    rings = torch.arange(frc.shape[-1], device=frc.device, dtype=frc.dtype)
    weight = torch.where(rings > 0, 2 * math.pi * rings, 1.0)
    summed, total = (_sum_of_three(v) for v in (frc * weight, weight))
    smooth = summed / total
    if smooth.shape[-1] > 1:
        smooth[..., 0] = smooth[..., 1]
    return smooth


def signal_to_noise(frc: Tensor) -> Tensor:
    """Signal-to-noise ratio of the mean of two halves, from the correlation of the halves.

    Parameters
    ----------
    frc
        (..., rings), smoothed.

    Returns
    -------
    Tensor
        As `frc`: 2 frc / (1 - frc), at least 0. Beyond the place where the correlation stays
        below 1/7 for a sixteenth of the box it halves from ring to ring: what is there is chance,
        but a zero of the CTF is passed over.

    Notes
    -----
    Rosenthal & Henderson, J. Mol. Biol. 333 (2003) 721.
    """
    n_rings = frc.shape[-1]
    gap = max(2, n_rings // 8)
    kept = frc.clamp(0, _HIGHEST_FRC)
    ratio = 2 * kept / (1 - kept)
    rings = torch.arange(n_rings, device=frc.device)
    known = torch.where(frc >= 1 / 7, rings, -1).cummax(-1).values  # last good ring so far
    first = torch.where(rings - known > gap, rings, n_rings).amin(-1, keepdim=True)
    last = torch.where(rings < first, known, -1).amax(-1, keepdim=True)
    beyond = (rings - last).clamp_min(0)
    return torch.where(rings > last, ratio.clamp_max(1 / 3) * 0.5**beyond, ratio)


def first_ring_below(curve: Tensor, *, threshold: float) -> Tensor:
    """Find the first ring on which a curve is below a threshold after having been above.

    Parameters
    ----------
    curve
        (k, rings). Ring 0 does not count, and lowest rings that the CTF hardly passes may be below,
        up to an eighth of the box.
    threshold
        As the curve.

    Returns
    -------
    Tensor
        (k,) int64: the number of rings where the curve never falls, 0 where it never rises.
    """
    n_rings = curve.shape[-1]
    rings = torch.arange(n_rings, device=curve.device)
    above = (curve >= threshold) & (rings > 0)
    start = torch.where(above, rings, n_rings).amin(-1, keepdim=True)
    first = torch.where(~above & (rings > start), rings, n_rings).amin(-1)
    return torch.where(start[:, 0] > max(1, n_rings // 4), 0, first)


def crossing_resolution(curve: Tensor, *, threshold: float, pixel_size: float, size: int) -> Tensor:
    """Resolution at which a curve falls below a threshold for the first time.

    Parameters
    ----------
    curve, threshold
        As for `first_ring_below`.
    pixel_size
        A/px.
    size
        Side of the images, px.

    Returns
    -------
    Tensor
        (k,) float64 A, interpolated between rings: two pixels where the curve never falls,
        infinite where it never rises.
    """
    n_rings = curve.shape[-1]
    first = first_ring_below(curve, threshold=threshold)
    at = first.clamp(1, n_rings - 1)[:, None]
    low, high = curve.gather(1, at)[:, 0], curve.gather(1, at - 1)[:, 0]
    ring = first - (threshold - low) / (high - low).clamp_min(1e-12)
    resolution = size * pixel_size / ring.double().clamp_min(1e-12)
    resolution = torch.where(first >= n_rings, 2.0 * pixel_size, resolution)
    return torch.where(first == 0, math.inf, resolution)


def _samples(size: int, device: torch.device) -> Tensor:
    """How many samples of the whole transform each sample of its half stands for, (1, x) f64."""
    columns = torch.full((1, size // 2 + 1), 2.0, dtype=torch.float64, device=device)
    columns[:, 0] = 1
    if size % 2 == 0:
        columns[:, -1] = 1
    return columns.expand(size, -1)


def _sum_of_three(values: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(values, (1, 1))
    return padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]
