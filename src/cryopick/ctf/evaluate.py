"""The contrast transfer function of a microscope, with RELION's signs.

    gamma(k) = pi lambda z(k) k^2 - pi/2 Cs lambda^3 k^4 + phase_shift + asin(Q)
    z(k)     = (z_u + z_v) / 2 + (z_u - z_v) / 2 cos 2 (angle(k) - defocus_angle)
    CTF(k)   = scale sin(gamma) exp(-B k^2 / 4)

Defocus z is positive under focus, angle(k) is counted from x (columns, to the right) towards y
(rows, to higher row numbers), Q is the amplitude contrast. At low frequency the CTF of an
underfocused image is positive: a particle that is white without the CTF stays white.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryopick.checks import require_above
from cryopick.errors import ShapeError
from cryopick.image.fourier import frequency_grid
from cryopick.physics import electron_wavelength

__all__ = ["ctf_of_phase", "evaluate_ctf", "evaluate_ctf_profile"]

PerImage = float | Tensor  # one number, or one for each image


def evaluate_ctf(
    shape: tuple[int, int],
    *,
    pixel_size: float,
    defocus_u: PerImage,
    defocus_v: PerImage,
    defocus_angle: PerImage,
    voltage: float,
    spherical_aberration: float,
    amplitude_contrast: float,
    phase_shift: PerImage = 0.0,
    bfactor: PerImage = 0.0,
    scale: PerImage = 1.0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    half: bool = True,
    until_first_peak: bool = False,
    ignore_until_first_peak: bool = False,
) -> Tensor:
    """Evaluate the CTF of some images at the samples of their Fourier transforms.

    Parameters
    ----------
    shape
        (y, x) of the images, px.
    pixel_size
        A/px.
    defocus_u, defocus_v
        A, underfocus positive; a number, or (n,) for n images.
    defocus_angle
        Degrees from x to the direction of `defocus_u`; a number or (n,).
    voltage
        kV.
    spherical_aberration
        mm.
    amplitude_contrast
        Fraction, from 0 to 1.
    phase_shift
        Of a phase plate, degrees; a number or (n,).
    bfactor
        Of the envelope exp(-B k^2 / 4), A^2; a number or (n,).
    scale
        Factor on the whole; a number or (n,).
    device, dtype
        Of the result.
    half
        Whether to leave out the redundant half, as ``torch.fft.rfft2`` does.
    until_first_peak
        Whether to put 1 where the phase gamma is beyond the first peak, pi / 2.
    ignore_until_first_peak
        Whether to put 1 where gamma is below that of the first peak.

    Returns
    -------
    Tensor
        (n, y, x // 2 + 1), or (n, y, x) if not `half`; DC first. n is 1 if all are numbers.

    Raises
    ------
    ShapeError
        If parameters given per image differ in length.
    ParameterError
        If `pixel_size` or `voltage` is not above 0.

    Notes
    -----
    The formula at the top of this module, which is Rohou & Grigorieff, J. Struct. Biol. 192
    (2015), eqs. 2-4, with the sign of RELION: checked against ``relion_project --ctf``.

    Examples
    --------
    >>> ctf = evaluate_ctf((4, 4), pixel_size=2.0, defocus_u=1e4, defocus_v=1e4,
    ...     defocus_angle=0.0, voltage=300.0, spherical_aberration=2.7, amplitude_contrast=0.1)
    >>> ctf.shape, round(ctf[0, 0, 0].item(), 4)
    (torch.Size([1, 4, 3]), 0.1)
    """
    require_above(pixel_size, 0, name="pixel_size", unit="A/px")
    u, v, angle, phase, b, factor = _per_image(
        (defocus_u, defocus_v, defocus_angle, phase_shift, bfactor, scale), device, dtype
    )
    fy, fx = frequency_grid(shape, pixel_size=pixel_size, device=device, dtype=dtype)
    if not half:
        fx = torch.fft.fftfreq(shape[1], pixel_size, device=device, dtype=dtype)[None, :]
    # the sample at Nyquist frequency is the positive one, as RELION takes it
    fy = torch.where(fy.abs() * pixel_size < 0.5, fy, fy.abs())
    fx = torch.where(fx.abs() * pixel_size < 0.5, fx, fx.abs())
    mean, half_difference = (u + v) / 2, (u - v) / 2
    twice = 2 * torch.deg2rad(angle)
    xx = mean + half_difference * torch.cos(twice)
    yy = mean - half_difference * torch.cos(twice)
    xy = half_difference * torch.sin(twice)
    k2 = fx * fx + fy * fy
    defocus_k2 = xx * (fx * fx) + yy * (fy * fy) + 2 * xy * (fx * fy)
    gamma = _gamma(defocus_k2, k2, voltage, spherical_aberration, amplitude_contrast, phase)
    ctf = ctf_of_phase(gamma, k2, b, factor)
    is_before = gamma.abs() < math.pi / 2
    if ignore_until_first_peak:
        ctf = torch.where(is_before, 1.0, ctf)
    return torch.where(is_before, ctf, 1.0) if until_first_peak else ctf


def evaluate_ctf_profile(
    frequency: Tensor,
    *,
    defocus: PerImage,
    voltage: float,
    spherical_aberration: float,
    amplitude_contrast: float,
    phase_shift: PerImage = 0.0,
    bfactor: PerImage = 0.0,
    scale: PerImage = 1.0,
) -> Tensor:
    """Evaluate the CTF along one direction.

    Parameters
    ----------
    frequency
        (k,), 1/A; its device and dtype are the result's.
    defocus
        A, underfocus positive, in this direction; a number or (n,).
    voltage, spherical_aberration, amplitude_contrast, phase_shift, bfactor, scale
        As for `evaluate_ctf`.

    Returns
    -------
    Tensor
        (n, k); n is 1 if all are numbers.

    Raises
    ------
    ShapeError
        If parameters given per image differ in length.
    """
    z, phase, b, factor = (
        p[:, :, 0]
        for p in _per_image(
            (defocus, phase_shift, bfactor, scale), frequency.device, frequency.dtype
        )
    )
    k2 = frequency * frequency
    gamma = _gamma(z * k2, k2, voltage, spherical_aberration, amplitude_contrast, phase)
    return ctf_of_phase(gamma, k2, b, factor)


def _per_image(
    values: tuple[PerImage, ...], device: torch.device | str, dtype: torch.dtype
) -> list[Tensor]:
    """Bring numbers and (n,) tensors to (n, 1, 1)."""
    tensors = [torch.as_tensor(v, device=device, dtype=dtype).reshape(-1) for v in values]
    lengths = {len(t) for t in tensors} - {1}
    if len(lengths) > 1:
        raise ShapeError(
            "the CTF parameters",
            must="have one value, or one for each image",
            got=f"lengths {', '.join(str(len(t)) for t in tensors)}",
            remedy="Give every list the same length",
        )
    count = lengths.pop() if lengths else 1
    return [t.expand(count)[:, None, None] for t in tensors]


def _gamma(
    defocus_k2: Tensor,
    k2: Tensor,
    voltage: float,
    spherical_aberration: float,
    amplitude_contrast: float,
    phase_shift: Tensor,
) -> Tensor:
    """Phase of the CTF in radians."""
    wavelength = electron_wavelength(voltage)
    linear = math.pi * wavelength
    quartic = math.pi / 2 * spherical_aberration * 1e7 * wavelength**3  # mm to A
    offset = torch.deg2rad(phase_shift) + math.asin(amplitude_contrast)
    return linear * defocus_k2 - quartic * (k2 * k2) + offset


def ctf_of_phase(gamma: Tensor, k2: Tensor, bfactor: Tensor, scale: Tensor) -> Tensor:
    """Take the sine of the phase, with envelope and scale; all broadcast together."""
    ctf = torch.sin(gamma)
    if bool((bfactor != 0).any()):
        ctf = ctf * torch.exp(-bfactor / 4 * k2)
    return ctf * scale if bool((scale != 1).any()) else ctf
