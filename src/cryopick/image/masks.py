"""Round regions of square images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryopick.checks import require_above

__all__ = ["circle_mask", "gaussian_mask", "soft_mask"]


def circle_mask(
    size: int,
    *,
    radius: float,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Mark the pixels of a square image that lie in a circle around its centre.

    Parameters
    ----------
    size
        Side of the image, px; its centre is pixel ``size // 2``.
    radius
        px; a pixel exactly on the circle is inside.
    device
        Of the result.

    Returns
    -------
    Tensor
        (size, size) bool.

    Raises
    ------
    ParameterError
        If `size` is not above 0.

    Examples
    --------
    >>> circle_mask(4, radius=1.0).int()
    tensor([[0, 0, 0, 0],
            [0, 0, 1, 0],
            [0, 1, 1, 1],
            [0, 0, 1, 0]], dtype=torch.int32)
    """
    require_above(size, 0, name="size", unit="px")
    steps = torch.arange(size, device=device) - size // 2
    distance2 = steps[:, None] ** 2 + steps[None, :] ** 2
    mask: Tensor = distance2 <= radius * radius
    return mask


def soft_mask(radius: Tensor, *, diameter: float, edge: float) -> Tensor:
    """Fall from 1 inside `diameter` to 0 at `edge` beyond it, as a raised cosine.

    Parameters
    ----------
    radius
        Distance of each sample from the centre, any shape.
    diameter
        Of the flat part, in the unit of `radius`.
    edge
        Width of the fall in that unit, above 0.
    """
    outside = ((radius - diameter / 2) / edge).clamp(0, 1)
    return 0.5 + 0.5 * torch.cos(math.pi * outside)


def gaussian_mask(radius: Tensor, *, sigma: float) -> Tensor:
    """Fall from 1 at the centre as a Gaussian; `sigma` in the unit of `radius`, inf for none."""
    return torch.exp(-((radius / sigma) ** 2) / 2)
