"""Fourier ring correlation of a class average with what it should be."""

from __future__ import annotations

import torch
from torch import Tensor

from cryopick.checks import require_shape
from cryopick.class2d.half_sets import correlate_halves
from cryopick.image.masks import soft_mask

__all__ = ["ring_correlation", "ring_resolution"]

_FIRST_RING = 3  # rings below hold the background
_THRESHOLD = 0.5
_EDGE = (0.42, 0.48)  # of the box: the mask falls from 1 to 0


def ring_correlation(image: Tensor, reference: Tensor) -> Tensor:
    """Correlate two images ring by ring in Fourier space.

    Parameters
    ----------
    image, reference
        (y, x) square, real, on one device; both are masked by a soft circle.

    Returns
    -------
    Tensor
        (y // 2 + 1,) float64: ring r holds the frequencies nearest to r / y cycles a pixel; 0
        where an image is empty.

    Raises
    ------
    ShapeError
        If an image is not square, or they differ in size.

    Notes
    -----
    Saxton & Baumeister, J. Microsc. 127 (1982) 127.
    """
    size = image.shape[-1]
    require_shape(image, f"{size} {size}", name="image")
    require_shape(reference, f"{size} {size}", name="reference")
    steps = torch.arange(size, device=image.device, dtype=torch.float64) - size // 2
    radius = torch.hypot(steps[:, None], steps[None, :]) / size
    inner, outer = _EDGE
    mask = soft_mask(radius, diameter=2 * inner, edge=outer - inner)
    one, two = (torch.fft.rfft2(i.double() * mask) for i in (image, reference))
    return correlate_halves(one, two, size=size)


def ring_resolution(image: Tensor, reference: Tensor, *, pixel_size: float) -> float:
    """Resolution at which two images cease to agree: their ring correlation falls below 0.5.

    Parameters
    ----------
    image, reference
        As for `ring_correlation`.
    pixel_size
        A/px.

    Returns
    -------
    float
        A, by linear interpolation between rings; two pixels if they agree everywhere. Rings
        below the third are left out; images that disagree there get a third of the box.
    """
    size = image.shape[-1]
    frc = ring_correlation(image, reference).tolist()
    below = [r for r in range(_FIRST_RING, len(frc)) if frc[r] < _THRESHOLD]
    if not below:
        return 2 * pixel_size
    ring = float(below[0])
    if below[0] > _FIRST_RING:
        low, high = frc[below[0]], frc[below[0] - 1]
        ring -= (_THRESHOLD - low) / (high - low)
    return size * pixel_size / ring
