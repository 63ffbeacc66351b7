"""What is measured on the picture of a class: contrast, background, edge, shape and texture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cryopick.selection.class_images import MASK_RADIUS, ClassPictures

__all__ = ["LOOKS", "describe_looks", "typical_value"]

LOOKS: Final[Mapping[str, tuple[str, ...]]] = {
    "contrast": ("contrast", "amplitude_in_run", "skewness", "kurtosis"),
    "background": ("background", "background_slope", "depth"),
    "edge": ("edge_share", "edge_peak", "scattered_share"),
    "shape": ("area", "off_centre", "elongation", "roundness"),
    "texture": ("band_1", "band_2", "band_3", "band_4", "band_5", "streaks"),
}

_BANDS = (1.0, 2.5, 4.5, 8.0, 14.0, 25.0)  # Fourier pixels of the picture, edges
_SMOOTH = 1.8  # px rms: outlines are found on the smoothed picture
_LEVEL = 0.3  # of the way from the rim to the brightest: the outline of the particle
_RIM = (0.8, 0.97)  # of the mask's radius
_CORE = 0.6  # of the mask's radius: a particle reaches into it
_SECTORS = 12

Floats = NDArray[np.float64]


def describe_looks(pictures: ClassPictures, *, counts: Floats) -> dict[str, Floats]:
    """Measure pictures of classes.

    Parameters
    ----------
    pictures
        Of `make_pictures`.
    counts
        (k,) particles of each, NaN where unknown; they weigh the typical amplitude of the run.

    Returns
    -------
    dict of numpy.ndarray
        (k,) float64 for each name of `LOOKS`; of an empty picture they mean nothing.
    """
    pixels = pictures.pixels.double()
    distance, angle = _polar(pixels)
    smooth = torch.from_numpy(ndimage.gaussian_filter(pixels.numpy(), (0, _SMOOTH, _SMOOTH)))
    rim = (distance > _RIM[0]) & (distance < _RIM[1])
    within = distance < _RIM[1]
    found = _outline(smooth, distance)
    found |= _levels(pixels, smooth, rim, within, angle)
    found |= _spectrum(pixels)
    found["amplitude_in_run"] = _amplitude(pictures.deviation.cpu().numpy(), counts)
    found["roundness"] = _roundness(pixels, distance)
    return found


def _polar(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Distance from the middle in mask radii, and angle."""
    size = pixels.shape[-1]
    steps = torch.arange(size, dtype=torch.float64) - size // 2
    return torch.hypot(steps[:, None], steps[None, :]) / MASK_RADIUS, torch.atan2(
        steps[:, None].expand(size, size), steps[None, :].expand(size, size)
    )


def _levels(
    pixels: Tensor, smooth: Tensor, rim: Tensor, within: Tensor, angle: Tensor
) -> dict[str, Floats]:
    """Grey values inside the mask and on its rim; the deviation inside is 1."""
    inside, edge = pixels[:, within], pixels[:, rim]
    deviation = edge.std(1).clamp(min=1e-3)
    sectors = ((angle[rim] / (2 * math.pi) + 0.5) * _SECTORS).long().clamp(0, _SECTORS - 1)
    means = torch.zeros(len(pixels), _SECTORS, dtype=torch.float64)
    for sector in range(_SECTORS):
        means[:, sector] = smooth[:, rim][:, sectors == sector].mean(1)
    centred = inside - inside.mean(1, keepdim=True)
    spread = centred.std(1).clamp(min=1e-6)
    return {
        "contrast": ((inside.mean(1).clamp(min=0) + 0.05) / deviation).log().numpy(),
        "skewness": (centred.pow(3).mean(1) / spread**3).numpy(),
        "kurtosis": np.log1p((centred.pow(4).mean(1) / spread**4).numpy()),
        "background": deviation.log().numpy(),
        "background_slope": means.std(1).numpy(),
        "depth": torch.quantile(inside, 0.01, dim=1).numpy(),
        "edge_peak": means.amax(1).numpy(),
    }


def _outline(smooth: Tensor, distance: Tensor) -> dict[str, Floats]:
    """Shape of what is brighter than its surroundings."""
    within = (distance < 1.0).numpy()
    core = (distance < _CORE).numpy()
    ring = ((distance > 0.9) & (distance < 1.0)).numpy()
    names = ("area", "off_centre", "elongation", "edge_share", "scattered_share")
    rows = [_outline_of(image, within, core, ring) for image in smooth.numpy()]
    table = np.array(rows, np.float64).reshape(-1, len(names))
    return dict(zip(names, table.T, strict=True))


def _outline_of(
    image: Floats, within: NDArray[np.bool_], core: NDArray[np.bool_], ring: NDArray[np.bool_]
) -> tuple[float, ...]:
    level = _LEVEL * float(np.quantile(image[within], 0.98))
    bright = (image > max(level, 1e-6)) & within
    islands, count = ndimage.label(bright)
    if not count:
        return 0.0, 0.0, 1.0, 0.0, 0.0
    central = np.bincount(islands[core], minlength=count + 1)
    central[0] = 0
    is_particle = np.zeros(count + 1, bool)
    is_particle[1:] = central[1:] > 0.1 * core.sum()
    if not is_particle.any():
        is_particle[central.argmax()] = bool(central.any())
    particle = is_particle[islands]
    y, x = np.nonzero(particle if particle.any() else bright)
    middle = len(image) // 2
    spread = np.linalg.eigvalsh(np.cov(np.stack([y, x]))) if len(y) > 2 else np.ones(2)
    return (
        particle.sum() / within.sum(),
        math.hypot(y.mean() - middle, x.mean() - middle) / MASK_RADIUS,
        math.sqrt(max(spread[1], 1e-3) / max(spread[0], 1e-3)),
        (bright & ring).sum() / ring.sum(),
        (bright & ~particle).sum() / bright.sum(),
    )


def _spectrum(pixels: Tensor) -> dict[str, Floats]:
    """Shares of the power in bands, and how much of it runs one way."""
    power = torch.fft.fft2(pixels).abs().square()
    size = pixels.shape[-1]
    index = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    radius = torch.hypot(index[:, None], index[None, :])
    angle = torch.atan2(index[:, None].expand(size, size), index[None, :].expand(size, size))
    total = power[:, radius >= _BANDS[0]].sum(1).clamp(min=1e-9)
    found = {}
    for number, (low, high) in enumerate(pairwise(_BANDS), start=1):
        share = power[:, (radius >= low) & (radius < high)].sum(1) / total
        found[f"band_{number}"] = share.clamp(min=1e-6).log10().numpy()
    used = (radius >= 3) & (radius < _BANDS[-1])
    weight = power[:, used]
    turn = torch.polar(torch.ones_like(angle[used]), 2 * angle[used])
    streaks = (weight * turn).sum(1).abs() / weight.sum(1).clamp(min=1e-9)
    found["streaks"] = streaks.numpy()
    return found


def _roundness(pixels: Tensor, distance: Tensor) -> Floats:
    """Share of the variance inside the mask that the mean over each ring explains."""
    within = distance < _RIM[1]
    ring = (distance * MASK_RADIUS).round().long()[within]
    values = pixels[:, within]
    count = torch.bincount(ring).clamp(min=1).double()
    sums = torch.zeros(len(values), len(count), dtype=torch.float64)
    sums.index_add_(1, ring, values)
    profile = (sums / count)[:, ring]
    mean = values.mean(1, keepdim=True)
    explained = (profile - mean).square().sum(1) / (values - mean).square().sum(1).clamp(min=1e-9)
    return explained.numpy()


def _amplitude(deviation: Floats, counts: Floats) -> Floats:
    """Logarithm of the deviation against the median of the run, weighted by particles."""
    known = deviation > 0
    if not known.any():
        return np.full(len(deviation), np.nan)
    weights = np.where(np.isfinite(counts), counts, 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(deviation / typical_value(deviation[known], weights[known])))


def typical_value(values: Floats, weights: Floats) -> float:
    """Value of the typical particle: the median of classes, weighted by their members.

    Parameters
    ----------
    values, weights
        (n,), at least one, finite.
    """
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][int(np.searchsorted(total, total[-1] / 2))])
