"""Boxes that run over the edge of the field, as programs fill them.

Beyond the edge there is a constant, the last row or column of the field repeated (RELION fills
a box so), or the mean of what is inside.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["cut_at_edges"]

_LOST = (0.2, 0.55)  # share of the box beyond an edge
_CORNERS = 0.2  # share of the boxes that lie in a corner of the field
_FILLINGS = ("constant", "repeat", "mean")
_LEVEL = 2.0  # rms of a constant, deviations of the noise


def cut_at_edges(
    images: Tensor, index: NDArray[np.int64], *, generator: np.random.Generator
) -> Tensor:
    """Fill a part of some images as if it lay beyond the edge of the field.

    Parameters
    ----------
    images
        (n, y, x), noise of variance 1 about 0.
    index
        (k,) the images that lie at an edge.
    generator
        Source of randomness.

    Returns
    -------
    Tensor
        (n, y, x); where `index` is empty `images` itself.
    """
    if not len(index):
        return images
    filled = images.clone()
    for image in index.tolist():
        in_corner = generator.random() < _CORNERS
        first = int(generator.integers(2))
        rows, columns = (
            _valid_range(images.shape[axis - 2], generator)
            if in_corner or axis == first
            else (0, images.shape[axis - 2])
            for axis in (0, 1)
        )
        filling = _FILLINGS[int(generator.integers(len(_FILLINGS)))]
        level = float(generator.normal(0, _LEVEL))
        filled[image] = _fill(images[image], rows, columns, filling, level)
    return filled


def _valid_range(length: int, generator: np.random.Generator) -> tuple[int, int]:
    """First row inside the field and first one after it."""
    lost = round(length * float(generator.uniform(*_LOST)))
    return (lost, length) if generator.random() < 0.5 else (0, length - lost)


def _fill(
    image: Tensor, rows: tuple[int, int], columns: tuple[int, int], filling: str, level: float
) -> Tensor:
    inside = image[slice(*rows), slice(*columns)]
    if filling == "repeat":
        y = torch.arange(image.shape[0], device=image.device).clamp(rows[0], rows[1] - 1)
        x = torch.arange(image.shape[1], device=image.device).clamp(columns[0], columns[1] - 1)
        return image[y[:, None], x]
    value = level if filling == "constant" else float(inside.mean())
    whole = torch.full_like(image, value)
    whole[slice(*rows), slice(*columns)] = inside
    return whole
