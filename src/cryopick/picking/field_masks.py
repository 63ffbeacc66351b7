"""Parts of a micrograph where no particle can be: damaged borders, ice blobs, carbon."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cryopick.image.fourier import frequency_grid

__all__ = ["contamination", "damaged_borders"]

_BORDER_SHARE = 8  # a border is at most one eighth of the field
_LINES = 128  # rows or columns that suffice to judge a border by
_FLAT, _WILD = 0.4, 3.0  # gradient across a damaged row, as a share of a sound row's
_BLUR = 0.25  # in smallest diameters, before areas are sought
_DEVIATION = 3.5  # robust standard deviations of a dark or bright area
_LARGER = 1.25  # largest diameters across an area that is no particle


class _Field(Protocol):
    """What a mask needs to know of a field."""

    @property
    def image(self) -> Tensor: ...
    @property
    def is_valid(self) -> Tensor: ...
    @property
    def pixel_size(self) -> float: ...


def damaged_borders(image: Tensor) -> tuple[int, int, int, int]:
    """Depth of the smeared, empty or wild rows and columns along each side.

    A camera edge, padding or a motion-corrected margin shows as rows whose difference from the
    next row is far smaller (repeated, smeared) or far larger than in the middle of the field.

    Parameters
    ----------
    image
        (y, x), real.

    Returns
    -------
    tuple of int
        Top, bottom, left, right, px; 0 where the side is sound.
    """
    rows = image[:, :: max(1, image.shape[1] // _LINES)]
    columns = image[:: max(1, image.shape[0] // _LINES)].T
    return _depth(rows), _depth(rows.flip(0)), _depth(columns), _depth(columns.flip(0))


def _depth(lines: Tensor) -> int:
    rows = lines.shape[0]
    reach = rows // _BORDER_SHARE
    if reach < 2:
        return 0
    near = (lines[1 : reach + 1] - lines[:reach]).abs().median(dim=1).values
    start, stop = rows // 4, 3 * rows // 4
    middle = lines[start:stop]
    typical = (middle[1:] - middle[:-1]).abs().median()
    is_bad = (near < _FLAT * typical) | (near > _WILD * typical)
    share = torch.cumsum(is_bad.float(), 0) / torch.arange(1, reach + 1, device=lines.device)
    deep = torch.nonzero(is_bad & (share >= 0.5))
    return int(deep.max()) + 2 if len(deep) else 0


def contamination(field: _Field, *, min_diameter: float, max_diameter: float) -> Tensor:
    """Mark ice, carbon and holes: dark or bright areas that hold a disc larger than a particle.

    Parameters
    ----------
    field
        A micrograph made ready for picking.
    min_diameter, max_diameter
        Of the particles, A.

    Returns
    -------
    Tensor
        (y, x) bool, True on contamination and within half of `min_diameter` of it.
    """
    image, is_valid = field.image, field.is_valid
    fy, fx = frequency_grid(
        (image.shape[0], image.shape[1]), pixel_size=field.pixel_size, device=image.device
    )
    blur = torch.exp(-2 * (torch.pi * _BLUR * min_diameter) ** 2 * (fy.square() + fx.square()))
    smooth = torch.fft.irfft2(torch.fft.rfft2(image) * blur, s=image.shape)
    deviation = _deviation(smooth, is_valid).cpu().numpy()
    valid = is_valid.cpu().numpy()
    reach = 0.5 * _LARGER * max_diameter / field.pixel_size
    gap = max(1, int(min_diameter / 8 / field.pixel_size))
    marked = np.zeros(valid.shape, bool)
    for side in (deviation, -deviation):
        marked |= _large_areas(np.where(valid, side, 0.0), reach=reach, gap=gap)
    if marked.any():
        margin = min_diameter / 2 / field.pixel_size
        marked = ndimage.distance_transform_edt(~marked) <= margin
    return torch.from_numpy(marked).to(image.device)


def _large_areas(deviation: NDArray[np.float64], *, reach: float, gap: int) -> NDArray[np.bool_]:
    """Keep connected areas in which a disc of radius `reach` fits, or would beyond the edge.

    The size of an area is judged at half its own height, where blurring moves no edge: a strong
    particle spreads beyond its rim but is not taken for something larger.
    """
    pad = int(np.ceil(2 * reach)) + gap
    wide = np.pad(deviation, pad, mode="edge")
    labels, count = ndimage.label(wide > _DEVIATION)
    if not count:
        return np.zeros(deviation.shape, bool)
    heights = np.concatenate([[np.inf], ndimage.maximum(wide, labels, np.arange(1, count + 1))])
    above_half = wide > np.maximum(_DEVIATION, heights[labels] / 2)
    closed = ndimage.binary_closing(above_half, iterations=gap)
    core = ndimage.distance_transform_edt(closed) > reach
    kept = np.unique(labels[core])
    return np.asarray(np.isin(labels, kept[kept > 0])[pad:-pad, pad:-pad])


def _deviation(smooth: Tensor, is_valid: Tensor) -> Tensor:
    """Robust z-score of a smoothed field after its slow shading (a quadratic) is removed."""
    height, width = smooth.shape
    y = torch.linspace(-1, 1, height, device=smooth.device)[:, None].expand(height, width)
    x = torch.linspace(-1, 1, width, device=smooth.device)[None].expand(height, width)
    terms = torch.stack([torch.ones_like(y), x, y, x * x, x * y, y * y], -1).reshape(-1, 6)
    values = smooth.reshape(-1)
    is_used = is_valid.reshape(-1)
    deviation = torch.zeros_like(values)
    for _ in range(4):
        used = terms[is_used]
        normal = used.T @ used + 1e-6 * torch.eye(6, device=smooth.device)
        weights = torch.linalg.solve(normal, used.T @ values[is_used])
        residual = values - terms @ weights
        middle = residual[is_used].median()
        spread = 1.4826 * (residual[is_used] - middle).abs().median().clamp_min(1e-20)
        deviation = (residual - middle) / spread
        is_used = is_valid.reshape(-1) & (deviation.abs() < 2.5)
    return deviation.reshape(height, width)
