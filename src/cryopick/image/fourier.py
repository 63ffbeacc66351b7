"""Fourier transforms of images: sizes that are fast, frequencies, and cropping.

Transforms are of the `torch.fft.rfft2` kind: (..., y, x // 2 + 1), DC first, unscaled forwards.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryopick.checks import require_shape

__all__ = ["crop_rfft", "fourier_resize", "frequency_grid", "good_size"]


def good_size(size: int, *, even: bool = True) -> int:
    """Find the smallest number from `size` up whose prime factors are 2, 3, 5 and 7.

    Examples
    --------
    >>> good_size(341)
    350
    """
    size = max(size, 2 if even else 1)
    while True:
        rest = size
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1 and not (even and size % 2):
            return size
        size += 1


def frequency_grid(
    shape: tuple[int, int],
    *,
    pixel_size: float = 1.0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Frequencies of the samples of ``rfft2`` of an image.

    Parameters
    ----------
    shape
        (y, x) of the image, px.
    pixel_size
        A/px; 1 gives cycles per pixel.
    device, dtype
        Of the result.

    Returns
    -------
    tuple of Tensor
        fy (y, 1) and fx (1, x // 2 + 1), 1/A; they broadcast to the transform.
    """
    height, width = shape
    fy = torch.fft.fftfreq(height, pixel_size, device=device, dtype=dtype)
    fx = torch.fft.rfftfreq(width, pixel_size, device=device, dtype=dtype)
    return fy[:, None], fx[None, :]


def crop_rfft(image_rfft: Tensor, *, shape: tuple[int, int]) -> Tensor:
    """Keep the low frequencies of a transform: a square cut with a sharp edge.

    Parameters
    ----------
    image_rfft
        (..., y, x // 2 + 1), complex.
    shape
        (y, x) of the smaller image, px; neither larger than the image transformed.

    Returns
    -------
    Tensor
        (..., shape[0], shape[1] // 2 + 1). Of a pair of rows at the new Nyquist frequency the
        positive one is kept. Multiply by the ratio of pixel counts to keep pixel values.
    """
    require_shape(image_rfft, "... y x", name="image_rfft")
    height, width = shape
    positive = height // 2 + 1
    top = image_rfft[..., :positive, : width // 2 + 1]
    negative = height - positive
    if not negative:
        return top
    bottom = image_rfft[..., image_rfft.shape[-2] - negative :, : width // 2 + 1]
    return torch.cat([top, bottom], dim=-2)


def fourier_resize(images: Tensor, *, shape: tuple[int, int]) -> Tensor:
    """Shrink or enlarge images by cropping or padding their transform; the mean is kept.

    Parameters
    ----------
    images
        (..., y, x), real.
    shape
        (y, x) of the result, px; both at most, or both at least the images'.

    Returns
    -------
    Tensor
        (..., shape[0], shape[1]). Pixel 0 stays at the place of pixel 0.
    """
    require_shape(images, "... y x", name="images")
    if tuple(images.shape[-2:]) == tuple(shape):
        return images
    scale = shape[0] * shape[1] / (images.shape[-2] * images.shape[-1])
    spectrum = torch.fft.rfft2(images)
    if shape[0] >= images.shape[-2] and shape[1] >= images.shape[-1]:
        changed = _padded_rfft(spectrum, images.shape[-1], shape=shape)
    else:
        changed = crop_rfft(spectrum, shape=shape)
    resized: Tensor = torch.fft.irfft2(changed * scale, s=shape)
    return resized


def _padded_rfft(spectrum: Tensor, width: int, *, shape: tuple[int, int]) -> Tensor:
    """Put a half spectrum of images of a width into a larger one, but for even sizes' Nyquist."""
    height = spectrum.shape[-2]
    high, wide = (height - 1) // 2, (width - 1) // 2
    padded = spectrum.new_zeros((*spectrum.shape[:-2], shape[0], shape[1] // 2 + 1))
    padded[..., : high + 1, : wide + 1] = spectrum[..., : high + 1, : wide + 1]
    if high:
        padded[..., -high:, : wide + 1] = spectrum[..., -high:, : wide + 1]
    return padded
