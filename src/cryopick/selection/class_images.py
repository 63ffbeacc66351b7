"""Class averages as pictures of one size, whatever their box, pixel size and program.

A picture shows the circle of the mask with a little around it, at `IMAGE_SIZE` pixels a side, so
that a class looks the same at any pixel size. What is between the particle and the mask's edge is
brought to 0 and the deviation inside the mask to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryopick.checks import require_shape
from cryopick.selection.class_scores import IMAGE_SIZE

__all__ = ["MASK_RADIUS", "ClassPictures", "find_mask_radius", "make_pictures"]

MASK_RADIUS = 29.0  # px of a picture
_UNMASKED = 0.48  # of the box: where there is no mask
_OUTSIDE = 0.005  # of the deviation: less than this is outside a mask
_EDGE = 5  # px: how far masks fall off, as RELION and `class2d em` have it
_AT_ONCE = 32  # averages
_RIM = (0.82, 0.96)  # of the mask's radius: there is solvent
_LARGEST = 12.0  # deviations


@dataclass(frozen=True, kw_only=True)
class ClassPictures:
    """Averages as they are scored."""

    pixels: Tensor  # (k, IMAGE_SIZE, IMAGE_SIZE) float32; rim mean 0, deviation in the mask 1
    deviation: Tensor  # (k,) float64, of the average inside its mask; 0 for an empty one
    mask_radius: float  # px of the averages


def find_mask_radius(averages: Tensor) -> float:
    """Find the radius of the mask that averages were multiplied with.

    Parameters
    ----------
    averages
        (k, n, n).

    Returns
    -------
    float
        px; 0.48 n where nothing is masked. Outside the mask no average deviates from its corners
        by more than 0.5 % of its deviation. That is the end of the edge, about 5 px wide, that
        programs add to the radius they are told, and so it is taken off again.
    """
    require_shape(averages, "k n n", name="averages")
    size = averages.shape[-1]
    profile = _deviation_profile(averages)
    inside = torch.nonzero(profile > _OUTSIDE)
    outermost = int(inside.max()) if len(inside) else size
    if outermost >= _UNMASKED * size:
        return _UNMASKED * size
    return max(outermost + 0.5 - _EDGE, 0.2 * size)


def _deviation_profile(averages: Tensor) -> Tensor:
    """Deviation from the corners at each radius, in deviations of the average, float64."""
    size = averages.shape[-1]
    power = torch.zeros(size, size, dtype=torch.float64, device=averages.device)
    count = 0
    for some in torch.split(averages, _AT_ONCE):  # memory is that of some averages
        values = some.double()
        scale = values.std(dim=(1, 2))
        used = scale > 0
        excess = (values - values[:, :1, :1])[used] / scale[used, None, None]
        power += excess.square().sum(0)
        count += int(used.sum())
    steps = torch.arange(size, device=averages.device) - size // 2
    ring = torch.hypot(steps[:, None].double(), steps[None, :].double()).round().long().flatten()
    total = torch.bincount(ring, power.flatten() / max(count, 1))
    return (total / torch.bincount(ring).clamp(min=1)).sqrt()


def make_pictures(averages: Tensor, *, mask_radius: float | None = None) -> ClassPictures:
    """Bring averages to pictures of one size and contrast.

    Parameters
    ----------
    averages
        (k, n, n), particles white.
    mask_radius
        px; found from the averages if not given.

    Returns
    -------
    ClassPictures
        An average that is constant becomes 0.

    Raises
    ------
    ShapeError
        If the averages are not square.
    """
    require_shape(averages, "k n n", name="averages")
    size = averages.shape[-1]
    radius = find_mask_radius(averages) if mask_radius is None else mask_radius
    radius = min(radius, _UNMASKED * size)
    matrix = _interpolation(size, radius / MASK_RADIUS).to(averages.device)
    made = [_picture(some.double(), matrix) for some in torch.split(averages, _AT_ONCE)]
    return ClassPictures(
        pixels=torch.cat([pixels for pixels, _ in made]),
        deviation=torch.cat([deviation for _, deviation in made]),
        mask_radius=radius,
    )


def _picture(averages: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (k, IMAGE_SIZE, IMAGE_SIZE) of averages, and their deviation before it was 1."""
    pixels = matrix @ averages @ matrix.T
    steps = torch.arange(IMAGE_SIZE, device=averages.device, dtype=torch.float64) - IMAGE_SIZE // 2
    distance = torch.hypot(steps[:, None], steps[None, :]) / MASK_RADIUS
    rim = (distance > _RIM[0]) & (distance < _RIM[1])
    within = distance < _RIM[1]
    pixels = (pixels - pixels[:, rim].mean(1)[:, None, None]) * _soft_edge(distance)
    deviation = pixels[:, within].square().mean(1).sqrt()
    is_empty = deviation <= 1e-6 * averages.abs().amax(dim=(1, 2)).clamp(min=1e-30)
    scale = torch.where(is_empty, torch.inf, deviation)
    pixels = (pixels / scale[:, None, None]).clamp(-_LARGEST, _LARGEST)
    return pixels.float(), torch.where(is_empty, 0.0, deviation)


def _soft_edge(distance: Tensor) -> Tensor:
    """1 inside the mask, 0 where other masks have nothing; radius in units of the mask's."""
    return (0.5 * (1 + torch.cos(math.pi * (distance - 0.97) / 0.06))).where(
        distance > 0.97, torch.ones_like(distance)
    ) * (distance < 1.03)


def _interpolation(size: int, step: float) -> Tensor:
    """Rows that take `IMAGE_SIZE` band-limited samples, `step` px apart, of a line of `size` px.

    The sum over frequencies up to the Nyquist frequency of the coarser grid; 0 beyond the line.
    """
    places = (torch.arange(IMAGE_SIZE, dtype=torch.float64) - IMAGE_SIZE // 2) * step
    offsets = places[:, None] - (torch.arange(size, dtype=torch.float64) - size // 2)[None, :]
    highest = min((size - 1) // 2, math.floor(size / (2 * max(step, 1.0)) - 1e-9))
    waves = 2 * math.pi / size * torch.arange(1, highest + 1, dtype=torch.float64)
    kernel = (1 + 2 * torch.cos(offsets[..., None] * waves).sum(-1)) / size
    inside = (places >= -(size // 2)) & (places <= size - 1 - size // 2)
    return kernel * inside[:, None]
