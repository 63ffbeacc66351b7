"""Images on their way to the alignment: cut to the mask, shrunk to the resolution, centred."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.em_state import ImageSource
from cryopick.image.fourier import fourier_resize
from cryopick.image.masks import soft_mask

__all__ = ["Geometry", "WorkingImages", "plan_geometry", "recentre"]

_FINER = 1.05  # the working Nyquist frequency lies this much beyond the limit
_LEAST_BACKGROUND = 0.05  # of the pixels outside the mask, to take the background from


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Sizes of the images and of the mask."""

    box_size: int  # px of the images read
    cut_size: int  # px, cut out of them
    working_size: int  # px, after shrinking
    pixel_size: float  # A/px of the images read
    mask_diameter: float  # A
    mask_edge: float  # A

    @property
    def working_pixel(self) -> float:
        """A/px after shrinking."""
        return self.pixel_size * self.cut_size / self.working_size

    @property
    def box(self) -> float:
        """Side of the images in A, before and after shrinking."""
        return self.pixel_size * self.cut_size


def plan_geometry(
    *,
    box_size: int,
    pixel_size: float,
    mask_diameter: float,
    mask_edge: float,
    offset_range: float,
    resolution: float,
) -> Geometry:
    """Choose how much of the box to keep and how far to shrink it; lengths in A."""
    needed = (mask_diameter + 2 * mask_edge + 2 * offset_range) / pixel_size
    cut = min(box_size // 2 * 2, 2 * math.ceil(needed / 2))
    side = cut * pixel_size
    working = min(cut, 2 * math.ceil(side / (resolution / 2) * _FINER / 2))
    return Geometry(
        box_size=box_size,
        cut_size=cut,
        working_size=working,
        pixel_size=pixel_size,
        mask_diameter=mask_diameter,
        mask_edge=mask_edge,
    )


@dataclass
class WorkingImages:
    """Working images of a source; kept in memory if they fit, made again if not."""

    source: ImageSource
    geometry: Geometry
    keep_bytes: int = 0
    _kept: Tensor | None = field(default=None, init=False)
    _is_kept: NDArray[np.bool_] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        size = self.geometry.working_size
        if len(self.source) * size * size * 4 <= self.keep_bytes:
            self._kept = torch.empty(len(self.source), size, size)
            self._is_kept = np.zeros(len(self.source), bool)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Working images (m, s, s) of some particles, float32 on the CPU."""
        if self._kept is None or self._is_kept is None:
            return self.prepare(self.source.read(indices))
        if not self._is_kept[indices].all():
            self._kept[indices] = self.prepare(self.source.read(indices))
            self._is_kept[indices] = True
        return self._kept[indices]

    def prepare(self, images: Tensor) -> Tensor:
        """Take the background's mean away, cut and shrink (m, y, x)."""
        g = self.geometry
        flat = images - self._background(images)[:, None, None]
        margin = g.box_size // 2 - g.cut_size // 2
        cut = flat[:, margin : margin + g.cut_size, margin : margin + g.cut_size]
        return fourier_resize(cut.contiguous(), shape=(g.working_size, g.working_size))

    def _background(self, images: Tensor) -> Tensor:
        g = self.geometry
        axis = (torch.arange(g.box_size) - g.box_size // 2) * g.pixel_size
        outside = torch.hypot(axis[:, None], axis) > g.mask_diameter / 2
        if float(outside.float().mean()) < _LEAST_BACKGROUND:
            return images.mean((1, 2))
        return images[:, outside].mean(1)


def recentre(images: Tensor, shift: Tensor) -> Tensor:
    """Move images by whole pixels; what comes in from outside is 0.

    Parameters
    ----------
    images
        (n, s, s).
    shift
        (n, 2) int64, px: x and y.
    """
    n, size, _ = images.shape
    axis = torch.arange(size, device=images.device)
    rows, columns = axis - shift[:, 1:], axis - shift[:, :1]
    flat = (rows.clamp(0, size - 1)[:, :, None] * size + columns.clamp(0, size - 1)[:, None]).view(
        n, -1
    )
    inside = ((rows >= 0) & (rows < size))[:, :, None] & ((columns >= 0) & (columns < size))[
        :, None
    ]
    return images.view(n, -1).gather(1, flat).view(n, size, size) * inside


def fill_with_noise(images: Tensor, geometry: Geometry, generator: torch.Generator) -> Tensor:
    """Put white noise of each image's own deviation outside the mask."""
    size = images.shape[-1]
    axis = (torch.arange(size) - size // 2) * geometry.working_pixel
    radius = torch.hypot(axis[:, None], axis)
    mask = soft_mask(radius, diameter=geometry.mask_diameter, edge=geometry.mask_edge)
    mask = mask.to(images.device)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return images * mask + noise * images.std((1, 2), keepdim=True) * (1 - mask)
