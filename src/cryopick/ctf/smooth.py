"""Smooth curves over rings: cubic splines in the logarithm of frequency."""

from __future__ import annotations

import numpy as np
import torch
from scipy.interpolate import BSpline
from torch import Tensor

__all__ = ["smooth_basis", "without_smooth"]


def smooth_basis(frequency: Tensor, n_splines: int) -> Tensor:
    """Cubic B-splines with knots evenly spaced in log frequency, where rings are widest first.

    Parameters
    ----------
    frequency
        (R,) 1/A, rising, above 0.
    n_splines
        Number of functions, at least 4.

    Returns
    -------
    Tensor
        (R, n_splines) float64; every row sums to 1.
    """
    place = np.log(frequency.numpy())
    inner = np.linspace(place[0], place[-1], n_splines - 2)
    knots = np.concatenate([[inner[0]] * 3, inner, [inner[-1]] * 3])
    return torch.from_numpy(BSpline.design_matrix(place, knots, 3).toarray())


def without_smooth(values: Tensor, basis: Tensor) -> Tensor:
    """Take from rows of values over rings, (..., R), their least-squares smooth curve."""
    orthogonal: Tensor = torch.linalg.qr(basis).Q
    return values - (values @ orthogonal) @ orthogonal.T
