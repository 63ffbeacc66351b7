"""Make a micrograph ready for picking: small, clean, particles white, damaged parts known."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from cryopick.checks import require_shape
from cryopick.errors import DataError
from cryopick.image.fourier import fourier_resize, good_size
from cryopick.image.robust import middle_and_spread
from cryopick.picking.field_masks import damaged_borders

__all__ = ["WorkingField", "prepare_field", "require_usable", "robust_moments"]

_CLIP = 6.0  # robust standard deviations: hot pixels and dead columns must not ring
_MARGIN = 8  # working px of mirrored field around it
_SAMPLES = 1 << 16  # pixels that suffice for a median


class WorkingField(NamedTuple):
    """A micrograph brought to a size for picking: its px = px here * scale + offset.

    A margin of mirrored pixels is around it: shrinking meets no jump at the edges, and areas are
    judged beyond them. It is not valid, and filters see it filled with its surroundings.
    """

    image: Tensor  # (y, x) float32: mean 0, standard deviation 1, particles white
    is_inside: Tensor  # (y, x) bool: False on the margin
    is_valid: Tensor  # (y, x) bool: False on the margin and on damaged borders
    pixel_size: float  # A/px
    scale: tuple[float, float]  # (y, x) micrograph px per working px
    offset: tuple[float, float]  # (y, x) micrograph px


def require_usable(micrograph: Tensor, *, name: str = "micrograph") -> None:
    """Refuse a field without information.

    Raises
    ------
    DataError
        If a value is not finite or all values are equal.
    """
    low, high = torch.aminmax(micrograph)
    if not (torch.isfinite(low) and torch.isfinite(high)):
        broken = int((~torch.isfinite(micrograph)).sum())
        raise DataError(
            name,
            must="have finite pixel values",
            got=f"{broken:,} that are NaN or infinite",
            remedy="Run motion correction again, or leave the micrograph out",
        )
    if low == high:
        raise DataError(
            name,
            must="have contrast",
            got=f"the value {float(low):g} in every pixel",
            remedy="Leave the micrograph out",
        )


def prepare_field(
    micrograph: Tensor,
    *,
    pixel_size: float,
    working_pixel_size: float,
    white_particles: bool,
    enlarge: bool = False,
) -> WorkingField:
    """Clip outliers, shrink, normalise and find damaged borders.

    Parameters
    ----------
    micrograph
        (y, x), real.
    pixel_size
        A/px of `micrograph`.
    working_pixel_size
        A/px to shrink to; a micrograph that is coarser stays as it is.
    white_particles
        Whether particles are already white; else the contrast is inverted.
    enlarge
        Bring a coarser micrograph to the working pixel size, too.

    Returns
    -------
    WorkingField
        On the device of `micrograph`, float32.

    Raises
    ------
    DataError
        If a pixel is not finite or the field is constant.
    ShapeError
        If `micrograph` has not two axes.
    """
    require_shape(micrograph, "y x", name="micrograph")
    require_usable(micrograph)
    center, spread = robust_moments(micrograph)
    if spread == 0:
        spread = micrograph.to(torch.float32).std()
    image = micrograph.to(torch.float32, copy=True)
    image.sub_(center).mul_(1 / spread).clamp_(-_CLIP, _CLIP)  # in place: memory is the limit
    borders = damaged_borders(image)
    bin_size = max(1, int(working_pixel_size / (2 * pixel_size)))
    if bin_size > 1:
        image = functional.avg_pool2d(image[None, None], bin_size)[0, 0]
    factor = working_pixel_size / (pixel_size * bin_size)
    factor = factor if enlarge else max(1.0, factor)
    margin = min(math.ceil(_MARGIN * max(1.0, factor)), min(image.shape) - 1)
    image = functional.pad(image[None, None], (margin,) * 4, mode="reflect")[0, 0]
    padded = (image.shape[0], image.shape[1])
    shape = (_shrunk(padded[0], factor), _shrunk(padded[1], factor))
    if shape != padded:
        image = fourier_resize(image, shape=shape)
    scale = (bin_size * padded[0] / shape[0], bin_size * padded[1] / shape[1])
    offset = (bin_size - 1) / 2 - margin * bin_size
    rows = torch.arange(shape[0], device=image.device) * scale[0] + offset
    columns = torch.arange(shape[1], device=image.device) * scale[1] + offset
    height, width = micrograph.shape
    is_inside = _within(rows, 0, height, columns, 0, width)
    top, bottom, left, right = borders
    is_valid = _within(rows, top, height - bottom, columns, left, width - right)
    sound = image[is_valid]
    if sound.numel() < 2 or not 0 < float(sound.std()) < math.inf:
        raise DataError(
            "micrograph",
            must="have contrast inside its damaged borders",
            got=f"{sound.numel():,} sound pixels without any",
            remedy="Leave the micrograph out",
        )
    image = (image - sound.mean()) / sound.std()
    image = torch.where(is_valid | ~is_inside, image, 0.0)
    return WorkingField(
        image if white_particles else -image,
        is_inside,
        is_valid,
        pixel_size * (scale[0] * scale[1]) ** 0.5,
        scale,
        (offset, offset),
    )


def robust_moments(micrograph: Tensor) -> tuple[Tensor, Tensor]:
    """Median of a field (y, x), and its robust standard deviation, from a sample of its pixels.

    The deviation is 0 where more than half of the pixels are equal.
    """
    step = max(1, micrograph.numel() // _SAMPLES) | 1  # odd, so that it walks over all columns
    sample = micrograph.reshape(-1)[::step].to(torch.float32)
    return middle_and_spread(sample)


def _shrunk(size: int, factor: float) -> int:
    if factor == 1.0:
        return size
    wanted = good_size(round(size / factor))
    return min(wanted, size) if factor > 1 else max(wanted, size)


def _within(
    rows: Tensor, top: float, bottom: float, columns: Tensor, left: float, right: float
) -> Tensor:
    is_row = (rows >= top - 0.5) & (rows < bottom - 0.5)
    is_column = (columns >= left - 0.5) & (columns < right - 0.5)
    return is_row[:, None] & is_column[None, :]
