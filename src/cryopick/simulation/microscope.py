"""What the lens and the electrons do: CTF parameters of a field, contrast, and shot noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.physics import electron_wavelength
from cryopick.simulation.parameters import MicroscopeParameters

__all__ = ["Defocus", "draw_defocus", "expose", "field_ctf", "interaction_constant"]

_MASS_ENERGY = 510.99895  # keV, electron at rest


@dataclass(frozen=True, kw_only=True)
class Defocus:
    """Defocus of one field of view."""

    defocus_u: float  # A, underfocus positive, at least defocus_v
    defocus_v: float  # A
    defocus_angle: float  # deg from x to the direction of defocus_u


def interaction_constant(voltage: float) -> float:
    """Phase per projected potential, rad / (V A).

    Parameters
    ----------
    voltage
        kV.

    Returns
    -------
    float
        sigma = 2 pi m e lambda / h^2 with the relativistic mass (Kirkland, Advanced Computing
        in Electron Microscopy, eq. 2.5).

    Examples
    --------
    >>> round(1e4 * interaction_constant(300.0), 3)
    6.526
    """
    wavelength = electron_wavelength(voltage)
    relative = (_MASS_ENERGY + voltage) / (2 * _MASS_ENERGY + voltage)
    return 2 * math.pi * relative / (wavelength * voltage * 1e3)


def draw_defocus(microscope: MicroscopeParameters, generator: np.random.Generator) -> Defocus:
    """Draw the defocus of a field: evenly in its range, with a random small astigmatism."""
    mean = generator.uniform(microscope.min_defocus, microscope.max_defocus)
    difference = abs(generator.normal(0, microscope.astigmatism))
    return Defocus(
        defocus_u=mean + difference / 2,
        defocus_v=mean - difference / 2,
        defocus_angle=generator.uniform(0, 180),
    )


def field_ctf(
    shape: tuple[int, int],
    defocus: Defocus,
    microscope: MicroscopeParameters,
    *,
    pixel_size: float,
    device: torch.device | str = "cpu",
) -> Tensor:
    """CTF with envelope of one field, (y, x // 2 + 1)."""
    return evaluate_ctf(
        shape,
        pixel_size=pixel_size,
        defocus_u=defocus.defocus_u,
        defocus_v=defocus.defocus_v,
        defocus_angle=defocus.defocus_angle,
        voltage=microscope.voltage,
        spherical_aberration=microscope.spherical_aberration,
        amplitude_contrast=microscope.amplitude_contrast,
        phase_shift=microscope.phase_shift,
        bfactor=microscope.bfactor,
        device=device,
    )[0]


def expose(
    intensity: Tensor, *, electrons: float, efficiency: float, generator: torch.Generator
) -> Tensor:
    """Count electrons.

    Parameters
    ----------
    intensity
        (y, x), real: share of the incoming electrons that arrives at each pixel.
    electrons
        Incoming electrons per pixel.
    efficiency
        Detective quantum efficiency: shot noise is that of so many times the electrons.
    generator
        Source of randomness, on the CPU, so that every device gets the same noise.

    Returns
    -------
    Tensor
        (y, x): expected electrons plus Gaussian noise of variance electrons / efficiency,
        which at more than ten electrons a pixel is what counting gives.
    """
    expected = electrons * intensity.clamp(min=0.01)
    noise = torch.randn(intensity.shape, generator=generator, dtype=intensity.dtype)
    return expected + torch.sqrt(expected / efficiency) * noise.to(intensity.device)
