"""The slow shading of a field: uneven ice and illumination."""

from __future__ import annotations

import torch
from torch import Tensor

from cryopick.checks import require_shape
from cryopick.image.robust import middle_and_spread

__all__ = ["fit_surface"]

_ROUNDS = 4
_OUTLIER = 2.5  # robust standard deviations from the surface
_POINTS = 96  # along each axis that suffice for a surface of six terms


def fit_surface(image: Tensor, is_valid: Tensor) -> Tensor:
    """Fit a quadratic surface to a field, past particles, ice and carbon.

    Parameters
    ----------
    image
        (y, x), floating point.
    is_valid
        (y, x) bool: pixels to fit; where there are none the surface is 0.

    Returns
    -------
    Tensor
        (y, x): a + b x + c y + d x^2 + e x y + f y^2, by least squares over the pixels that are
        within 2.5 robust standard deviations of it, in four rounds.

    Raises
    ------
    ShapeError
        If `image` has not two axes.
    """
    require_shape(image, "y x", name="image")
    height, width = image.shape
    y = torch.linspace(-1, 1, height, device=image.device, dtype=image.dtype)
    x = torch.linspace(-1, 1, width, device=image.device, dtype=image.dtype)
    sparse = (
        slice(None, None, max(1, height // _POINTS)),
        slice(None, None, max(1, width // _POINTS)),
    )
    terms = _terms(y[sparse[0]], x[sparse[1]])
    values = image[sparse].reshape(-1)
    is_sound = is_valid[sparse].reshape(-1)
    is_used = is_sound
    weights = torch.zeros(6, device=image.device, dtype=image.dtype)
    ridge = 1e-9 * torch.eye(6, device=image.device, dtype=torch.float64)
    for _ in range(_ROUNDS):
        if not bool(is_used.any()):
            break
        used = terms[is_used].double()
        normal = used.T @ used + len(used) * ridge
        weights = torch.linalg.solve(normal, used.T @ values[is_used].double()).to(image.dtype)
        residual = values - terms @ weights
        middle, spread = middle_and_spread(residual[is_used])
        is_used = is_sound & ((residual - middle).abs() <= _OUTLIER * spread)
    a, b, c, d, e, f = weights
    column, row = y[:, None], x[None]
    surface: Tensor = a + b * row + c * column + d * row**2 + e * row * column + f * column**2
    return surface


def _terms(y: Tensor, x: Tensor) -> Tensor:
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    ones = torch.ones_like(rows)
    powers = (ones, columns, rows, columns**2, rows * columns, rows**2)
    return torch.stack(powers, -1).reshape(-1, 6)
