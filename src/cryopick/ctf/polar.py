"""A power spectrum in polar bins, and the phase of the CTF there.

A bin knows the mean of k^2, k^2 cos 2 phi and k^2 sin 2 phi over its pixels; the phase of the CTF
is linear in these, so that the centre of mass of a bin is right even where it holds few pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cryopick.ctf.spectrum import MeanSpectrum, hann_autocorrelation
from cryopick.errors import ParameterError
from cryopick.image.fourier import frequency_grid
from cryopick.physics import electron_wavelength

__all__ = [
    "WINDOW_CORRELATION",
    "Lens",
    "PolarSpectrum",
    "ctf_phase",
    "polar_spectrum",
    "ring_contrast",
    "ring_period",
    "ring_range",
]

# pixels of a row that are as good as one independent pixel under a Hann window: 1 + 2 4/9 + 2 1/36
WINDOW_CORRELATION = 1.94
_FIRST_RING = 4  # nearer to the origin a ring is all axis, or what the window leaves of the mean
_LEAST_RINGS = 12  # as many as background and envelope have splines


class Lens(NamedTuple):
    """What the CTF depends on besides the focus."""

    voltage: float  # kV
    spherical_aberration: float  # mm
    amplitude_contrast: float  # fraction


class PolarSpectrum(NamedTuple):
    """Logarithm of the power in bins of direction and frequency, (H, R) float64 on the CPU.

    A bin that holds no pixel has infinite variance, the mean of its ring and its own middle.
    """

    log_power: Tensor  # free of the bias of the logarithm of noise
    variance: Tensor  # of log_power, by counting; inf where a bin is empty
    k2: Tensor  # 1/A^2
    k2_cos: Tensor  # k^2 cos 2 phi, phi from x towards y
    k2_sin: Tensor
    frequency: Tensor  # (R,) 1/A, of the rings
    tile_length: float  # A, side of the tiles
    angle: Tensor  # (H,) rad, middle of the sectors


def polar_spectrum(
    spectrum: MeanSpectrum, *, min_resolution: float, max_resolution: float, n_angles: int
) -> PolarSpectrum:
    """Gather the pixels of a spectrum in polar bins.

    Parameters
    ----------
    spectrum
        Mean over tiles.
    min_resolution, max_resolution
        A, of the coarsest and the finest ring.
    n_angles
        Sectors of half a turn.

    Returns
    -------
    PolarSpectrum
        The axes of the spectrum, where lines of a detector show, are left out.

    Raises
    ------
    ParameterError
        If there are too few rings for a fit.
    """
    side = spectrum.power.shape[0]
    step = 1 / (side * spectrum.pixel_size)
    fy, fx = frequency_grid(
        (side, side),
        pixel_size=spectrum.pixel_size,
        dtype=torch.float64,
    )
    k2 = fy * fy + fx * fx
    first, last = ring_range(
        side,
        pixel_size=spectrum.pixel_size,
        min_resolution=min_resolution,
        max_resolution=max_resolution,
    )
    ring = torch.round(k2.sqrt() / step).long()
    angle = torch.atan2(fy.expand_as(k2), fx.expand_as(k2)) % math.pi
    sector = (angle * (n_angles / math.pi)).long().clamp(max=n_angles - 1)
    is_axis = (fx.abs() < 1.5 * step) | (fy.abs() < 1.5 * step)
    is_used = (ring >= first) & (ring <= last) & ~is_axis
    n_rings = last - first + 1
    place = (sector * n_rings + ring - first)[is_used]
    size = n_angles * n_rings

    def mean(values: Tensor) -> Tensor:
        total = torch.bincount(place, values[is_used], minlength=size)
        return (total / count.clamp(min=1)).reshape(n_angles, n_rings)

    count = torch.bincount(place, minlength=size).double()
    power = mean(spectrum.power)
    # a bin is one pixel wide, so its pixels are neighbours in one direction only
    samples = 1 + (count - 1).clamp(min=0) / WINDOW_CORRELATION
    samples = samples.reshape(n_angles, n_rings) * spectrum.n_independent
    is_there = (count > 0).reshape(n_angles, n_rings) & (power > 0)
    log_power = power.clamp(min=torch.finfo(torch.float64).tiny).log()
    log_power -= torch.digamma(samples) - samples.log()  # of the mean of so many exponentials
    weight = torch.where(is_there, samples, 0.0)
    ring_mean = (weight * log_power).sum(0) / weight.sum(0).clamp(min=1e-12)
    frequency = torch.arange(first, last + 1, dtype=torch.float64) * step
    angles = (torch.arange(n_angles, dtype=torch.float64) + 0.5) * (math.pi / n_angles)
    middle, twice = frequency.square().expand(n_angles, -1), 2 * angles[:, None]
    return PolarSpectrum(
        log_power=torch.where(is_there, log_power, ring_mean),
        variance=torch.where(is_there, torch.polygamma(1, samples), math.inf),
        k2=torch.where(is_there, mean(k2), middle),
        k2_cos=torch.where(is_there, mean(k2 * torch.cos(2 * angle)), middle * twice.cos()),
        k2_sin=torch.where(is_there, mean(k2 * torch.sin(2 * angle)), middle * twice.sin()),
        frequency=frequency,
        tile_length=1 / step,
        angle=angles,
    )


def ring_range(
    side: int, *, pixel_size: float, min_resolution: float, max_resolution: float
) -> tuple[int, int]:
    """Find the coarsest and the finest ring, one sample wide, in the spectrum of a tile.

    Parameters
    ----------
    side
        Of the tile, px.
    pixel_size
        A/px.
    min_resolution, max_resolution
        A, of the coarsest and the finest ring.

    Returns
    -------
    tuple of int
        Both numbers: how many steps of 1 / (side pixel_size) the rings are from the origin.

    Raises
    ------
    ParameterError
        If these are too few rings for a fit.
    """
    length = side * pixel_size
    first = max(_FIRST_RING, math.ceil(length / min_resolution))
    last = min(math.floor(length / max_resolution), side // 2 - 1)
    if last - first + 1 < _LEAST_RINGS:
        raise ParameterError(
            "tile_size",
            must=f"be large enough for {_LEAST_RINGS} rings between {min_resolution:g} A and "
            f"{max_resolution:.3g} A",
            got=f"{max(0, last - first + 1)} in tiles of {length:.4g} A",
            remedy="Raise --tile-size, or move --min-resolution and --max-resolution apart",
        )
    return first, last


def ctf_phase(
    lens: Lens,
    *,
    k2: Tensor,
    defocus_k2: Tensor,
    phase_shift: float | Tensor = 0.0,
) -> Tensor:
    """Phase of the CTF, rad; the formula of `cryopick.ctf.evaluate`.

    Parameters
    ----------
    lens
        Of the microscope.
    k2
        1/A^2.
    defocus_k2
        Defocus in the direction of each sample, A, times k2.
    phase_shift
        Of a phase plate, rad.
    """
    wavelength = electron_wavelength(lens.voltage)
    quartic = math.pi / 2 * lens.spherical_aberration * 1e7 * wavelength**3
    offset = math.asin(lens.amplitude_contrast)
    return math.pi * wavelength * defocus_k2 - quartic * k2 * k2 + offset + phase_shift


def ring_period(lens: Lens, *, frequency: Tensor, defocus: float | Tensor) -> Tensor:
    """Distance from one zero of the CTF to the next at each frequency, 1/A."""
    wavelength = electron_wavelength(lens.voltage)
    quartic = math.pi / 2 * lens.spherical_aberration * 1e7 * wavelength**3
    slope = 2 * math.pi * wavelength * defocus * frequency - 4 * quartic * frequency**3
    return math.pi / slope.abs().clamp(min=1e-3)


def ring_contrast(period: Tensor, tile_length: float) -> Tensor:
    """Share of the contrast of rings that tiles of this size leave, from 1 to 0.

    Notes
    -----
    The spectrum of a windowed tile is the true one convolved with the window's, so a ripple of
    period p loses as the autocorrelation of the window does at the lag 1 / p.
    """
    return hann_autocorrelation(1 / (period * tile_length))
