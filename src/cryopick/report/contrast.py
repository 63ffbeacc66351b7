"""Middle and spread of the grey values of an image, for its contrast."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["grey_middle_and_spread"]


def grey_middle_and_spread(image: NDArray[np.floating], *, sample: int) -> tuple[float, float]:
    """Median and robust standard deviation; the plain one where most values are equal.

    Parameters
    ----------
    image
        Of any shape; values that are not finite do not count.
    sample
        Pixels to look at, about, a regular part of a large image: as good to the eye.

    Returns
    -------
    tuple of float
        In grey values; 0 and 0 where no value is finite.

    Notes
    -----
    The median absolute deviation times 1.4826, Hampel, J. Am. Stat. Assoc. 69 (1974) 383.
    """
    values = image.ravel()[:: max(1, image.size // sample)]
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 0.0
    middle = float(np.median(values))
    sigma = 1.4826 * float(np.median(np.abs(values - middle)))
    return middle, sigma or float(values.std())
