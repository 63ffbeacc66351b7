"""Bring particle images to one grey scale: background mean 0, standard deviation 1.

The background is what lies outside a circle around the image centre. Its least-squares plane is
found for all images at once from sums over their rows and columns; the normal matrix of the fit
is made once for a box size.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryopick.checks import require_shape
from cryopick.errors import DataError, ParameterError
from cryopick.image.masks import circle_mask

__all__ = ["Background", "make_background", "normalize_images", "replace_dust"]

_FLAT = 1e-10  # a background whose standard deviation is below this has no contrast
_STEEP = 30  # standard deviations; rounding of a plane this high would show in float32
_PIXELS_AT_ONCE = 1 << 18  # 1 MB of float32: what a core keeps near itself


@dataclass(frozen=True)
class Background:
    """The background of square images of one size, and what a fit to it needs."""

    size: int
    has_ramp: bool  # whether a plane is fitted, or only a constant
    mask: Tensor  # (size, size) 1 on the background, 0 inside the circle
    steps: Tensor  # (size,) coordinate of rows and columns, about -0.5 to 0.5
    inverse: Tensor  # (k, k) float64, inverse of the normal matrix of 1, x, y on the background
    n_pixels: int  # on the background

    def to(self, dtype: torch.dtype) -> Background:
        """Convert to another floating-point type."""
        return replace(self, mask=self.mask.to(dtype), steps=self.steps.to(dtype))


@functools.lru_cache(maxsize=8)
def make_background(
    size: int,
    *,
    radius: float,
    has_ramp: bool = True,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Background:
    """Prepare the fit of a constant or a plane to the background.

    Parameters
    ----------
    size
        Side of the images, px.
    radius
        px; pixels further than this from the centre ``size // 2`` are background.
    has_ramp
        Fit a plane; otherwise only a constant.
    device, dtype
        Of the images to come.

    Returns
    -------
    Background
        Kept, so that a second call with the same arguments costs nothing.

    Raises
    ------
    ParameterError
        If the circle leaves too few pixels for the fit.
    """
    outside = ~circle_mask(size, radius=radius, device=device)
    steps = (torch.arange(size, device=device, dtype=torch.float64) - size // 2) / size
    one = torch.ones(size, size, device=device, dtype=torch.float64)
    functions = [one, one * steps[None, :], one * steps[:, None]] if has_ramp else [one]
    design = torch.stack([function[outside] for function in functions])
    if design.shape[1] <= len(functions):
        raise ParameterError(
            "background_diameter",
            must="leave background around the circle",
            got=f"{2 * radius:g} px in a box of {size} px",
            remedy="Give a smaller circle or a larger box",
        )
    return Background(
        size=size,
        has_ramp=has_ramp,
        mask=outside.to(dtype),
        steps=steps.to(dtype),
        inverse=torch.linalg.inv(design @ design.T),
        n_pixels=design.shape[1],
    )


def normalize_images(
    images: Tensor,
    background: Background,
    *,
    invert_contrast: bool = False,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Subtract the fit to the background and divide by its standard deviation.

    Parameters
    ----------
    images
        (n, y, x) of the size, dtype and device of `background`.
    background
        Made by `make_background`.
    invert_contrast
        Change the sign of the result.
    out
        Where the result goes, of the shape of `images` and possibly `images` itself; new memory
        where it is left out.

    Returns
    -------
    images
        (n, y, x).
    is_flat
        (n,) bool, True where the background has no contrast; such an image is all zero.

    Raises
    ------
    ShapeError
        If the images have another size.
    DataError
        If a pixel is NaN or infinite.

    Notes
    -----
    The steps, the circle and the population standard deviation are those of
    ``relion_preprocess --norm``; the sums are over one image at a time, so neither order nor
    number of images changes a result beyond rounding.
    """
    size = background.size
    require_shape(images, f"n {size} {size}", name="images")
    result = torch.empty_like(images) if out is None else out
    deviation = images.new_empty(len(images))
    step = max(1, _PIXELS_AT_ONCE // size**2)
    for start in range(0, len(images), step):
        few = slice(start, start + step)
        level, deviation[few] = _subtract_fit(images[few], background)
        factor = torch.where(deviation[few] < _FLAT, 0.0, 1 / deviation[few])
        factor = -factor if invert_contrast else factor
        torch.mul(level, factor[:, None, None], out=result[few])
    if not bool(torch.isfinite(deviation).all()):
        raise DataError(
            "particle images",
            must="be finite numbers",
            got="NaN or infinity",
            remedy="Repair the micrograph",
        )
    return result, deviation < _FLAT


def _subtract_fit(images: Tensor, background: Background) -> tuple[Tensor, Tensor]:
    """Residual of the fit (n, y, x), and its standard deviation on the background (n,).

    Sums over rows and over columns give the plane in two passes and, being pairwise, keep the
    precision of float32 that one long dot product loses.
    """
    masked = images * background.mask
    rows, columns = masked.sum(dim=2), masked.sum(dim=1)
    steps = background.steps
    sums = [rows.sum(dim=1), columns @ steps, rows @ steps][: len(background.inverse)]
    plane = torch.stack(sums, dim=1).double() @ background.inverse
    along_x = along_y = plane[:, :1]
    if background.has_ramp:
        along_x, along_y = plane[:, 1:2] * steps, plane[:, :1] + plane[:, 2:] * steps
        level = images - along_y[:, :, None].to(images.dtype)
        level -= along_x[:, None, :].to(images.dtype)
    else:
        level = images - along_y[:, :, None].to(images.dtype)
    energy = level.square().mul_(background.mask).sum(dim=(1, 2))
    deviation = (energy / background.n_pixels).sqrt()
    height = torch.maximum(along_x.abs().amax(dim=1), along_y.abs().amax(dim=1))
    if images.dtype != torch.float64 and bool((height > _STEEP * deviation).any()):
        exact, wide = _subtract_fit(images.double(), background.to(torch.float64))
        return exact.to(images.dtype), wide.to(images.dtype)
    return level, deviation


def replace_dust(
    images: Tensor, background: Background, *, white: float, black: float, seeds: Tensor
) -> Tensor:
    """Replace outlying pixels by noise of the background's mean and standard deviation.

    Parameters
    ----------
    images
        (n, y, x) of the size, dtype and device of `background`.
    background
        Made by `make_background`.
    white, black
        Pixels more than this many standard deviations above (below) the mean of the background
        are replaced; 0 or less leaves that side alone.
    seeds
        (n,) int64: the noise of an image depends on its seed and on nothing else.

    Returns
    -------
    Tensor
        (n, y, x), new.

    Raises
    ------
    ShapeError
        If an array has another size.
    """
    size = background.size
    require_shape(images, f"n {size} {size}", name="images")
    require_shape(seeds, str(len(images)), name="seeds")
    flat, mask = images.reshape(-1, size * size), background.mask.reshape(-1)
    mean = (flat * mask).sum(dim=1, keepdim=True) / background.n_pixels
    energy = (flat - mean).square().mul_(mask).sum(dim=1, keepdim=True)
    deviation = (energy / background.n_pixels).sqrt()
    is_dust = torch.zeros_like(flat, dtype=torch.bool)
    if white > 0:
        is_dust |= flat > mean + white * deviation
    if black > 0:
        is_dust |= flat < mean - black * deviation
    image, pixel = is_dust.nonzero(as_tuple=True)
    noise = _normal_draws(seeds[image], pixel).to(flat.dtype)
    cleaned = flat.clone()
    cleaned[image, pixel] = mean[image, 0] + deviation[image, 0] * noise
    return cleaned.reshape(images.shape)


def _normal_draws(seeds: Tensor, counters: Tensor) -> Tensor:
    """Draw standard normal numbers, each a function of its seed and counter (Box-Muller)."""
    first = _mix(_mix(seeds) ^ (2 * counters))
    second = _mix(_mix(seeds) ^ (2 * counters + 1))
    uniform = ((first >> 11) & ((1 << 52) - 1)).double().add(0.5) / (1 << 52)
    turn = ((second >> 11) & ((1 << 52) - 1)).double() / (1 << 52)
    return torch.sqrt(-2 * torch.log(uniform)) * torch.cos(2 * math.pi * turn)


def _mix(words: Tensor) -> Tensor:
    """Scramble 64-bit words (the finaliser of SplitMix64, Steele et al. 2014)."""
    words = words + _signed(0x9E3779B97F4A7C15)
    words = (words ^ _shift_right(words, 30)) * _signed(0xBF58476D1CE4E5B9)
    words = (words ^ _shift_right(words, 27)) * _signed(0x94D049BB133111EB)
    return words ^ _shift_right(words, 31)


def _shift_right(words: Tensor, bits: int) -> Tensor:
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word
