"""Parts of a micrograph where no particle can be: damaged borders, ice blobs, carbon."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from cryopick.image.fourier import frequency_grid
from cryopick.image.robust import middle_and_spread
from cryopick.image.surface import fit_surface

__all__ = ["contamination", "damaged_borders"]

_BORDER_SHARE = 8  # a border is at most one eighth of the field
_LINES = 128  # rows or columns that suffice to judge a border by
_SPARSE = 4  # of the rows in the middle, one in so many shows what is typical
_FLAT, _WILD = 0.4, 3.0  # gradient across a damaged row, as a share of a sound row's
_BLUR = 0.25  # in smallest diameters, before areas are sought
_DEVIATION = 3.5  # robust standard deviations of a dark or bright area
_BINS = 128  # grey levels told apart
_TWO_LEVELS = 6.0  # widths of a level between it and the other; an even ramp gives 3.5
_LARGER = 1.25  # largest diameters across an area that is no particle


class _Field(Protocol):
    """What a mask needs to know of a field."""

    @property
    def image(self) -> Tensor: ...
    @property
    def is_inside(self) -> Tensor: ...
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
    typical = (middle[1::_SPARSE] - middle[:-1:_SPARSE]).abs().median()
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
    image, is_valid = field.image, field.is_valid | ~field.is_inside
    smooth = _blurred(image, width=_BLUR * min_diameter / field.pixel_size)
    valid = is_valid.cpu().numpy()
    reach = 0.5 * _LARGER * max_diameter / field.pixel_size
    gap = max(1, int(min_diameter / 8 / field.pixel_size))
    film = _support_film(smooth.cpu().numpy(), valid)
    marked = _large_areas(np.where(film, 2 * _DEVIATION, 0.0), reach=reach, gap=gap)
    valid = valid & ~marked
    deviation = _deviation(smooth, torch.from_numpy(valid).to(image.device)).cpu().numpy()
    for side in (deviation, -deviation):
        marked |= _large_areas(np.where(valid, side, 0.0), reach=reach, gap=gap)
    if marked.any():
        margin = min_diameter / 2 / field.pixel_size
        marked = ndimage.distance_transform_edt(~marked) <= margin
    return torch.from_numpy(marked).to(image.device)


def _blurred(image: Tensor, *, width: float) -> Tensor:
    """Convolve with a Gaussian; beyond its rim the field goes on as its mirror image."""
    pad = min(math.ceil(3 * width), min(image.shape) - 1)
    wide = functional.pad(image[None, None], (pad,) * 4, mode="reflect")[0, 0]
    shape = (wide.shape[0], wide.shape[1])
    fy, fx = frequency_grid(shape, device=image.device)
    transfer = torch.exp(-2 * (math.pi * width) ** 2 * (fy.square() + fx.square()))
    smooth: Tensor = torch.fft.irfft2(torch.fft.rfft2(wide) * transfer, s=shape)
    return smooth[pad : pad + image.shape[0], pad : pad + image.shape[1]].contiguous()


def _support_film(smooth: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the darker side (white here) of a field that falls into two levels of grey.

    The levels are split where the variance between them is largest (Otsu, IEEE Trans. Syst. Man
    Cybern. 9 (1979) 62) and count only if they lie much further apart than each is wide.
    """
    values = smooth[valid]
    if values.size < _BINS:
        return np.zeros(valid.shape, bool)
    low, high = np.percentile(values, [0.5, 99.5])
    counts, edges = np.histogram(values, bins=_BINS, range=(low, max(high, low + 1e-6)))
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    first = np.cumsum(counts * middle)
    gap = first / np.maximum(below, 1) - (first[-1] - first) / np.maximum(above, 1)
    cut = float(edges[1:][np.argmax(below * above * gap**2)])
    dark, light = values[values > cut], values[values <= cut]
    if not dark.size or not light.size:
        return np.zeros(valid.shape, bool)
    widths = [1.4826 * np.median(np.abs(v - np.median(v))) for v in (dark, light)]
    distance = np.median(dark) - np.median(light)
    if distance < _TWO_LEVELS * np.sqrt(np.mean(np.square(widths))):
        return np.zeros(valid.shape, bool)
    return np.asarray((smooth > cut) & valid)


def _large_areas(deviation: NDArray[np.float64], *, reach: float, gap: int) -> NDArray[np.bool_]:
    """Keep connected areas in which a disc of radius `reach` fits; the edge is a mirror.

    The size of an area is judged at half its own height, where blurring moves no edge: a strong
    particle spreads beyond its rim but is not taken for something larger.
    """
    pad = int(np.ceil(2 * reach)) + gap
    wide = np.pad(deviation, pad, mode="symmetric")
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
    """Robust z-score of a smoothed field after its slow shading is removed."""
    residual = smooth - fit_surface(smooth, is_valid)
    inside = residual[is_valid]
    if not len(inside):
        return torch.zeros_like(residual)
    middle, spread = middle_and_spread(inside)
    return (residual - middle) / spread.clamp_min(1e-20)
