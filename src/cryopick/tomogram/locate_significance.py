"""How high a response must be so that noise alone hardly reaches it.

The number of maxima above z of a smooth Gaussian field in a volume V is, for z well above 1,
V |L|^(1/2) (2 pi)^-2 (z^2 - 1) exp(-z^2 / 2), where L is the covariance of the field's gradient
(Adler, The Geometry of Random Fields, 1981; Worsley 1996).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

__all__ = ["expected_maxima", "significance_threshold"]

_LEAST, _MOST = 3.0, 12.0  # z between which the formula is used


def expected_maxima(z: float, *, volume: float, roughness: float) -> float:
    """Count the maxima above `z` that noise makes.

    Parameters
    ----------
    z
        Standard deviations, above 1.
    volume
        Voxels.
    roughness
        Variance of the slope of the field along an axis, per voxel squared.
    """
    return float(volume * roughness**1.5 / (2 * np.pi) ** 2 * (z * z - 1) * np.exp(-z * z / 2))


def significance_threshold(
    roughness: list[float], *, volume: float, false_positives: float
) -> float:
    """Find the z at which noise makes a given number of maxima, over all filters.

    Parameters
    ----------
    roughness
        Of the response of each filter, per voxel squared; maxima that several filters share
        count several times, so the threshold is a little too high.
    volume
        Voxels that are searched.
    false_positives
        Maxima to expect in noise.

    Examples
    --------
    >>> round(significance_threshold([0.05], volume=8e6, false_positives=0.5), 2)
    4.8
    """

    def excess(z: float) -> float:
        total = sum(expected_maxima(z, volume=volume, roughness=r) for r in roughness)
        return float(np.log(max(total, 1e-300) / false_positives))

    if excess(_LEAST) <= 0:
        return _LEAST
    return float(brentq(excess, _LEAST, _MOST)) if excess(_MOST) < 0 else _MOST
