"""Tell references that are black where the particles are white."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.em_state import ImageSource
from cryopick.errors import DataError

__all__ = ["contrast_agreement", "require_same_contrast"]

_IMAGES = 500
_OPPOSITE = -0.3  # correlation of mean profiles; of equal contrast it is near 1, of noise near 0
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
    if contrast_agreement(source, references, pixel_size=pixel_size, diameter=diameter) < _OPPOSITE:
        raise DataError(
            "--references",
            must="be white where the particles are white",
            got="the opposite contrast",
            remedy="Invert the references or the particles",
        )


def contrast_agreement(
    source: ImageSource, references: Tensor, *, pixel_size: float, diameter: float
) -> float:
    """Correlate the mean radial profile of the first particles with that of the references.

    Parameters
    ----------
    source
        The particles.
    references
        (k, y, x).
    pixel_size
        Of the references, A/px.
    diameter
        How far profiles are compared, A.

    Returns
    -------
    float
        From -1 to 1. Particles need not be aligned: what is compared is a blob in the middle and
        the ring that the lens lays around it.
    """
    count = min(_IMAGES, len(source))
    mean = source.read(np.arange(count)).mean(0).numpy()
    one = _profile(mean, source.pixel_size, diameter)
    other = _profile(references.mean(0).numpy(), pixel_size, diameter)
    found = np.corrcoef(one, other)[0, 1]
    return float(np.nan_to_num(found))


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
