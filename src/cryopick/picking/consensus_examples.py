"""Boxed particles as a field that the network sees, so that it can learn from them or score them.

Boxes are laid side by side. Only the middle of each is known; nothing is said of the rest.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cryopick.checks import require_shape
from cryopick.image.fourier import fourier_resize
from cryopick.image.robust import middle_and_spread
from cryopick.picking.network import PARTICLE
from cryopick.picking.network_training import TrainingField

__all__ = ["LEAST_BOX", "BoxSheet", "as_training_field", "lay_out_boxes"]

LEAST_BOX = 1.2  # diameters: less does not show the particle and what is around it
_MOST_BOX = 48  # px: two diameters
_SIDE = 320  # px of a sheet
_CLIP = 6.0  # deviations, as fields are clipped
_BACKGROUND = 0.5  # diameters from the middle on
_KNOWN = 0.24  # diameters about the middle, along the axes; nearer than where nothing is said

Points = NDArray[np.float64]


class BoxSheet(NamedTuple):
    """Boxes side by side."""

    image: Tensor  # (y, x) float32, particles white, PARTICLE px to a diameter; 0 without a box
    is_valid: Tensor  # (y, x) bool
    centres: Points  # (n, 2) y and x, px


def lay_out_boxes(images: Tensor, *, pixel_size: float, diameter: float) -> list[BoxSheet]:
    """Bring boxes to the pixels and the grey scale of the network and lay them side by side.

    Parameters
    ----------
    images
        (n, b, b) real, particles white; b at least 1.2 diameters. n may be zero.
    pixel_size
        A/px.
    diameter
        Of the particle, A.

    Returns
    -------
    list of BoxSheet
        As many as are needed, in the order of the boxes. The background of each box, what is
        farther than half a diameter from its middle, has median 0 and robust deviation 1.

    Raises
    ------
    ShapeError
        If `images` has not three axes.
    """
    require_shape(images, "n y x", name="images")
    side = max(2, 2 * round(images.shape[-1] * pixel_size * PARTICLE / diameter / 2))
    boxes = _cut(_levelled(fourier_resize(images.float(), shape=(side, side))))
    cell = boxes.shape[-1]
    per_row = max(1, _SIDE // cell)
    sheets = []
    for some in torch.split(boxes, per_row**2):
        image = torch.zeros(per_row * cell, per_row * cell)
        is_valid = torch.zeros(per_row * cell, per_row * cell, dtype=torch.bool)
        centres = []
        for number, box in enumerate(some):
            row, column = cell * (number // per_row), cell * (number % per_row)
            image[row : row + cell, column : column + cell] = box
            is_valid[row : row + cell, column : column + cell] = True
            centres.append((row + cell // 2, column + cell // 2))
        sheets.append(BoxSheet(image, is_valid, np.array(centres, np.float64)))
    return sheets


def as_training_field(sheet: BoxSheet, *, is_particle: bool) -> TrainingField:
    """Say of all boxes of a sheet what they hold.

    Parameters
    ----------
    sheet
        Of boxes.
    is_particle
        Whether particles, or what is none.
    """
    nothing = np.empty((0, 2))
    return TrainingField(
        image=sheet.image,
        is_valid=sheet.is_valid,
        is_known=_near_centres(sheet),
        particles=sheet.centres if is_particle else nothing,
        rejected=nothing if is_particle else sheet.centres,
        ignored=nothing,
    )


def _levelled(boxes: Tensor) -> Tensor:
    """Bring the background of each box to median 0 and robust deviation 1."""
    if not len(boxes):
        return boxes
    steps = torch.arange(boxes.shape[-1]) - boxes.shape[-1] // 2
    away = torch.hypot(steps[:, None].float(), steps[None, :].float())
    outside = boxes[:, away > _BACKGROUND * PARTICLE]
    middle, spread = (value[:, None, None] for value in middle_and_spread(outside, dim=1))
    return ((boxes - middle) / spread.clamp_min(1e-6)).clamp(-_CLIP, _CLIP)


def _cut(boxes: Tensor) -> Tensor:
    """Leave two diameters at most; the middle stays in the middle."""
    spare = boxes.shape[-1] // 2 - min(boxes.shape[-1], _MOST_BOX) // 2
    size = min(boxes.shape[-1], _MOST_BOX)
    return boxes[:, spare : spare + size, spare : spare + size]


def _near_centres(sheet: BoxSheet) -> Tensor:
    """Where a sheet is near to the middle of a box, (y, x) bool."""
    dots = torch.zeros(1, 1, *sheet.image.shape)
    rows, columns = sheet.centres.astype(np.int64).T
    dots[0, 0, rows, columns] = 1.0
    radius = int(_KNOWN * PARTICLE)
    grown = functional.max_pool2d(dots, 2 * radius + 1, stride=1, padding=radius)
    return grown[0, 0] > 0
