"""Templates in angular harmonics of Fourier space, where a rotation is a phase.

A template's transform is T(f, phi) = sum_m (-i)^m u_m(f) exp(i m phi) with

    u_m(f) = 2 pi integral a_m(r) J_m(2 pi f r) r dr,

where a_m(r) are the angular harmonics of the template itself (Hankel transform). Turned by an
angle t from x towards y, u_m becomes u_m exp(-i m t); of a real template u_-m is the conjugate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import jv
from torch import Tensor
from torch.nn import functional

from cryopick.alignment.transform import sample_spline, spline_coefficients
from cryopick.checks import require_above, require_shape
from cryopick.errors import DataError
from cryopick.image.fourier import crop_rfft, good_size
from cryopick.image.masks import soft_mask

__all__ = ["Templates", "low_pass_filter", "prepare_templates"]

_EDGE = 0.1  # width of the mask's soft edge, in diameters
_RIM = 1.05  # from here on a template shows its background, in diameters (half the edge)
_FINER = 3.0  # pixels of the shrunk templates per resolution element
_RINGS = 32  # per 1 / diameter: linear interpolation between rings errs by less than 0.3 %
_ROLL_OFF = 0.1  # share of the band over which the low-pass falls
_FLAT = 1e-6  # deviation of a template, relative to its largest value, that is rounding


class Templates(NamedTuple):
    """Templates ready for any micrograph."""

    harmonics: NDArray[np.complex64]  # (k, orders, rings) u_m(f), m = 0, 1 ...; A^2
    frequency: NDArray[np.float64]  # (rings,) 1/A, evenly from 0
    diameter: float  # of the mask, A
    low_pass: float  # A


def prepare_templates(
    images: Tensor,
    *,
    template_pixel_size: float,
    diameter: float,
    low_pass: float,
) -> Templates:
    """Mask, filter and expand templates.

    The centre of a template is pixel n // 2. The mean of what lies beyond the mask is subtracted
    before the mask is applied, so that the template counts from its background; the overall
    scale does not matter.

    Parameters
    ----------
    images
        (k, n, n), real, any device; without a CTF, particles white.
    template_pixel_size
        A/px.
    diameter
        Of the flat part of the mask, A; it falls to 0 over a tenth of that.
    low_pass
        Finest detail, A.

    Raises
    ------
    DataError
        If there is none, one is constant within the mask or not finite, or the pixels are
        coarser than half the low-pass.
    ShapeError
        If the images are not square.
    ParameterError
        If `template_pixel_size` is not above 0.

    Notes
    -----
    Angular harmonics by the fast Fourier transform over angles of samples of a cubic spline;
    the Hankel transform by Gauss-Legendre quadrature in float64.
    """
    require_shape(images, "k n n", name="templates")
    require_above(template_pixel_size, 0, name="template_pixel_size", unit="A/px")
    _require_usable(images, template_pixel_size, low_pass)
    masked = _masked(images.to(torch.float32), diameter=diameter / template_pixel_size)
    small, pixel_size = _shrunk(masked, template_pixel_size, low_pass)
    reach = (0.5 + _EDGE) * diameter + low_pass  # the low-pass blurs the mask's edge
    frequency = np.arange(math.ceil(_RINGS * diameter / low_pass) + 1) / (_RINGS * diameter)
    return Templates(
        _expand(small, pixel_size, reach=reach, frequency=frequency, low_pass=low_pass),
        frequency,
        diameter,
        low_pass,
    )


def low_pass_filter(frequency: NDArray[np.float64], *, low_pass: float) -> NDArray[np.float64]:
    """Fall from 1 to 0 at 1 / `low_pass` as a raised cosine, over a tenth of the band."""
    outside = np.clip((frequency * low_pass - 1 + _ROLL_OFF) / _ROLL_OFF, 0, 1)
    result: NDArray[np.float64] = 0.5 + 0.5 * np.cos(math.pi * outside)
    return result


def _require_usable(images: Tensor, pixel_size: float, low_pass: float) -> None:
    if not len(images):
        _refuse("hold an image", "none", "Give class averages or a map")
    if not bool(torch.isfinite(images).all()):
        _refuse("have finite pixel values", "NaN or infinity", "Make the templates again")
    if 2 * pixel_size > low_pass:
        _refuse(
            f"show detail of {low_pass:g} A, the low-pass",
            f"{2 * pixel_size:g} A at most, as their pixels are {pixel_size:g} A",
            "Give a larger --low-pass or finer templates",
        )


def _masked(images: Tensor, *, diameter: float) -> Tensor:
    """Count from the background and mask; `diameter` in px."""
    side = images.shape[-1]
    steps = torch.arange(side, device=images.device) - side // 2
    radius = torch.hypot(steps[:, None].float(), steps[None, :].float())
    mask = soft_mask(radius, diameter=diameter, edge=_EDGE * diameter)
    rim = (radius >= _RIM / 2 * diameter) & (radius <= side // 2)
    if int(rim.sum()) < 2 * side:  # the mask fills the box: its outermost ring must do
        rim = (radius > side // 2 - 1.5) & (radius <= side // 2)
    counted = images - images[:, rim].mean(1)[:, None, None]
    inside = counted[:, mask > 0.5]
    spread = inside.std(1) / images.abs().amax((1, 2)).clamp_min(1e-30)
    if bool((spread < _FLAT).any()):
        first = int((spread < _FLAT).nonzero()[0])
        _refuse("have contrast within the mask", f"none in number {first + 1}", "Leave it out")
    return counted * mask / inside.std(1)[:, None, None]


def _shrunk(images: Tensor, pixel_size: float, low_pass: float) -> tuple[Tensor, float]:
    """Crop the transform to what the low-pass leaves, the centre staying at n // 2."""
    side = images.shape[-1]
    padded = good_size(side)
    before = padded // 2 - side // 2
    images = functional.pad(images, (before, padded - side - before) * 2)
    size = min(padded, good_size(math.ceil(_FINER * padded * pixel_size / low_pass)))
    if size == padded:
        return images, pixel_size
    shrunk = torch.fft.irfft2(
        crop_rfft(torch.fft.rfft2(images), shape=(size, size)) * (size / padded) ** 2,
        s=(size, size),
    )
    return shrunk, pixel_size * padded / size


def _expand(
    images: Tensor,
    pixel_size: float,
    *,
    reach: float,
    frequency: NDArray[np.float64],
    low_pass: float,
) -> NDArray[np.complex64]:
    """u_m(f) of images, low-passed, (k, orders, rings)."""
    side = images.shape[-1]
    orders = math.ceil(2 * math.pi * reach / low_pass) + 3
    n_angles = 4 * orders
    nodes, weights = np.polynomial.legendre.leggauss(math.ceil(8 * reach / low_pass) + 16)
    radius, weights = (nodes + 1) * reach / 2, weights * reach / 2
    angle = 2 * math.pi * np.arange(n_angles) / n_angles
    x, y = (
        torch.from_numpy(side // 2 + radius[:, None] / pixel_size * f(angle)).to(images)
        for f in (np.cos, np.sin)
    )
    knots = spline_coefficients(torch.fft.rfft2(images), size=side)
    samples = sample_spline(knots, x=x.expand(len(images), -1, -1), y=y.expand(len(images), -1, -1))
    polar = samples.double().cpu().numpy()
    radial = np.fft.fft(polar, axis=2)[:, :, :orders] / n_angles  # a_m(r)
    argument = 2 * math.pi * radius[:, None] * frequency
    harmonics = np.empty((len(images), orders, len(frequency)), np.complex64)
    passed = low_pass_filter(frequency, low_pass=low_pass)
    for order in range(orders):
        kernel = 2 * math.pi * (radius * weights)[:, None] * jv(order, argument)
        harmonics[:, order] = radial[:, :, order] @ kernel * passed
    return harmonics


def _refuse(must: str, got: str, remedy: str) -> None:
    raise DataError("templates", must=must, got=got, remedy=remedy)
