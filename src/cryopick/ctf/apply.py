"""Multiply images by their CTF, or flip the phases where it is negative."""

from __future__ import annotations

import torch
from torch import Tensor

from cryopick.checks import require_shape
from cryopick.errors import ShapeError

__all__ = ["apply_ctf", "flip_phases"]


def apply_ctf(images: Tensor, ctf: Tensor) -> Tensor:
    """Multiply images by a CTF: it simulates the microscope, and premultiplies recorded images.

    Parameters
    ----------
    images
        (n, y, x), real.
    ctf
        (n, y, x // 2 + 1), or (1, ...) for one that all images share, as `evaluate_ctf` gives it.

    Returns
    -------
    Tensor
        (n, y, x), on the device and of the dtype of `images`.

    Raises
    ------
    ShapeError
        If `ctf` does not fit the images.

    Notes
    -----
    At Nyquist frequency plus and minus share one sample, but an astigmatic CTF has two values:
    the one of the positive frequency is taken, as RELION does.

    Examples
    --------
    >>> images = torch.arange(72.0).reshape(2, 6, 6)
    >>> torch.allclose(apply_ctf(images, torch.full((1, 6, 4), 0.5)), images / 2, atol=1e-4)
    True
    """
    require_shape(images, "n y x", name="images")
    count, height, width = images.shape
    allowed = {(count, height, width // 2 + 1), (1, height, width // 2 + 1)}
    if tuple(ctf.shape) not in allowed:
        raise ShapeError(
            "ctf",
            must=f"have shape ({count} or 1, {height}, {width // 2 + 1})",
            got=f"({', '.join(map(str, ctf.shape))})",
            remedy="Evaluate it for the size of the images",
        )
    if not count:  # MKL refuses to transform nothing
        return images.clone()
    product = torch.fft.rfft2(images) * ctf
    result: Tensor = torch.fft.irfft2(product, s=(height, width))
    return result.to(images.dtype)


def flip_phases(images: Tensor, ctf: Tensor) -> Tensor:
    """Turn the sign of every frequency at which the CTF is negative; amplitudes stay.

    Parameters
    ----------
    images, ctf
        As for `apply_ctf`.

    Returns
    -------
    Tensor
        (n, y, x).

    Raises
    ------
    ShapeError
        If `ctf` does not fit the images.
    """
    one = torch.ones((), dtype=ctf.dtype, device=ctf.device)
    return apply_ctf(images, torch.where(ctf < 0, -one, one))
