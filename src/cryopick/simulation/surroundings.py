"""What is in a micrograph beside particles: ice of uneven thickness, a carbon edge, lumps of ice.

Lengths are in A. Maps are (y, x) float32 on the grid of a field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.image.fourier import frequency_grid
from cryopick.simulation.parameters import MicrographSimulationParameters

__all__ = ["Surroundings", "draw_surroundings", "solvent_phase", "transmission"]

_WATER_DENSITY = 0.0314  # molecules per A^3 of vitreous ice
_WATER_POTENTIAL = 143.0  # V A^3 of a molecule: 4.5 V of mean inner potential over the density
_WATER_STRUCTURE = 0.07  # of the noise of independent molecules, at low frequency
_WATER_PEAK, _WATER_PEAK_PLACE, _WATER_PEAK_WIDTH = 0.4, 0.27, 0.05  # the 3.7 A ring, 1/A
_CARBON_DENSITY = 0.1  # atoms per A^3
_CARBON_POTENTIAL = 95.0  # V A^3 of an atom
_CARBON_STRUCTURE = 1.0
_CARBON_STEP = 4.5  # V above ice
_CARBON_THICKNESS = 150.0
_ICE_PATH, _CARBON_PATH, _BLOB_PATH = 3500.0, 1800.0, 450.0  # mean free paths; lumps diffract
_BLOB_RIM = 0.25  # rad, what a lump's edge adds to the phase: a bright rim, as real ones have
_BLOB_RIM_DEPTH = 60.0  # A of lump over which it is reached
_HOLE_RADIUS = 6000.0


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Thickness of all that is no particle."""

    ice: Tensor  # (y, x) A
    carbon: Tensor  # (y, x), 0 to 1: share of the film's thickness
    blobs: Tensor  # (y, x) A


def draw_surroundings(
    shape: tuple[int, int],
    parameters: MicrographSimulationParameters,
    generator: np.random.Generator,
    *,
    device: torch.device | str = "cpu",
) -> Surroundings:
    """Draw the surroundings of one field.

    Parameters
    ----------
    shape
        (y, x) px of the field, margins included.
    parameters
        Pixel size, thickness, and how often there is what.
    generator
        Source of randomness; the same numbers are drawn whatever `parameters` leaves out.
    device
        Of the maps.
    """
    height, width = (n * parameters.pixel_size for n in shape)
    y = torch.arange(shape[0], device=device)[:, None] * parameters.pixel_size - height / 2
    x = torch.arange(shape[1], device=device)[None, :] * parameters.pixel_size - width / 2
    carbon = _carbon(y, x, parameters.carbon_fraction, generator)
    return Surroundings(
        ice=_ice(y, x, parameters, generator),
        carbon=carbon,
        blobs=_blobs(y, x, parameters.ice_blobs, generator),
    )


def solvent_phase(
    surroundings: Surroundings,
    *,
    pixel_size: float,
    interaction: float,
    strength: float,
    generator: torch.Generator,
) -> Tensor:
    """Phase that ice and carbon give to the beam: their noise, and steps at edges.

    Parameters
    ----------
    surroundings
        Thicknesses.
    pixel_size
        A/px.
    interaction
        rad / (V A).
    strength
        Factor on the amplitude of the noise; 1 is as computed.
    generator
        Source of randomness, on the CPU.

    Returns
    -------
    Tensor
        (y, x) rad, on the device of `surroundings`.

    Notes
    -----
    Projected molecules at random places have a flat power spectrum n t (sigma v)^2, n being
    their number density and v the integral of a molecule's potential; molecules of a liquid
    keep their distance, which leaves a small part of it at low frequency and a ring at 3.7 A,
    here weak because ice moves during an exposure.
    """
    height, width = surroundings.ice.shape
    device = surroundings.ice.device
    white = torch.randn(height, width, generator=generator).to(device)
    scale = interaction * _WATER_POTENTIAL * math.sqrt(_WATER_DENSITY) / pixel_size
    ice = torch.fft.rfft2(white * torch.sqrt(surroundings.ice) * (scale * strength))
    ice *= _water_structure((height, width), pixel_size, device)
    phase: Tensor = torch.fft.irfft2(ice, s=(height, width))
    phase += _BLOB_RIM * (1 - torch.exp(-surroundings.blobs / _BLOB_RIM_DEPTH))
    if not bool(surroundings.carbon.any()):
        return phase
    white = torch.randn(height, width, generator=generator).to(device)
    number = _CARBON_DENSITY * _CARBON_THICKNESS * _CARBON_STRUCTURE
    scale = interaction * _CARBON_POTENTIAL * math.sqrt(number) / pixel_size
    step = interaction * _CARBON_STEP * _CARBON_THICKNESS
    carbon = white * torch.sqrt(surroundings.carbon) * (scale * strength)
    return phase + carbon + surroundings.carbon * step


def transmission(surroundings: Surroundings) -> Tensor:
    """Share of the electrons that get through, (y, x)."""
    depth = surroundings.ice / _ICE_PATH + surroundings.blobs / _BLOB_PATH
    return torch.exp(-depth - surroundings.carbon * (_CARBON_THICKNESS / _CARBON_PATH))


def _water_structure(
    shape: tuple[int, int], pixel_size: float, device: torch.device | str
) -> Tensor:
    """Square root of the structure factor of ice."""
    fy, fx = frequency_grid(shape, pixel_size=pixel_size, device=device)
    offset = (torch.sqrt(fy * fy + fx * fx) - _WATER_PEAK_PLACE) / _WATER_PEAK_WIDTH
    return torch.sqrt(_WATER_STRUCTURE + _WATER_PEAK * torch.exp(-(offset**2) / 2))


def _ice(
    y: Tensor,
    x: Tensor,
    parameters: MicrographSimulationParameters,
    generator: np.random.Generator,
) -> Tensor:
    """Wedge with a bowl, as in a hole that is thicker at its rim."""
    angle = generator.uniform(0, 2 * math.pi)
    bowl = generator.uniform(-0.5, 1.0)
    reach = float(max(y.abs().max(), x.abs().max())) or 1.0
    wedge = (math.cos(angle) * x + math.sin(angle) * y) / (2 * reach)
    lens = bowl * ((x / reach) ** 2 + (y / reach) ** 2 - 0.5) / 2
    relative = 1 + parameters.ice_gradient * (wedge + lens)
    return parameters.ice_thickness * relative.clamp(min=0.1)


def _carbon(y: Tensor, x: Tensor, fraction: float, generator: np.random.Generator) -> Tensor:
    """Carbon outside a round hole whose edge crosses the field."""
    is_there = generator.random() < fraction
    angle, depth = generator.uniform(0, 2 * math.pi), generator.uniform(0.1, 0.7)
    rough = generator.normal(0, 1, 6)
    if not is_there:
        return torch.zeros(len(y), x.shape[1], device=y.device)
    reach = float(min(y.abs().max(), x.abs().max()))
    radius = max(_HOLE_RADIUS, 2 * reach)
    away = radius - depth * reach
    dy, dx = y + math.sin(angle) * away, x + math.cos(angle) * away
    along = torch.atan2(dy, dx) - angle
    edge = torch.zeros_like(along)
    for wave, size in enumerate(rough, start=2):
        edge += 8 * float(size) * torch.sin(wave * 12 * along + 7 * float(size))
    return torch.sigmoid((torch.sqrt(dy**2 + dx**2) - radius + edge) / 8)


def _blobs(y: Tensor, x: Tensor, mean: float, generator: np.random.Generator) -> Tensor:
    """Draw rounded lumps of uneven outline, mottled because their crystals lie at all angles."""
    thickness = torch.zeros(len(y), x.shape[1], device=y.device)
    for _ in range(int(generator.poisson(mean))):
        centre_y = generator.uniform(float(y.min()), float(y.max()))
        centre_x = generator.uniform(float(x.min()), float(x.max()))
        radius = float(np.clip(generator.lognormal(math.log(200), 0.5), 80, 900))
        lobes = generator.normal(0, 1, (4, 2)) * np.array([0.12, 0.1, 0.06, 0.05])[:, None]
        mottles = generator.normal(0, 1, (6, 3))
        _add_blob(thickness, y - centre_y, x - centre_x, radius, lobes, mottles)
    return thickness


def _add_blob(
    thickness: Tensor,
    dy: Tensor,
    dx: Tensor,
    radius: float,
    lobes: NDArray[np.float64],
    mottles: NDArray[np.float64],
) -> None:
    reach = 2.0 * radius
    rows = (dy[:, 0].abs() < reach).nonzero()[:, 0]
    columns = (dx[0].abs() < reach).nonzero()[:, 0]
    if not len(rows) or not len(columns):
        return
    part = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    dy, dx = dy[part[0]], dx[:, part[1]]
    angle = torch.atan2(dy, dx)
    outline = torch.full_like(angle, radius)
    for wave, (even, odd) in enumerate(lobes, start=1):
        outline += radius * (float(even) * torch.cos(wave * angle))
        outline += radius * (float(odd) * torch.sin(wave * angle))
    inside = 1 - (dy**2 + dx**2) / outline.clamp(min=0.3 * radius) ** 2
    uneven = torch.ones_like(angle)
    for wave_y, wave_x, offset in mottles * (3.0 / radius):
        uneven += 0.12 * torch.sin(float(wave_y) * dy + float(wave_x) * dx + radius * float(offset))
    height = 0.6 * radius * torch.sqrt(inside.clamp(min=0)) * uneven.clamp(min=0.3)
    thickness[part] += height
