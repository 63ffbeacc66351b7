"""Measure how large each pick looks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cryopick.image.filters import log_disc, sphere_shell

__all__ = ["measure_diameters"]

_SIZES = 10
_SMALLER, _LARGER = 2.2, 1.5  # how far outside the range asked for sizes are compared


def measure_diameters(
    image_rfft: Tensor,
    frequency: Tensor,
    pixels: Tensor,
    *,
    shape: tuple[int, int],
    min_diameter: float,
    max_diameter: float,
    hollowness: Tensor,
) -> Tensor:
    """Find the disc or shell that fits best at each place.

    Parameters
    ----------
    image_rfft
        (y, x // 2 + 1), complex: transform of the field, particles white.
    frequency
        As `image_rfft`, 1/A.
    pixels
        (n, 2) int64, row and column of each pick.
    shape
        (y, x) of the field, px.
    min_diameter, max_diameter
        The range asked for, A; sizes from 2.2 times below to 1.5 times above are told apart.
    hollowness
        (n,): 0 for a disc, else inner over outer diameter of a shell.

    Returns
    -------
    Tensor
        (n,) apparent diameter, A. The lens makes particles look smaller than they are.

    Notes
    -----
    Discs by the maximum over scale of the scale-normalised Laplacian of Gaussian (Lindeberg, Int.
    J. Comput. Vis. 30 (1998) 79); shells by the largest correlation with a template of unit norm.
    Both are interpolated with a parabola in the logarithm of the diameter.
    """
    sizes = np.geomspace(min_diameter / _SMALLER, max_diameter * _LARGER, _SIZES)
    rows, columns = pixels[:, 0], pixels[:, 1]
    result = torch.zeros(len(pixels), dtype=frequency.dtype, device=pixels.device)
    for kind in torch.unique(hollowness).tolist():
        is_kind = hollowness == kind
        fits = []
        for diameter in sizes:
            if kind:
                transfer = sphere_shell(frequency, diameter=diameter, hollowness=kind)
                transfer = transfer / transfer.square().sum().sqrt()
            else:
                transfer = log_disc(frequency, diameter=diameter) * diameter**2
            response = torch.fft.irfft2(image_rfft * transfer, s=shape)
            fits.append(response[rows[is_kind], columns[is_kind]])
        result[is_kind] = _best_size(torch.stack(fits), sizes)
    return result


def _best_size(fits: Tensor, sizes: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tensor:
    best = fits.argmax(0)
    inner = best.clamp(1, len(sizes) - 2)
    pick = torch.arange(fits.shape[1], device=fits.device)
    low, middle, high = fits[inner - 1, pick], fits[inner, pick], fits[inner + 1, pick]
    curvature = low - 2 * middle + high
    step = torch.where(
        (curvature < 0) & (best == inner), (low - high) / 2 / curvature.clamp_max(-1e-20), 0.0
    ).clamp(-0.5, 0.5)
    ratio = float(np.log(sizes[1] / sizes[0]))
    return float(sizes[0]) * torch.exp((best + step) * ratio)
