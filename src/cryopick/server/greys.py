"""Fields as 8-bit grey pictures: shrunken, filtered, at one contrast that a browser can change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cryopick.report.contrast import grey_middle_and_spread

__all__ = ["Grey", "atlas", "low_pass", "shrink", "to_grey"]

_SIGMAS = 5.0  # either way of the middle
_HOT = 20.0  # robust standard deviations: beyond are broken pixels and gold
_SHARE = 0.003  # of the pixels of a small image that become quite black, and quite white
_STRIP = 1 << 20  # pixels of a field that are averaged at once
_SAMPLE = 200_000  # pixels from which middle and spread are taken


class Grey(NamedTuple):
    """A picture and the values that black and white stand for."""

    pixels: NDArray[np.uint8]  # (y, x)
    low: float
    high: float


def shrink(image: NDArray[np.float32], *, longest_side: int) -> NDArray[np.float32]:
    """Average pixels down to a size; broken pixels are clipped before. A small one stays."""
    middle, sigma = grey_middle_and_spread(image, sample=_SAMPLE)
    low, high = middle - _HOT * sigma, middle + _HOT * sigma
    small = _averaged(image, longest_side, (low, high))
    if not np.isfinite(small).all():
        small = _averaged(np.nan_to_num(image, nan=middle), longest_side, (low, high))
    return small


def _averaged(
    image: NDArray[np.float32], longest_side: int, limits: tuple[float, float]
) -> NDArray[np.float32]:
    scale = longest_side / max(image.shape)
    if scale >= 1:
        return np.clip(image, *limits)
    height, width = (max(1, round(n * scale)) for n in image.shape)
    small = _binned(image, int(1 / scale), limits)
    if small.shape == (height, width):
        return small
    resized = Image.fromarray(small).resize((width, height), Image.Resampling.BOX)
    return np.asarray(resized, np.float32)


def _binned(
    image: NDArray[np.float32], most: int, limits: tuple[float, float]
) -> NDArray[np.float32]:
    """Average blocks of pixels by the largest number that divides both sides: the quick way.

    Strip by strip, so that no second copy of a large field is made.
    """
    height, width = image.shape
    factors = (n for n in range(most, 1, -1) if height % n == 0 and width % n == 0)
    n = next(factors, 1)
    small = np.empty((height // n, width // n), np.float32)
    step = max(1, _STRIP // (n * width))
    for top in range(0, len(small), step):
        strip = np.clip(image[top * n : (top + step) * n], *limits)
        rows = strip.reshape(-1, n, width).sum(axis=1)
        small[top : top + step] = rows.reshape(len(rows), -1, n).sum(axis=2) / np.float32(n * n)
    return small


def low_pass(
    image: NDArray[np.float32], *, pixel_size: float, resolution: float
) -> NDArray[np.float32]:
    """Damp an image by a Gaussian that has fallen to 1/e at a resolution, A."""
    if resolution <= 2 * pixel_size:
        return image
    fy = np.fft.fftfreq(image.shape[0], pixel_size)[:, None]
    fx = np.fft.rfftfreq(image.shape[1], pixel_size)[None, :]
    damping = np.exp(-(fy**2 + fx**2) * resolution**2)
    filtered = np.fft.irfft2(np.fft.rfft2(image) * damping, s=image.shape)
    return np.asarray(filtered, np.float32)


def to_grey(
    image: NDArray[np.float32],
    *,
    percentile: float | None = None,
    limits: tuple[float, float] | None = None,
) -> Grey:
    """Map values to 0 to 255.

    Parameters
    ----------
    image
        (y, x), finite.
    percentile
        Black and white lie at this one and at 100 less this; if not given, at the middle less
        and plus five robust standard deviations.
    limits
        Values of black and white instead.
    """
    if limits is not None:
        low, high = limits
    elif percentile is not None:
        low, high = map(float, np.percentile(image, [percentile, 100 - percentile]))
    else:
        middle, sigma = grey_middle_and_spread(image, sample=_SAMPLE)
        low, high = middle - _SIGMAS * sigma, middle + _SIGMAS * sigma
    if not high > low:
        return Grey(np.full(image.shape, 128, np.uint8), low, low + 1.0)
    levels = image - np.float32(low)
    levels *= np.float32(255 / (high - low))
    levels += np.float32(0.5)
    return Grey(np.clip(levels, 0, 255, out=levels).astype(np.uint8), low, high)


def atlas(images: Sequence[NDArray[np.float32]], *, tile: int, columns: int) -> NDArray[np.uint8]:
    """Lay square images out in rows without gaps, each with its own contrast.

    Parameters
    ----------
    images
        (y, x) each; one without contrast becomes mid-grey.
    tile
        Side of each in the picture, px.
    columns
        Images in a row.
    """
    rows = -(-len(images) // columns)
    sheet = np.full((rows * tile, columns * tile), 128, np.uint8)
    for number, image in enumerate(images):
        small = Image.fromarray(np.nan_to_num(image)).resize((tile, tile), _resampling(image, tile))
        low, high = np.quantile(np.asarray(small), [_SHARE, 1 - _SHARE])
        grey = to_grey(np.asarray(small, np.float32), limits=(float(low), float(high)))
        y, x = divmod(number, columns)
        sheet[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile] = grey.pixels
    return sheet


def _resampling(image: NDArray[np.float32], tile: int) -> Image.Resampling:
    return Image.Resampling.BOX if min(image.shape) > tile else Image.Resampling.BICUBIC
