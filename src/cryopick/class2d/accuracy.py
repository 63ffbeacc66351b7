"""How small a turn or a shift of a class average its particles can tell, as RELION estimates it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cryopick.alignment.transform import sample_spline, spline_coefficients
from cryopick.checks import require_above, require_shape
from cryopick.class2d.half_sets import ring_numbers
from cryopick.image.fourier import frequency_grid

__all__ = ["PoseAccuracy", "estimate_accuracy"]

UNKNOWN = 999.0  # what RELION writes for a class too small to be asked
_TELLING = 4.605  # log-likelihood ratio at which a difference is told: -ln 0.01
_SMALLEST_SHARE = 0.01  # of the particles
_LARGEST_TURN, _LARGEST_SHIFT = 30.0, 10.0  # deg, px: beyond, nothing is told
_STEPS = 1200
_RADII_PER_PIXEL = 2
_CLASSES_AT_ONCE = 16


class PoseAccuracy(NamedTuple):
    """One value for each class; 999 for a class with less than 1 % of the particles."""

    rotation: Tensor  # (k,) float64, deg, at most 30
    translation: Tensor  # (k,) float64, A, at most 10 px


def estimate_accuracy(
    averages: Tensor,
    *,
    ctf_power: Tensor,
    sigma2: Tensor,
    shares: Tensor,
    pixel_size: float,
    resolution: float | None = None,
) -> PoseAccuracy:
    """Find the smallest turn and shift of each class average that one particle can tell.

    Parameters
    ----------
    averages
        (k, n, n), masked.
    ctf_power
        (n // 2 + 1,) or (n, n // 2 + 1): CTF^2, the mean over particles.
    sigma2
        (n // 2 + 1,) variance of the noise of one particle on each ring, on the scale of
        `cryopick.class2d.averages.ClassAverages`; rings where it is not above 0 are left out.
    shares
        (k,) of the particles, from 0 to 1.
    pixel_size
        A/px.
    resolution
        Finest detail that alignment uses, A; None is two pixels.

    Raises
    ------
    ShapeError
        If the axes are others than these.
    ParameterError
        If `pixel_size` or `resolution` is not above 0.

    Notes
    -----
    A difference D is told where sum CTF^2 |D|^2 / (2 sigma2) over half of Fourier space exceeds
    4.605. With f the average filtered by sqrt(CTF^2 / sigma2), and P_m the power of its angular
    harmonic m, a turn by t differs by a sum of P_m (1 - cos m t); a shift likewise, by a sum over
    frequencies. Shifts are the mean of those along x and y.
    """
    require_shape(averages, "k n n", name="averages")
    require_above(pixel_size, 0, name="pixel_size", unit="A/px")
    size = averages.shape[-1]
    require_shape(sigma2, f"{size // 2 + 1}", name="sigma2")
    require_shape(shares, f"{len(averages)}", name="shares")
    weight = _sample_weights(ctf_power, sigma2, size, pixel_size, resolution)
    turns = torch.linspace(0, _LARGEST_TURN, _STEPS + 1, dtype=torch.float64).to(weight.device)
    shifts = torch.linspace(0, _LARGEST_SHIFT, _STEPS + 1, dtype=torch.float64).to(weight.device)
    rotation, translation = torch.full((2, len(averages)), UNKNOWN, dtype=torch.float64).to(weight)
    asked = torch.nonzero(shares >= _SMALLEST_SHARE).ravel()
    for part in torch.split(asked, _CLASSES_AT_ONCE):
        filtered = torch.fft.rfft2(averages[part].double()) * weight.sqrt() / size**2
        rotation[part] = _first_told(turns, _turn_differences(filtered, size, turns))
        told = [_first_told(shifts, d) for d in _shift_differences(filtered, size, shifts)]
        translation[part] = torch.stack(told).mean(0) * pixel_size
    return PoseAccuracy(rotation, translation)


def _sample_weights(
    ctf_power: Tensor, sigma2: Tensor, size: int, pixel_size: float, resolution: float | None
) -> Tensor:
    """CTF^2 / sigma2 on the samples of a half transform that alignment uses, (n, n // 2 + 1)."""
    ring = ring_numbers(size, device=sigma2.device)
    if ctf_power.ndim == 1:
        require_shape(ctf_power, f"{size // 2 + 1}", name="ctf_power")
        ctf_power = ctf_power[ring.clamp_max(size // 2)]
    require_shape(ctf_power, f"{size} {size // 2 + 1}", name="ctf_power")
    last = size // 2
    if resolution is not None:
        require_above(resolution, 0, name="resolution", unit="A")
        last = min(last, round(size * pixel_size / resolution))
    noise = sigma2.double()[ring.clamp_max(size // 2)]
    used = (ring > 0) & (ring <= last) & (noise > 0)
    return torch.where(used, ctf_power.double() / noise.clamp_min(1e-300), 0.0)


def _turn_differences(filtered: Tensor, size: int, turns: Tensor) -> Tensor:
    """Log-likelihood ratio (k, steps) of turns in deg."""
    n_angles = 4 * size
    radius = torch.arange(1, _RADII_PER_PIXEL * (size // 2)).to(turns) / _RADII_PER_PIXEL
    angle = torch.arange(n_angles).to(turns) * (2 * math.pi / n_angles)
    x, y = (radius[:, None] * f(angle) + size // 2 for f in (torch.cos, torch.sin))
    knots = spline_coefficients(filtered, size=size)
    count = len(filtered)
    rings = sample_spline(knots, x=x.expand(count, -1, -1), y=y.expand(count, -1, -1))
    harmonics = torch.fft.rfft(rings, dim=-1).abs().square() / n_angles**2
    area = 2 * math.pi * radius / _RADII_PER_PIXEL
    power = torch.einsum("r,krm->km", area, harmonics)[:, 1:]
    order = torch.arange(1, power.shape[1] + 1).to(turns)
    change = 1 - torch.cos(order[:, None] * torch.deg2rad(turns))
    # half of Fourier space, and 2 sigma2: a quarter; two harmonics of 2 (1 - cos): four times
    return power @ change * size**2


def _shift_differences(filtered: Tensor, size: int, shifts: Tensor) -> list[Tensor]:
    """Log-likelihood ratios (k, steps) of shifts in px along x and along y."""
    power = filtered.abs().square()
    fy, fx = (f.ravel() for f in frequency_grid((size, size), dtype=power.dtype))
    double = torch.full_like(fx, 2.0)
    double[0] = 1
    along_x = power.sum(1) * double
    along_y = (power * double.to(power)).sum(2)
    return [
        marginal @ (1 - torch.cos(2 * math.pi * f.to(shifts)[:, None] * shifts)) / 2
        for marginal, f in ((along_x.to(shifts), fx), (along_y.to(shifts), fy))
    ]


def _first_told(places: Tensor, differences: Tensor) -> Tensor:
    """Where (k, steps) differences first exceed the threshold, interpolated; the last without."""
    told = differences > _TELLING
    steps = torch.arange(len(places), device=places.device)
    first = torch.where(told, steps, len(places)).amin(-1)
    at = first.clamp(1, len(places) - 1)[:, None]
    high, low = differences.gather(1, at)[:, 0], differences.gather(1, at - 1)[:, 0]
    share = ((_TELLING - low) / (high - low).clamp_min(1e-300)).clamp(0, 1)
    place = places[at[:, 0] - 1] + share * (places[at[:, 0]] - places[at[:, 0] - 1])
    return torch.where(first >= len(places), places[-1], place)
