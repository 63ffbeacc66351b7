"""Turn filter responses into z-scores against their local noise; count what noise would make."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.image.filters import local_mean

__all__ = [
    "NEVER",
    "NoisePeaks",
    "Standardised",
    "discovery_threshold",
    "exclude_discs",
    "expected_false_peaks",
    "noise_threshold",
    "standardise",
    "threshold_for",
    "threshold_for_discoveries",
]

_MINIMUM_SHARE = 0.15  # of a window must be background, else the whole field's variance counts too
_CHUNK = 64  # discs cleared at once: memory stays small
NEVER = 1e30  # a threshold that nothing passes, and JSON can hold
_LOWEST = 2.0  # standard deviations: below this the count of noise peaks is no longer exact

NoisePeaks = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # thresholds to expected numbers


class Standardised(NamedTuple):
    """Responses in units of their background noise."""

    scores: Tensor  # (k, y, x): mean 0 and standard deviation 1 over the background nearby
    roughness: Tensor  # (k,) mean squared slope of each score over the background, 1/px^2


def standardise(responses: Tensor, is_background: Tensor, *, radius: int) -> Standardised:
    """Subtract the local mean of the background and divide by its local standard deviation.

    Parameters
    ----------
    responses
        (k, y, x), real.
    is_background
        (y, x) bool: pixels without particles, ice and damage.
    radius
        Half side of the window, px.

    Returns
    -------
    Standardised
        Where a window holds little background, the variance of the whole field's background
        takes the place of what is missing, so that no quiet corner is blown up.
    """
    weight = is_background.to(responses.dtype)
    total = weight.sum().clamp_min(1)
    share = local_mean(weight, radius=radius)
    mean = (responses * weight).sum((-2, -1), keepdim=True) / total
    centered = (responses - mean) * weight
    variance = centered.square().sum((-2, -1), keepdim=True) / total
    missing = _MINIMUM_SHARE * (1 - share).clamp_min(0)
    offset = local_mean(centered, radius=radius) / (share + missing)
    energy = local_mean((centered - offset * weight).square(), radius=radius)
    local = (energy + missing * variance) / (share + missing)
    scores = (responses - mean - offset) / local.clamp_min(1e-20).sqrt()
    return Standardised(scores, _roughness(scores, weight))


def _roughness(scores: Tensor, weight: Tensor) -> Tensor:
    both_rows = weight[1:] * weight[:-1]
    both_columns = weight[:, 1:] * weight[:, :-1]
    down = ((scores[:, 1:] - scores[:, :-1]).square() * both_rows).sum((-2, -1))
    across = ((scores[..., 1:] - scores[..., :-1]).square() * both_columns).sum((-2, -1))
    rows, columns = both_rows.sum().clamp_min(1), both_columns.sum().clamp_min(1)
    return (down / rows + across / columns) / 2


def expected_false_peaks(
    threshold: float | NDArray[np.float64], *, roughness: float, area: float
) -> float | NDArray[np.float64]:
    """Count the peaks above a threshold that noise alone makes.

    Parameters
    ----------
    threshold
        In standard deviations.
    roughness
        Mean squared slope of the standardised noise along one axis, 1/px^2.
    area
        Searched, px^2.

    Returns
    -------
    float or numpy.ndarray
        Expected number, for a smooth Gaussian field.

    Notes
    -----
    area * roughness * (2 pi)^(-3/2) * t * exp(-t^2 / 2): the expected Euler characteristic of the
    excursion set (Adler, The Geometry of Random Fields, 1981).
    """
    density = area * roughness * (2 * math.pi) ** -1.5
    return density * threshold * np.exp(-np.square(threshold) / 2)  # type: ignore[no-any-return]


def threshold_for(false_peaks: float, *, roughness: float, area: float) -> float:
    """Find the threshold above which noise makes so many peaks; at least 1.

    Without background to measure noise on, no peak passes.

    Parameters
    ----------
    false_peaks
        Expected number of peaks, above 0.
    roughness
        Mean squared slope of the standardised noise along one axis, 1/px^2.
    area
        Searched, px^2.
    """
    if area and not roughness:
        return NEVER  # no background to measure noise on
    return noise_threshold(false_peaks, expected=_peaks_of(roughness, area))


def noise_threshold(false_peaks: float, *, expected: NoisePeaks) -> float:
    """Find the threshold above which noise makes so many peaks; from 1 to 20.

    Parameters
    ----------
    false_peaks
        Expected number of peaks, above 0.
    expected
        Gives the expected number of noise peaks above each of some thresholds; falling.
    """
    low, high = 1.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        if expected(np.array([middle]))[0] > false_peaks:
            low = middle
        else:
            high = middle
    return high


def threshold_for_discoveries(
    scores: NDArray[np.float64],
    *,
    false_peaks: float,
    false_share: float,
    at_least: int,
    roughness: float,
    area: float,
) -> float:
    """Find the threshold of a field that may be empty or crowded.

    In an empty field noise may make at most `false_peaks`. Where there are many more peaks than
    noise can make, the threshold falls until `false_share` of the peaks above it would be noise
    (Benjamini & Hochberg, J. R. Stat. Soc. B 57 (1995) 289, with the expected number of noise
    peaks in place of p-values).

    Parameters
    ----------
    scores
        (n,) peaks, descending.
    false_peaks
        Expected number of noise peaks to allow in any field.
    false_share
        Share of noise among the peaks above the threshold to allow in a crowded field.
    at_least
        So many peaks make a field crowded.
    roughness, area
        As for `expected_false_peaks`.
    """
    threshold = threshold_for(false_peaks, roughness=roughness, area=area)
    return discovery_threshold(
        scores,
        threshold=threshold,
        false_share=false_share,
        at_least=at_least,
        expected=_peaks_of(roughness, area),
    )


def discovery_threshold(
    scores: NDArray[np.float64],
    *,
    threshold: float,
    false_share: float,
    at_least: int,
    expected: NoisePeaks,
) -> float:
    """Lower a threshold where there are many more peaks than noise can make.

    Parameters
    ----------
    scores
        (n,) peaks, descending.
    threshold
        Of an empty field.
    false_share, at_least
        As for `threshold_for_discoveries`.
    expected
        As for `noise_threshold`.
    """
    rank = np.arange(1, len(scores) + 1)
    fits = (expected(scores) <= false_share * rank) & (rank >= at_least) & (scores >= _LOWEST)
    return min(threshold, float(scores[fits].min())) if fits.any() else threshold


def _peaks_of(roughness: float, area: float) -> NoisePeaks:
    def expected(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
        result = expected_false_peaks(thresholds, roughness=roughness, area=area)
        return np.asarray(result)

    return expected


def exclude_discs(is_valid: Tensor, centers_yx: Tensor, *, radius: float) -> Tensor:
    """Clear discs about points.

    Parameters
    ----------
    is_valid
        (y, x) bool.
    centers_yx
        (n, 2) px.
    radius
        Of the discs, px.

    Returns
    -------
    Tensor
        (y, x) bool, a copy.
    """
    result = is_valid.clone()
    reach = math.ceil(radius)
    steps = torch.arange(-reach, reach + 1, device=is_valid.device)
    dy, dx = torch.meshgrid(steps, steps, indexing="ij")
    near = dy.square() + dx.square() <= radius**2
    for centers in torch.split(centers_yx.round().long(), _CHUNK):
        rows = (centers[:, 0, None] + dy[near]).clamp(0, is_valid.shape[0] - 1)
        columns = (centers[:, 1, None] + dx[near]).clamp(0, is_valid.shape[1] - 1)
        result[rows.reshape(-1), columns.reshape(-1)] = False
    return result
