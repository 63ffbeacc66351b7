"""Tell picks of particles from picks of ice, carbon edges and what lies beyond the rim."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from cryopick.image.filters import local_mean
from cryopick.image.robust import middle_and_spread

__all__ = ["is_inner_peak", "is_unlike_particles"]

_FEWEST = 20  # picks that show what is usual
_UNUSUAL = 6.0  # robust standard deviations
_WINDOW = 0.6  # half side of the window over a particle's radius: its three box passes fill a disc


def is_inner_peak(scores: Tensor, pixels: Tensor) -> Tensor:
    """Say which peaks are higher than all their neighbours, searched or not.

    On the rim of a searched area the flank of something beyond it looks like a peak.

    Parameters
    ----------
    scores
        (y, x), real, also outside the searched area.
    pixels
        (n, 2) int64, row and column.

    Returns
    -------
    Tensor
        (n,) bool.
    """
    highest = functional.max_pool2d(scores[None, None], 3, 1, 1)[0, 0]
    rows, columns = pixels[:, 0], pixels[:, 1]
    return scores[rows, columns] >= highest[rows, columns]


def is_unlike_particles(
    whitened: Tensor, pixels: Tensor, is_pick: Tensor, *, radius: float
) -> Tensor:
    """Say which peaks hold much more power than picks of the same field do.

    A lump of ice fits the filter of a particle as well as a strong particle does, but has power
    that no particle of the field has: more than six robust standard deviations above the median
    of the picks.

    Parameters
    ----------
    whitened
        (y, x), real: the field with a background of variance 1 at all frequencies.
    pixels
        (n, 2) int64, row and column of the peaks.
    is_pick
        (n,) bool: those that show what is usual; with fewer than 20 nothing is unusual.
    radius
        Of a particle, px.

    Returns
    -------
    Tensor
        (n,) bool.
    """
    energy = local_mean(whitened.square(), radius=max(1, round(_WINDOW * radius)))
    at_peaks = energy[pixels[:, 0], pixels[:, 1]]
    usual = at_peaks[is_pick]
    if len(usual) < _FEWEST:
        return torch.zeros_like(is_pick)
    middle, spread = middle_and_spread(usual)
    return at_peaks > middle + _UNUSUAL * spread
