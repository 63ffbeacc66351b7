"""Prepare images for the eye: low-passed, shrunk, with a contrast that outliers cannot spoil."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.checks import require_shape
from cryopick.image.fourier import fourier_resize, frequency_grid
from cryopick.report.contrast import grey_middle_and_spread

__all__ = [
    "Picture",
    "mean_power",
    "picture_of_micrograph",
    "scale_bar_length",
    "spread_contrast",
    "stretch_contrast",
    "tile_images",
]

_MOST_PIXELS = 400_000  # that a contrast is taken from
_HOT_SIGMAS = 8.0  # a pixel further out is a cosmic ray or a dead pixel


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a micrograph, and how to draw on it."""

    pixels: NDArray[np.uint8]  # (y, x)
    scale: float  # px of the picture per px of the micrograph: position = scale * x
    pixel_size: float | None  # A/px of the picture; None where unknown


def stretch_contrast(image: NDArray[np.floating], *, sigmas: float = 3.0) -> NDArray[np.uint8]:
    """Map the middle of an image's values to black..white.

    Parameters
    ----------
    image
        (..., y, x); values that are not finite become mid-grey.
    sigmas
        Black and white lie this many robust standard deviations (1.48 times the median
        absolute deviation) from the median.

    Returns
    -------
    numpy.ndarray
        uint8, same shape. A constant image is mid-grey.
    """
    middle, sigma = grey_middle_and_spread(image, sample=_MOST_PIXELS)
    if sigma == 0:
        return np.full(image.shape, 128, np.uint8)
    levels = 127.5 + 127.5 * (image - middle) / (sigmas * sigma)
    grey = np.nan_to_num(levels, nan=127.5, posinf=255, neginf=0).clip(0, 255)
    return np.asarray(grey, np.uint8)


def picture_of_micrograph(
    micrograph: NDArray[np.float32],
    *,
    pixel_size: float | None,
    low_pass: float = 20.0,
    longest_side: int = 800,
) -> Picture:
    """Make a micrograph visible: remove hot pixels, low-pass, shrink, stretch the contrast.

    Parameters
    ----------
    micrograph
        (y, x).
    pixel_size
        A/px; None where unknown, and then the shrinking alone filters.
    low_pass
        Resolution where the filter, a Gaussian, has fallen to 1/e, A; 0 for none.
    longest_side
        Of the picture, px; a smaller micrograph keeps its size.

    Raises
    ------
    ShapeError
        If `micrograph` has other axes.
    """
    require_shape(micrograph, "y x", name="micrograph")
    height, width = micrograph.shape
    scale = min(1.0, longest_side / max(height, width))
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    image = fourier_resize(torch.from_numpy(_without_outliers(micrograph)), shape=shape)
    shrunk_size = pixel_size / scale if pixel_size else None
    if shrunk_size:
        image = _low_passed(image, shrunk_size, low_pass)
    return Picture(
        pixels=stretch_contrast(image.numpy()), scale=shape[1] / width, pixel_size=shrunk_size
    )


def spread_contrast(image: NDArray[np.floating], *, share: float = 0.003) -> NDArray[np.uint8]:
    """Map nearly the whole range of an image to black..white, for small images.

    Parameters
    ----------
    image
        (y, x), finite.
    share
        Part of the pixels that becomes quite black, and part that becomes quite white.

    Returns
    -------
    numpy.ndarray
        (y, x) uint8. A constant image is mid-grey.
    """
    low, high = np.quantile(image, [share, 1 - share])
    if high <= low:
        return stretch_contrast(image)
    return np.asarray((255 * (image - low) / (high - low)).clip(0, 255), np.uint8)


def tile_images(
    images: NDArray[np.floating],
    *,
    columns: int,
    gap: int = 2,
    side: int | None = None,
    pixel_size: float | None = None,
    low_pass: float = 0.0,
    background: int = 255,
) -> NDArray[np.uint8]:
    """Lay images out in rows, each with its own contrast.

    Parameters
    ----------
    images
        (n, y, x); n at least 1.
    columns
        Images in a row.
    gap
        Between images, px.
    side
        Shrink images whose longest side is above this, px.
    pixel_size, low_pass
        A/px, and the resolution to which images are filtered, A; without either they are not.
    background
        Grey level between the images, 0..255.

    Returns
    -------
    numpy.ndarray
        (rows * (y + gap) - gap, columns * (x + gap) - gap), uint8. Image k lies in row
        k // columns.

    Raises
    ------
    ShapeError
        If `images` has other axes.
    """
    require_shape(images, "n y x", name="images")
    small = np.nan_to_num(images, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
    if pixel_size:
        small = _low_passed(torch.from_numpy(small), pixel_size, low_pass).numpy()
    longest = max(small.shape[1:])
    if side and longest > side:
        shape = tuple(max(1, round(length * side / longest)) for length in small.shape[1:])
        small = fourier_resize(torch.from_numpy(small), shape=(shape[0], shape[1])).numpy()
    count, height, width = small.shape
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + gap), columns * (width + gap)), background, np.uint8)
    for index, image in enumerate(small):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = spread_contrast(image)
    return sheet[: sheet.shape[0] - gap or None, : sheet.shape[1] - gap or None]


def mean_power(images: NDArray[np.floating]) -> NDArray[np.float64]:
    """Average the power spectra of images, as the logarithm, with frequency 0 in the middle.

    Parameters
    ----------
    images
        (n, y, x).

    Returns
    -------
    numpy.ndarray
        (y, x); the sample at frequency 0 takes the value of a neighbour, so that an offset of
        the images does not hide the rest.
    """
    require_shape(images, "n y x", name="images")
    power = np.zeros(images.shape[1:])
    for image in images:
        power += np.abs(np.fft.fft2(image)) ** 2
    power[0, 0] = power[0, -1]
    floor = 1e-9 * power.max() or 1.0
    return np.fft.fftshift(np.log(np.maximum(power, floor) / len(images)))


def scale_bar_length(field_width: float) -> float:
    """Choose 1, 2 or 5 times a power of ten A that is about a fifth of the field's width.

    Examples
    --------
    >>> scale_bar_length(4096.0)
    500.0
    """
    wanted = field_width / 5
    power = 10.0 ** math.floor(math.log10(wanted))
    return max(step * power for step in (1, 2, 5) if step * power <= wanted)


def _low_passed(images: Tensor, pixel_size: float, low_pass: float) -> Tensor:
    """Damp (..., y, x) by a Gaussian that is 1/e at `low_pass` A."""
    if low_pass <= 2 * pixel_size:
        return images
    shape = (int(images.shape[-2]), int(images.shape[-1]))
    fy, fx = frequency_grid(shape, pixel_size=pixel_size)
    damping = torch.exp(-(fy**2 + fx**2) * low_pass**2)
    filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(images) * damping, s=shape)
    return filtered


def _without_outliers(image: NDArray[np.floating]) -> NDArray[np.float32]:
    """Clip what lies far outside, and put the median where a pixel is not a number."""
    middle, sigma = grey_middle_and_spread(image, sample=_MOST_PIXELS)
    reach = _HOT_SIGMAS * sigma
    clipped = np.clip(image, middle - reach, middle + reach)
    return np.asarray(np.nan_to_num(clipped, copy=False, nan=middle), np.float32)
