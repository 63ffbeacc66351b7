"""Shrink stacks of square images by Fourier cropping, with the least arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from cryopick.checks import require_even
from cryopick.errors import ParameterError, ShapeError

__all__ = ["shrink_images"]


def shrink_images(images: Tensor, *, size: int) -> Tensor:
    """Shrink square images to `size`: a square cut of their transform with a sharp edge.

    The result is that of `cryopick.image.fourier.fourier_resize`; frequencies that are cut
    away are not computed, which saves more than half of the time.

    Parameters
    ----------
    images
        (n, y, y), real floating point; y even.
    size
        Side of the result in px, even, not above y.

    Returns
    -------
    Tensor
        (n, size, size), dtype and device of `images`. The mean is kept, and pixel 0 stays at the
        place of pixel 0, so the centre y // 2 goes to size // 2.

    Raises
    ------
    ShapeError
        If the images are not square.
    ParameterError
        If `size` is odd or larger than the images.

    Examples
    --------
    >>> shrink_images(torch.full((2, 8, 8), 3.0), size=4).shape
    torch.Size([2, 4, 4])
    """
    require_even(size, name="size")
    if images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise ShapeError(
            "images", must="have shape (n, y, y)", got=tuple(images.shape), remedy="Crop squares"
        )
    side = images.shape[-1]
    if size > side:
        raise ParameterError(
            "size", must=f"be at most {side} px", got=f"{size} px", remedy="Give a smaller size"
        )
    if size == side:
        return images
    if not len(images):
        return images.new_empty(0, size, size)
    half = size // 2
    rows = torch.fft.rfft(images, dim=-1, norm="forward")[..., : half + 1]
    # the second transform runs along memory, which is faster than across it
    columns = torch.fft.fft(rows.transpose(1, 2).contiguous(), dim=-1, norm="forward")
    kept = torch.cat([columns[..., : half + 1], columns[..., side - half + 1 :]], dim=-1)
    rows = torch.fft.ifft(kept, dim=-1, norm="forward").transpose(1, 2)
    shrunk: Tensor = torch.fft.irfft(rows, n=size, dim=-1, norm="forward")
    return shrunk
