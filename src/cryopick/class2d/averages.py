"""Class averages: running sums divided by CTF power and prior, masked, with their resolution.

Sums of particles with even and odd numbers are kept apart (`cryopick.class2d.average_sums`). The
correlation of these halves tells signal from noise, which sets the prior of each class
(`cryopick.class2d.half_sets`). The halves have been aligned to one reference, so their agreement
is an upper bound of the resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryopick.checks import require_above
from cryopick.class2d.average_sums import AverageSums, ClassPoses, merge_sums
from cryopick.class2d.half_sets import (
    correlate_halves,
    crossing_resolution,
    first_ring_below,
    ring_means,
    ring_numbers,
    signal_to_noise,
    smooth_rings,
)
from cryopick.image.masks import soft_mask

__all__ = [
    "AverageSums",
    "ClassAverages",
    "ClassPoses",
    "finish_averages",
    "merge_sums",
    "soft_circle",
]

FRC_THRESHOLD = 1 / 7
_HALF_FLOOR = 0.1  # of the ring's mean: keeps the halves from amplifying the zeros of the CTF
_FLOOR = 1e-3  # of the ring's mean, least denominator of an average
_FEWEST = 10  # particles; smaller classes take the signal-to-noise ratio that others predict


@dataclass(frozen=True, kw_only=True)
class ClassAverages:
    """Averages of k classes and what is known of them; an empty class is 0 everywhere.

    Spectra have the scale of RELION's files: mean of F F* over a ring / (2 n^4), F being the
    unscaled transform of the masked average; ssnr = tau2_fudge tau2 / sigma2.
    """

    images: Tensor  # (k, n, n) float32, masked
    unmasked: Tensor  # (k, n, n) float32
    frc: Tensor  # (k, n // 2 + 1) float64: correlation of the half sets, masked
    ssnr: Tensor  # (k, n // 2 + 1) float64
    sigma2: Tensor  # (k, n // 2 + 1) float64, noise
    tau2: Tensor  # (k, n // 2 + 1) float64, signal
    completeness: Tensor  # (k, n // 2 + 1): share of each ring where the data outweigh the prior
    frc_resolution: Tensor  # (k,) A: frc, smoothed over three rings, falls below 1/7
    estimated_resolution: Tensor  # (k,) A: last ring before ssnr falls below 1; inf if not known
    soft_counts: Tensor  # (k,) float64
    hard_counts: Tensor  # (k,) int64


def finish_averages(
    sums: AverageSums,
    *,
    pixel_size: float,
    mask_diameter: float | None = None,
    mask_edge: float = 5.0,
    tau2_fudge: float = 2.0,
) -> ClassAverages:
    """Divide the sums, with each class's own prior, and measure the resolution.

    Parameters
    ----------
    sums
        Of all particles.
    pixel_size
        A/px.
    mask_diameter
        Of the circle, A; None is the largest that fits.
    mask_edge
        Width of the soft edge outside of it, px.
    tau2_fudge
        RELION's T: more than 1 trusts the data more.

    Raises
    ------
    ParameterError
        If `pixel_size`, `mask_diameter` or `tau2_fudge` is not above 0.

    Notes
    -----
    The prior 1 / (T tau2) is, on each ring, the mean of the CTF power over T times the
    signal-to-noise ratio, so the scale of the noise drops out (Scheres, J. Mol. Biol. 415 (2012)
    406, eq. 8). A class of fewer than ten particles has halves too poor to tell: it takes the ratio
    of signal to CTF power that the larger classes have together.
    """
    require_above(pixel_size, 0, name="pixel_size", unit="A/px")
    require_above(tau2_fudge, 0, name="tau2_fudge")
    mask = _mask_of(sums, pixel_size, mask_diameter, mask_edge)
    ctf_power = ring_means(sums.ctf_power.sum(0), size=sums.size)  # (k, rings)
    spectra = [_half_spectra(sums, index, mask) for index in range(sums.n_classes)]
    frc, power = (torch.stack(values) for values in zip(*spectra, strict=True))
    smooth = smooth_rings(frc)
    hard = sums.hard_counts.sum(0)
    ratio = _share_knowledge(signal_to_noise(smooth), ctf_power, hard)
    sigma2 = power / (1 + ratio)
    finished = [
        _finish_class(sums, index, tau2_fudge * ratio[index]) for index in range(sums.n_classes)
    ]
    unmasked, completeness = (torch.stack(values) for values in zip(*finished, strict=True))
    ssnr = tau2_fudge * ratio
    return ClassAverages(
        images=(unmasked * mask).float(),
        unmasked=unmasked.float(),
        frc=frc,
        ssnr=ssnr,
        sigma2=sigma2,
        tau2=ratio * sigma2,
        completeness=completeness,
        frc_resolution=crossing_resolution(
            smooth, threshold=FRC_THRESHOLD, pixel_size=pixel_size, size=sums.size
        ),
        estimated_resolution=torch.where(
            hard >= _FEWEST, _last_ring_above_one(ssnr, sums.size * pixel_size), torch.inf
        ),
        soft_counts=sums.soft_counts.sum(0),
        hard_counts=hard,
    )


def soft_circle(
    size: int, *, radius: float, edge: float, device: torch.device | str = "cpu"
) -> Tensor:
    """Mask with a circle around pixel ``size // 2`` that falls off by a raised cosine.

    Parameters
    ----------
    size
        Side of the image, px.
    radius, edge
        1 inside `radius` px, 0 beyond `radius` + `edge` px.
    device
        Of the result.

    Returns
    -------
    Tensor
        (size, size) float64.
    """
    steps = torch.arange(size, device=device, dtype=torch.float64) - size // 2
    distance = torch.hypot(steps[:, None], steps[None, :])
    if edge <= 0:
        return (distance <= radius).double()
    return soft_mask(distance, diameter=2 * radius, edge=edge)


def _mask_of(
    sums: AverageSums, pixel_size: float, mask_diameter: float | None, edge: float
) -> Tensor:
    if mask_diameter is None:
        radius = max(sums.size / 2 - edge, sums.size / 4)
    else:
        require_above(mask_diameter, 0, name="mask_diameter", unit="A")
        radius = mask_diameter / (2 * pixel_size)
    return soft_circle(sums.size, radius=radius, edge=edge, device=sums.images.device)


def _half_spectra(sums: AverageSums, index: int, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Correlation of the masked half averages of a class, and the power of both together."""
    size = sums.size
    images, ctf_power = sums.images[:, index], sums.ctf_power[:, index]
    both = torch.cat([images, images.sum(0, keepdim=True)])
    weights = torch.cat([ctf_power, ctf_power.sum(0, keepdim=True)])
    floor = _HALF_FLOOR * _on_samples(ring_means(weights, size=size), size)
    averages = _divide(torch.fft.rfft2(both), weights, floor, size)
    masked = torch.fft.rfft2(torch.fft.irfft2(averages, s=(size, size)) * mask)
    loss = _divide(weights, weights, floor, size)
    power = ring_means(masked[2].abs().square(), size=size) / (2 * size**4)
    kept = ring_means(loss[2], size=size).square()
    power = torch.where(kept > 0, power / kept.clamp_min(1e-12), 0.0)
    return correlate_halves(masked[0], masked[1], size=size), power


def _share_knowledge(ratio: Tensor, ctf_power: Tensor, hard_counts: Tensor) -> Tensor:
    """Signal-to-noise ratios with those of small classes predicted from the others."""
    large = hard_counts >= _FEWEST
    total = ctf_power[large].sum(0)
    if not bool(large.any()):
        return torch.where(ctf_power > 0, ratio.clamp_min(1.0), 0.0)
    typical = torch.where(total > 0, ratio[large].sum(0) / total.clamp_min(1e-300), 0.0)
    return torch.where(large[:, None], ratio, typical * ctf_power)


def _finish_class(sums: AverageSums, index: int, ssnr: Tensor) -> tuple[Tensor, Tensor]:
    """Average of one class without a mask, and where the data outweigh the prior."""
    size = sums.size
    ctf_power = sums.ctf_power[:, index].sum(0)
    mean = ring_means(ctf_power, size=size)
    prior = _on_samples(mean / ssnr.clamp_min(1e-6), size)
    transform = torch.fft.rfft2(sums.images[:, index].sum(0))
    average = _divide(transform, ctf_power, prior, size)
    covered = (ctf_power >= prior) & (ctf_power > 0)
    return torch.fft.irfft2(average, s=(size, size)), ring_means(covered.double(), size=size)


def _divide(numerator: Tensor, ctf_power: Tensor, prior: Tensor, size: int) -> Tensor:
    """Divide by CTF power plus prior, not below a floor; nothing remains in the corners."""
    floor = _FLOOR * _on_samples(ring_means(ctf_power, size=size), size)
    denominator = torch.maximum(ctf_power + prior, floor)
    inside = (ring_numbers(size, device=ctf_power.device) <= size // 2) & (denominator > 0)
    return torch.where(inside, numerator / denominator.clamp_min(1e-300), 0)


def _on_samples(ring_values: Tensor, size: int) -> Tensor:
    """Spread (..., rings) over the samples of a half transform; corners take the last ring's."""
    ring = ring_numbers(size, device=ring_values.device).clamp_max(size // 2)
    return ring_values[..., ring]


def _last_ring_above_one(ssnr: Tensor, box: float) -> Tensor:
    """Resolution (k,) in A as RELION states it; `box` is its side in A."""
    last = first_ring_below(ssnr, threshold=1.0) - 1
    return torch.where(last > 0, box / last.clamp_min(1).double(), math.inf)
