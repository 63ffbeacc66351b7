"""What tilts and lens leave of a tomogram, and the noise that comes with them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cryopick.ctf.evaluate import evaluate_ctf_profile
from cryopick.simulation.tomograms_parameters import TomogramSimulationParameters

__all__ = ["draw_noise", "image_volume", "tilt_range_mask"]

_SOLVENT_FALL = 60.0  # A: structural noise has half its power at this resolution


def tilt_range_mask(
    shape: tuple[int, int, int],
    *,
    min_tilt: float,
    max_tilt: float,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Tell the samples of Fourier space that some tilt of a range about y passes through.

    Parameters
    ----------
    shape
        (z, y, x) of the volume, whose voxels are cubes.
    min_tilt, max_tilt
        Degrees, -90 to 90; a specimen tilted by t is seen in the plane at t from x towards z.
    device
        Of the result.

    Returns
    -------
    Tensor
        (z, 1, x // 2 + 1) bool; it is the same for all y. The axis x = z = 0 is passed.
    """
    depth, _, width = shape
    fz = torch.fft.fftfreq(depth, dtype=torch.float64)[:, None]
    fx = torch.fft.rfftfreq(width, dtype=torch.float64)[None, :]
    angle = torch.rad2deg(torch.atan2(fz, fx))  # x is at least 0, so within -90 and 90
    edge = 1e-9
    inside = (angle >= min_tilt - edge) & (angle <= max_tilt + edge)
    if max_tilt >= 90 or min_tilt <= -90:  # both signs are one plane
        inside |= angle.abs() >= 90 - edge
    inside[0, 0] = True
    return inside[:, None, :].to(device)


def image_volume(volume: Tensor, parameters: TomogramSimulationParameters) -> Tensor:
    """Take what lens and tilt range leave of a potential."""
    spectrum = torch.fft.rfftn(volume)
    _filter(spectrum, parameters, shape=volume.shape, structure=0.0)
    result: Tensor = torch.fft.irfftn(spectrum, s=volume.shape)
    return result


def draw_noise(
    parameters: TomogramSimulationParameters,
    generator: torch.Generator,
    device: torch.device | str,
) -> Tensor:
    """Draw noise of variance 1 with a share of structure, in the tilt range."""
    shape, share = parameters.shape, parameters.coloured_noise
    parts: list[Tensor] = []
    for structure, variance in ((-1.0, 1 - share), (_SOLVENT_FALL, share)):
        if variance <= 0:
            continue
        white = torch.randn(shape, generator=generator).to(device)
        spectrum = torch.fft.rfftn(white)
        del white
        _filter(spectrum, parameters, shape=shape, structure=structure)
        noise = torch.fft.irfftn(spectrum, s=shape)
        del spectrum
        noise *= math.sqrt(variance) / float(noise.std())
        parts.append(noise)
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


def _filter(
    spectrum: Tensor,
    parameters: TomogramSimulationParameters,
    *,
    shape: Sequence[int],
    structure: float,
) -> None:
    """Take the missing wedge out of a spectrum in place, and apply the lens.

    `structure` is 0 for a signal, the resolution at which structural noise has half its power,
    and negative for noise of the detector, which no lens has seen.
    """
    depth, height, width = (int(n) for n in shape)
    device, size = spectrum.device, parameters.voxel_size
    spectrum *= tilt_range_mask(
        (depth, height, width),
        min_tilt=parameters.min_tilt,
        max_tilt=parameters.max_tilt,
        device=device,
    )
    has_lens = parameters.defocus > 0 and structure >= 0
    if not has_lens and structure <= 0:
        return
    fz = torch.fft.fftfreq(depth, size, device=device)
    fy = torch.fft.fftfreq(height, size, device=device)[:, None]
    fx = torch.fft.rfftfreq(width, size, device=device)
    for z in range(depth):  # a section at a time, for its frequencies
        frequency = torch.sqrt(fz[z] ** 2 + fy**2 + fx**2)
        if structure > 0:
            spectrum[z] *= 1 / torch.sqrt(1 + (structure * frequency) ** 2)
        if has_lens:
            spectrum[z] *= evaluate_ctf_profile(
                frequency.reshape(-1),
                defocus=parameters.defocus,
                voltage=parameters.voltage,
                spherical_aberration=2.7,
                amplitude_contrast=0.1,
            ).reshape(frequency.shape)
