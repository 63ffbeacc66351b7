"""Make a micrograph ready for picking: small, clean, particles white, damaged parts known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cryopick.checks import require_shape
from cryopick.errors import DataError
from cryopick.image.fourier import fourier_resize, good_size
from cryopick.picking.field_masks import damaged_borders

__all__ = ["WorkingField", "prepare_field", "require_usable"]

_CLIP = 6.0  # robust standard deviations: hot pixels and dead columns must not ring
_SAMPLES = 1 << 18  # pixels that suffice for a median


class WorkingField(NamedTuple):
    """A micrograph shrunk for picking: its px = px here * scale + offset."""

    image: Tensor  # (y, x) float32: mean 0, standard deviation 1, particles white
    is_valid: Tensor  # (y, x) bool: False on damaged borders
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
    micrograph: Tensor, *, pixel_size: float, working_pixel_size: float, white_particles: bool
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
    center, spread = _robust_moments(micrograph)
    image = micrograph.to(torch.float32, copy=True)
    image.sub_(center).mul_(1 / spread).clamp_(-_CLIP, _CLIP)  # in place: memory is the limit
    borders = damaged_borders(image)
    bin_size = max(1, int(working_pixel_size / (2 * pixel_size)))
    if bin_size > 1:
        image = torch.nn.functional.avg_pool2d(image[None, None], bin_size)[0, 0]
    binned = tuple(image.shape)
    factor = max(1.0, working_pixel_size / (pixel_size * bin_size))
    shape = (_shrunk(binned[0], factor), _shrunk(binned[1], factor))
    if shape != binned:
        image = fourier_resize(image, shape=shape)
    scale = (bin_size * binned[0] / shape[0], bin_size * binned[1] / shape[1])
    is_valid = _inside(shape, borders, scale, image.device)
    inside = image[is_valid]
    image = torch.where(is_valid, (image - inside.mean()) / inside.std(), 0.0)
    return WorkingField(
        image if white_particles else -image,
        is_valid,
        pixel_size * (scale[0] * scale[1]) ** 0.5,
        scale,
        ((bin_size - 1) / 2, (bin_size - 1) / 2),
    )


def _robust_moments(micrograph: Tensor) -> tuple[Tensor, Tensor]:
    step = max(1, micrograph.numel() // _SAMPLES) | 1  # odd, so that it walks over all columns
    sample = micrograph.reshape(-1)[::step].to(torch.float32)
    center = sample.median()
    spread = 1.4826 * (sample - center).abs().median()
    if spread == 0:  # more than half of the pixels are equal
        spread = micrograph.to(torch.float32).std()
    return center, spread


def _shrunk(size: int, factor: float) -> int:
    if factor == 1.0:
        return size
    return min(good_size(round(size / factor)), size)


def _inside(
    shape: tuple[int, int],
    borders: tuple[int, int, int, int],
    scale: tuple[float, float],
    device: torch.device,
) -> Tensor:
    height, width = shape
    top, bottom, left, right = borders
    rows = torch.arange(height, device=device) * scale[0]
    columns = torch.arange(width, device=device) * scale[1]
    is_row = (rows >= top) & (rows < height * scale[0] - bottom)
    is_column = (columns >= left) & (columns < width * scale[1] - right)
    return is_row[:, None] & is_column[None, :]
