"""Round filters, given by their transfer function, and local statistics."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["high_pass", "local_mean", "log_disc", "sphere_shell"]

_STEPS_PER_RADIUS = 4


def log_disc(frequency: Tensor, *, diameter: float) -> Tensor:
    """Transfer function of the Laplacian of a Gaussian that answers best to a disc.

    Parameters
    ----------
    frequency
        Any shape, 1/A.
    diameter
        Of the disc, A.

    Returns
    -------
    Tensor
        As `frequency`; positive, 0 at the origin.

    Notes
    -----
    f^2 exp(-2 pi^2 sigma^2 f^2) with sigma = diameter / (2 sqrt 2), where the response at the
    centre of a disc is largest (Lindeberg, Int. J. Comput. Vis. 30 (1998) 79).
    """
    sigma = diameter / (2 * math.sqrt(2))
    squared = frequency.square()
    return squared * torch.exp(-2 * (math.pi * sigma) ** 2 * squared)


def sphere_shell(
    frequency: Tensor, *, diameter: float, hollowness: float, softness: float = 0.04
) -> Tensor:
    """Transfer function of the projection of a hollow sphere.

    Parameters
    ----------
    frequency
        Any shape, 1/A.
    diameter
        Outer diameter, A.
    hollowness
        Inner over outer diameter, in [0, 1).
    softness
        Standard deviation of the Gaussian that blurs the walls, as a fraction of the diameter.

    Returns
    -------
    Tensor
        As `frequency`; the mass of the shell of outer radius 1 at the origin.

    Notes
    -----
    By the projection-slice theorem this is the transform of the sphere itself,
    3 j1(q) / q with q = 2 pi f R, outer minus inner.
    """
    outer = _sphere(frequency, diameter / 2)
    inner = _sphere(frequency, hollowness * diameter / 2) * hollowness**3
    blur = torch.exp(-2 * (math.pi * softness * diameter) ** 2 * frequency.square())
    return (outer - inner) * blur


def _sphere(frequency: Tensor, radius: float) -> Tensor:
    q = 2 * math.pi * radius * frequency
    safe = torch.where(q > 1e-2, q, 1.0)
    exact = 3 * (torch.sin(safe) - safe * torch.cos(safe)) / safe**3
    return torch.where(q > 1e-2, exact, 1 - q.square() / 10)


def high_pass(frequency: Tensor, *, length: float) -> Tensor:
    """Transfer function of a soft Gaussian high-pass.

    Parameters
    ----------
    frequency
        Any shape, 1/A.
    length
        Structures much longer than this, in A, are removed.

    Returns
    -------
    Tensor
        1 - exp(-2 (f length)^2): 0 at the origin, 0.86 at a period of `length`.
    """
    return -torch.expm1(-2 * (frequency * length).square())


def local_mean(values: Tensor, *, radius: int) -> Tensor:
    """Mean over a window about each pixel: three box passes, close to a Gaussian.

    Parameters
    ----------
    values
        (..., y, x), real.
    radius
        Half side of each box, px; the standard deviation of the window is about `radius`. A wide
        window is worked out on a coarser grid and interpolated.

    Returns
    -------
    Tensor
        As `values`. The field counts as 0 beyond its rim: divide by the mean of a mask of ones.
    """
    if radius < 1:
        return values
    height, width = values.shape[-2:]
    stack = values.reshape(-1, 1, height, width)
    step = max(1, radius // _STEPS_PER_RADIUS)
    if step > 1:
        stack = functional.avg_pool2d(
            functional.pad(stack, (0, -width % step, 0, -height % step)), step
        )
    for _ in range(3):
        stack = _box(
            _box(stack, max(1, round(radius / step)), -1), max(1, round(radius / step)), -2
        )
    if step > 1:
        stack = functional.interpolate(stack, scale_factor=step, mode="bilinear")
    return stack[..., :height, :width].reshape(values.shape)


def _box(stack: Tensor, radius: int, axis: int) -> Tensor:
    length = stack.shape[axis]
    total = torch.cumsum(stack.double(), axis)
    total = torch.cat([torch.zeros_like(total.narrow(axis, 0, 1)), total], axis)
    index = torch.arange(length, device=stack.device)
    high = (index + radius + 1).clamp_max(length)
    low = (index - radius).clamp_min(0)
    window = total.index_select(axis, high) - total.index_select(axis, low)
    return (window / (2 * radius + 1)).to(stack.dtype)
