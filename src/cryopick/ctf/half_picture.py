"""The usual picture of a CTF fit: the spectrum in one half, the fitted rings in the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryopick.ctf.estimate import CtfEstimate
from cryopick.ctf.evaluate import evaluate_ctf

__all__ = ["half_picture"]

_NOISE_SHARE = 1.5  # of the noise, added to the envelope by which the spectrum is divided


def half_picture(estimate: CtfEstimate) -> Tensor:
    """Put the measured spectrum on the left and the square of the fitted CTF on the right.

    Parameters
    ----------
    estimate
        Of one micrograph.

    Returns
    -------
    Tensor
        (side, side) float32 on the CPU, DC at ``side // 2`` on both axes. The spectrum is less
        its background and over its envelope, so that it is 0 at zeros of the CTF and 1 at its
        peaks, as the CTF is; outside the rings that were fitted both are 0.
    """
    spectrum, curves = estimate.spectrum, estimate.curves
    power = spectrum.power
    side = power.shape[0]
    step = 1 / (side * spectrum.pixel_size)
    fy = torch.fft.fftfreq(side, spectrum.pixel_size, dtype=torch.float64)[:, None]
    fx = torch.arange(side // 2 + 1, dtype=torch.float64)[None, :] * step
    place = ((fy.square() + fx.square()).sqrt() - curves.frequency[0]) / step
    is_fitted = (place >= 0) & (place <= len(curves.frequency) - 1)
    ring = torch.round(place).long().clamp(0, len(curves.frequency) - 1)
    contrast = torch.exp(estimate.envelope - estimate.background)
    contrast += _NOISE_SHARE / math.sqrt(spectrum.n_independent)
    measured = (power / torch.exp(estimate.background)[ring] - 1) / contrast[ring]
    ctf = evaluate_ctf(
        (side, side),
        pixel_size=spectrum.pixel_size,
        dtype=torch.float64,
        **estimate.ctf._asdict(),
    )[0]
    halves = torch.where(is_fitted, torch.stack([measured, ctf.square()]), 0.0)
    shifted = torch.fft.fftshift(halves, dim=1)  # rows; columns begin at DC
    picture = torch.zeros(side, side)
    picture[:, side // 2 :] = shifted[1][:, : side // 2]
    # the other half by symmetry: (-y, -x)
    turned = torch.roll(shifted[0].flip(0), 1, dims=0)
    picture[:, : side // 2] = turned[:, 1 : side // 2 + 1].flip(1)
    return picture
