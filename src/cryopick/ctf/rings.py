"""The CTF on Fourier rings, for images of different lenses at once; formula: `ctf.evaluate`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryopick.checks import require_shape
from cryopick.ctf.evaluate import ctf_of_phase
from cryopick.physics import electron_wavelength

__all__ = ["evaluate_ctf_rings"]


def evaluate_ctf_rings(
    parameters: Tensor,
    *,
    frequencies: Tensor,
    angles: Tensor,
    ignore_until_first_peak: bool = False,
) -> Tensor:
    """Evaluate the CTF of n images at polar samples.

    Parameters
    ----------
    parameters
        (n, 9) float64: defocus u and v (A), angle of u (deg), phase shift (deg), B-factor (A^2),
        scale, voltage (kV), spherical aberration (mm), amplitude contrast.
    frequencies
        (R,) float32, 1/A.
    angles
        (H,) float32, rad from x towards y.
    ignore_until_first_peak
        Whether to put 1 where the phase gamma is below that of the first peak, pi / 2.

    Returns
    -------
    Tensor
        (H, R, n) float32, on the device of `frequencies`.

    Raises
    ------
    ShapeError
        If `parameters` has not nine columns.
    """
    require_shape(parameters, "n 9", name="parameters")
    wavelength = torch.tensor(
        [electron_wavelength(v) for v in parameters[:, 6].tolist()], dtype=torch.float64
    )
    values = parameters.to(torch.float64)
    mean, half_difference = (values[:, 0] + values[:, 1]) / 2, (values[:, 0] - values[:, 1]) / 2
    quadratic = math.pi * wavelength
    quartic = math.pi / 2 * values[:, 7] * 1e7 * wavelength**3
    offset = torch.deg2rad(values[:, 3]) + torch.asin(values[:, 8])

    def put(per_image: Tensor) -> Tensor:
        return per_image.to(frequencies)

    k2 = (frequencies**2)[:, None]
    twice = 2 * (angles[:, None] - put(torch.deg2rad(values[:, 2])))
    defocus = put(mean * quadratic) + put(half_difference * quadratic) * torch.cos(twice)
    gamma = defocus[:, None] * k2 - put(quartic) * (k2 * k2) + put(offset)
    ctf = ctf_of_phase(gamma, k2, put(values[:, 4]), put(values[:, 5]))
    return torch.where(gamma.abs() < math.pi / 2, 1.0, ctf) if ignore_until_first_peak else ctf
