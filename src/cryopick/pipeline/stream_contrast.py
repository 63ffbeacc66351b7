"""Tell references that are black where particles are white, and particles that are black."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.em_state import ImageSource
from cryopick.errors import DataError

__all__ = ["contrast_agreement", "looks_black", "require_same_contrast"]

_IMAGES, _BATCH = 500, 100  # the first are compared, so many at a time
_FEWEST = 20
_OPPOSITE = -5.0  # standard errors
_STEPS = 24  # of a profile, to the rim of the mask


def require_same_contrast(
    source: ImageSource, references: Tensor, *, pixel_size: float, diameter: float
) -> None:
    """Refuse references whose contrast is opposite to that of the particles.

    Raises
    ------
    DataError
        Saying so.
    """
    if _is_opposite(source, references, pixel_size=pixel_size, diameter=diameter):
        raise DataError(
            "--references",
            must="be white where the particles are white",
            got="the opposite contrast",
            remedy="Invert the references or the particles",
        )


def looks_black(source: ImageSource, *, diameter: float) -> bool:
    """Tell whether the first particles are black in the middle, where a blob would be white."""
    side = 2 * max(int(diameter / source.pixel_size), 2)
    axis = (torch.arange(side) - side // 2) * source.pixel_size / (diameter / 4)
    blob = torch.exp(-(axis[:, None] ** 2 + axis**2) / 2)[None]
    return _is_opposite(source, blob, pixel_size=source.pixel_size, diameter=diameter)


def contrast_agreement(
    source: ImageSource, references: Tensor, *, pixel_size: float, diameter: float
) -> float:
    """Compare the first particles with the mean radial profile of the references.

    Parameters
    ----------
    source
        The particles.
    references
        (k, y, x).
    pixel_size
        Of the references, A/px.
    diameter
        How far they are compared, A.

    Returns
    -------
    float
        Mean over the particles of the product of both, in its own standard errors: of noise it
        is within a few of 0. Particles need not be aligned: what is compared is a blob in the
        middle and what is around it.
    """
    profile = _profile(references.mean(0).numpy(), pixel_size, diameter)
    axis = (np.arange(source.box_size) - source.box_size // 2) * source.pixel_size
    radius = np.hypot(axis[:, None], axis)
    steps = (np.arange(_STEPS) + 0.5) * diameter / 2 / _STEPS
    is_inside = radius <= diameter / 2
    wanted = np.interp(radius[is_inside], steps, profile)
    wanted -= wanted.mean()
    count, found = min(_IMAGES, len(source)), []
    for start in range(0, count, _BATCH):
        images = source.read(np.arange(start, min(start + _BATCH, count))).numpy()
        found.append(images[:, is_inside].astype(np.float64) @ wanted)
    products = np.concatenate(found)
    if count < _FEWEST or not products.any():
        return 0.0
    return float(products.mean() / (products.std(ddof=1) / count**0.5))


def _is_opposite(
    source: ImageSource, references: Tensor, *, pixel_size: float, diameter: float
) -> bool:
    agreement = contrast_agreement(source, references, pixel_size=pixel_size, diameter=diameter)
    return agreement < _OPPOSITE


def _profile(image: NDArray[np.float32], pixel_size: float, diameter: float) -> NDArray[np.float64]:
    """Mean grey value at equal steps from the middle to the radius."""
    side = image.shape[-1]
    axis = (np.arange(side) - side // 2) * pixel_size
    radius = np.hypot(axis[:, None], axis)
    edges = np.linspace(0, diameter / 2, _STEPS + 1)
    count, _ = np.histogram(radius, edges)
    total, _ = np.histogram(radius, edges, weights=image.astype(np.float64))
    centers = (edges[1:] + edges[:-1]) / 2
    known = count > 0
    profile: NDArray[np.float64] = np.interp(centers, centers[known], total[known] / count[known])
    return profile
