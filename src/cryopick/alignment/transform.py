"""Shift and rotate images without losing their fine detail.

The convention of the whole program, which is RELION's: ``shift_x, shift_y`` move the content of an
image so that the particle lies at the centre, pixel n // 2; then ``psi`` turns it onto its class.
A positive psi turns the content from x (to the right) towards y (to higher rows): on a screen with
row 0 on top, clockwise. It turns the axis of astigmatism with it, so that the CTF of an image
turned by psi is that of ``defocus_angle + psi``.

Shifts are Fourier phases. Rotation samples a cubic B-spline through the image at half the pixel
spacing. Frequencies from Nyquist up, the corners of the transform, have no place in a turned image
and are removed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from cryopick.checks import require_shape
from cryopick.errors import ShapeError
from cryopick.image.fourier import frequency_grid

__all__ = ["sample_spline", "spline_coefficients", "transform_images", "transform_rffts"]

_FINER = 2  # spline knots per pixel
_MARGIN = 2  # knots repeated around the box, so that its rim interpolates like the rest
_KNOTS_AT_ONCE = {"cpu": 2**18, "cuda": 2**25}  # of images worked on together: a fast cache holds


def transform_images(images: Tensor, *, psi: Tensor, shift_x: Tensor, shift_y: Tensor) -> Tensor:
    """Shift images, then rotate them about pixel n // 2.

    Parameters
    ----------
    images
        (n, y, y), real floating point.
    psi
        (n,) degrees, from x towards y.
    shift_x, shift_y
        (n,) px; the content moves by this before it turns.

    Returns
    -------
    Tensor
        (n, y, y), dtype and device of `images`. The image goes on periodically where it is
        shifted; places that a rotation brings in from outside the box are 0. Frequencies of
        0.5 cycles/px and more are removed.

    Raises
    ------
    ShapeError
        If the images are not square, or the others are not (n,).

    Examples
    --------
    >>> image = torch.zeros(1, 8, 8)
    >>> image[0, 4, 6] = 1.0
    >>> right_angle, none = torch.tensor([90.0]), torch.zeros(1)
    >>> turned = transform_images(image, psi=right_angle, shift_x=none, shift_y=none)
    >>> divmod(turned.argmax().item(), 8)
    (6, 4)
    """
    require_shape(images, "n y y", name="images")
    if not len(images):
        return images.clone()
    rffts = torch.fft.rfft2(images)
    return transform_rffts(rffts, size=images.shape[-1], psi=psi, shift_x=shift_x, shift_y=shift_y)


def transform_rffts(
    image_rffts: Tensor, *, size: int, psi: Tensor, shift_x: Tensor, shift_y: Tensor
) -> Tensor:
    """Shift and rotate images given as transforms, as `transform_images` does.

    Parameters
    ----------
    image_rffts
        (n, size, size // 2 + 1), complex, of ``torch.fft.rfft2``.
    size
        Side of the images, px.
    psi, shift_x, shift_y
        As for `transform_images`.

    Returns
    -------
    Tensor
        (n, size, size), real.

    Raises
    ------
    ShapeError
        If the axes are others than these.
    """
    count = len(image_rffts)
    require_shape(image_rffts, f"n {size} {size // 2 + 1}", name="image_rffts")
    for name, values in (("psi", psi), ("shift_x", shift_x), ("shift_y", shift_y)):
        if tuple(values.shape) != (count,):
            raise ShapeError(
                name,
                must=f"have one value for each of the {count} images",
                got=f"shape {tuple(values.shape)}",
                remedy="Repeat or select the values",
            )
    transformed = image_rffts.real.new_empty(count, size, size)
    knots = _KNOTS_AT_ONCE.get(transformed.device.type, 2**20)
    step = max(1, knots // (_FINER * size) ** 2)
    for start in range(0, count, step):
        part = slice(start, start + step)
        shifted = _shift_rffts(image_rffts[part], size, shift_x[part], shift_y[part])
        x, y = _turned_grid(size, psi[part].to(transformed))
        transformed[part] = sample_spline(spline_coefficients(shifted, size=size), x=x, y=y)
    return transformed


def spline_coefficients(image_rffts: Tensor, *, size: int) -> Tensor:
    """Work out the knots of a cubic B-spline that passes through images.

    Parameters
    ----------
    image_rffts
        (n, size, size // 2 + 1), complex.
    size
        Side of the images, px.

    Returns
    -------
    Tensor
        (n, 2 size + 4, 2 size + 4), for `sample_spline`: two knots per pixel, and two more on each
        side that repeat the image periodically.

    Notes
    -----
    Zero-padding the transform interpolates by two exactly; dividing by the transform of the
    sampled B-spline, (2 + cos(2 pi f)) / 3 along each axis, makes the spline pass through these
    samples (Unser, IEEE Signal Process. Mag. 16 (1999) 22). What is left of the error is
    (f / (1 - f))^4, f in cycles per knot: 1.2 % at Nyquist, 0.07 % at half of it.
    """
    fine = _FINER * size
    fy, fx = frequency_grid((size, size), device=image_rffts.device, dtype=image_rffts.real.dtype)
    filtered = image_rffts * _spline_filter(fy, fx)
    padded = image_rffts.new_zeros(len(image_rffts), fine, size // 2 + 1)
    top, bottom = (size + 1) // 2, size // 2
    padded[:, :top] = filtered[:, :top]
    padded[:, fine - bottom :] = filtered[:, size - bottom :]
    columns = torch.fft.ifft(padded, dim=1)
    knots = torch.fft.irfft(columns, n=fine, dim=2)
    return functional.pad(knots[:, None], (_MARGIN,) * 4, mode="circular")[:, 0]


def sample_spline(coefficients: Tensor, *, x: Tensor, y: Tensor) -> Tensor:
    """Sample images at any places between their pixels.

    Parameters
    ----------
    coefficients
        (n, 2 size + 4, 2 size + 4), from `spline_coefficients`.
    x, y
        (n, rows, columns) px of the image, pixel 0 at 0.

    Returns
    -------
    Tensor
        (n, rows, columns); 0 outside the box.

    Notes
    -----
    The sixteen knots around a place are fetched by four bilinear look-ups between them (Sigg &
    Hadwiger, GPU Gems 2 (2005), chapter 20).
    """
    side = coefficients.shape[-1]
    low_x, high_x, share_x = _paired_knots(x * _FINER + _MARGIN, side)
    low_y, high_y, share_y = _paired_knots(y * _FINER + _MARGIN, side)
    texture = coefficients[:, None]

    def row(at_y: Tensor) -> Tensor:
        low, high = (_bilinear(texture, at_x, at_y) for at_x in (low_x, high_x))
        return torch.lerp(low, high, share_x)

    return torch.lerp(row(low_y), row(high_y), share_y)


def _spline_filter(fy: Tensor, fx: Tensor) -> Tensor:
    """Transfer function: below Nyquist, interpolation by two over the sampled cubic B-spline."""
    columns, rows = (3 / (2 + torch.cos(math.pi * f)) for f in (fx, fy))
    below = fy.square() + fx.square() < 0.25 * (1 - 1e-6)
    return rows * columns * below * _FINER**2


def _shift_rffts(image_rffts: Tensor, size: int, shift_x: Tensor, shift_y: Tensor) -> Tensor:
    """Move the content of images by phases, px."""
    real = image_rffts.real
    fy, fx = frequency_grid((size, size), device=real.device, dtype=real.dtype)
    one = torch.ones((), dtype=real.dtype, device=real.device)
    rows, columns = (
        torch.polar(one.expand(len(shift), f.numel()), -2 * math.pi * shift[:, None] * f.ravel())
        for shift, f in ((shift_y.to(real), fy), (shift_x.to(real), fx))
    )
    return image_rffts * rows[:, :, None] * columns[:, None, :]


def _turned_grid(size: int, psi: Tensor) -> tuple[Tensor, Tensor]:
    """Where in an image the pixels of the image turned by psi come from, (n, size, size) px."""
    centre = size // 2
    steps = torch.arange(size, device=psi.device, dtype=psi.dtype) - centre
    turn = torch.deg2rad(psi.double())
    cos, sin = (f(turn).to(psi.dtype)[:, None, None] for f in (torch.cos, torch.sin))
    x = cos * steps + (sin * steps[:, None] + centre)
    y = cos * steps[:, None] + centre - sin * steps
    return x, y


def _paired_knots(place: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Turn four cubic B-spline weights into two places, as grid_sample counts, and a share."""
    first = torch.floor(place)
    t = place - first
    rest = 1 - t
    outer_low = rest * rest * rest / 6
    outer_high = t * t * t / 6
    share = 1 / 6 + (t + t * t - t * t * t) / 2 + outer_high  # weight of the upper pair
    low = first - outer_low / (1 - share)
    high = first + 1 + outer_high / share
    scale = 2 / (side - 1)
    return low * scale - 1, high * scale - 1, share


def _bilinear(texture: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Sample (n, 1, side, side); 0 outside."""
    grid = torch.stack([x, y], dim=-1)
    return functional.grid_sample(texture, grid, mode="bilinear", align_corners=True)[:, 0]
