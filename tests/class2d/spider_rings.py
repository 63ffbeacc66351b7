"""Real-space rings as SPARX lays them out, and the best rotation on them.

The engine compares images on Fourier rings (`alignment.rings`). These are the rings of ISAC itself,
an independent way to the same rotation and mirror: the tests hold the engine against them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cryopick.checks import require_shape

__all__ = ["PolarMatch", "polar_match", "ring_length", "ring_weight"]


@dataclass(frozen=True, kw_only=True)
class PolarMatch:
    """Where one image fits another best."""

    psi: float  # deg, turns the image from x towards y onto the reference, before the mirror
    mirror: bool
    value: float


def ring_length(radius: int) -> int:
    """Count the samples of a ring: the power of 2 above its circumference in pixels.

    Examples
    --------
    >>> [ring_length(r) for r in (1, 2, 3, 6, 11, 21)]
    [8, 16, 32, 64, 128, 256]
    """
    return 1 << (math.floor(math.log2(2 * math.pi * radius)) + 1)


def ring_weight(radius: int) -> float:
    """Give the length of circumference that each sample of a ring stands for, px."""
    return 2 * math.pi * radius / ring_length(radius)


def polar_match(image: Tensor, reference: Tensor, *, radius: int, inner: int = 1) -> PolarMatch:
    """Find the rotation and mirror that bring an image onto a reference.

    Parameters
    ----------
    image, reference
        (y, x), of one size, with their centres at n // 2.
    radius, inner
        Last and first ring, px.
    """
    require_shape(image, "n n", name="image")
    require_shape(reference, "n n", name="reference")
    longest = ring_length(radius)
    plain = torch.zeros(longest // 2 + 1, dtype=torch.complex64)
    mirrored = plain.clone()
    for r in range(inner, radius + 1):
        length = ring_length(r)
        one, other = (torch.fft.rfft(_ring(i, r, length)) / length for i in (image, reference))
        # a ring's samples stand for the whole circumference, whatever their number
        circumference = ring_weight(r) * length
        plain[: length // 2 + 1] += circumference * one * other.conj()
        mirrored[: length // 2 + 1] += circumference * one * other
    # a mirror, x to -x, takes the angle t to pi - t: the signs of odd orders change
    sign = 1 - 2 * (torch.arange(len(plain)) % 2)
    values = [torch.fft.irfft(c, n=longest) * longest for c in (plain, mirrored * sign)]
    best = [int(v.argmax()) for v in values]
    mirror = bool(values[1][best[1]] > values[0][best[0]])
    at = best[mirror]
    # turning the content by psi multiplies order m by exp(-i m psi)
    return PolarMatch(
        psi=(-360 * at / longest + 360) % 360, mirror=mirror, value=float(values[mirror][at])
    )


def _ring(image: Tensor, radius: int, length: int) -> Tensor:
    """Sample a ring, interpolated linearly, from x towards y."""
    size = image.shape[-1]
    angle = torch.arange(length) * (2 * math.pi / length)
    x, y = radius * torch.cos(angle), radius * torch.sin(angle)
    place = (torch.stack([x, y], dim=1) + size // 2 + 0.5) * (2 / size) - 1
    sampled = functional.grid_sample(
        image[None, None].float(), place[None, None], align_corners=False
    )
    return sampled[0, 0, 0]
