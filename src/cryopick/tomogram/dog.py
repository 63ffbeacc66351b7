"""The plain difference of Gaussians, on several scales: the baseline of the other methods.

The difference of two Gaussians of widths s and 1.26 s responds most to balls of radius
s sqrt(3) (Lindeberg 1998; Voss et al. 2009). It knows neither the noise nor the wedge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cryopick.tomogram.locate_filters import Filters, radius_grid

__all__ = ["dog_filters"]

_RATIO = 2 ** (1 / 3)
_REACH = 4.0  # widths of the wider Gaussian


def dog_filters(radii: Sequence[float]) -> Filters:
    """Make differences of Gaussians for balls of some radii.

    Parameters
    ----------
    radii
        Voxels.

    Returns
    -------
    Filters
        One for each radius; each sums to 0, so that slow shading gives nothing.
    """
    half = int(np.ceil(_REACH * _RATIO * max(radii) / np.sqrt(3)))
    radius = radius_grid(2 * half + 1)
    kernels = []
    for ball in radii:
        sigma = ball / np.sqrt(3)
        narrow, wide = (torch.exp(-(radius**2) / (2 * s * s)) for s in (sigma, _RATIO * sigma))
        kernel = narrow / narrow.sum() - wide / wide.sum()
        kernels.append(kernel / kernel.square().sum().sqrt())
    return Filters(torch.stack(kernels))
