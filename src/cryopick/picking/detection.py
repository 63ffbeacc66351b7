"""Find peaks of filter responses that stand out of the noise of their own field."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.image.peaks import local_maxima, refine_peaks, suppress_close
from cryopick.picking.background import (
    exclude_discs,
    standardise,
    threshold_for_discoveries,
)

__all__ = ["Detections", "detect"]

_FLOOR = 1.0  # standard deviations: peaks below are of no use to anyone
_ROUNDS = 4
_KERNEL_OVERLAP = 0.35  # what each further size adds to the noise peaks of the first (measured)


class Detections(NamedTuple):
    """Peaks of a field, best first."""

    positions: Tensor  # (n, 2) px, y and x, below the grid
    pixels: Tensor  # (n, 2) int64: the pixel of each peak
    scores: Tensor  # (n,) z-scores
    threshold: float
    best: Tensor  # (y, x): largest score over the responses
    which: Tensor  # (y, x) int64: the response that gave it


def detect(
    responses: Tensor,
    *,
    is_valid: Tensor,
    is_searched: Tensor,
    n_kinds: int,
    min_distance: float,
    disc_radius: float,
    window_radius: int,
    false_positives: float,
    false_share: float,
) -> Detections:
    """Standardise responses on what is background, take peaks, and set the threshold.

    What is background is found in rounds: the peaks that noise cannot explain are taken out and
    the noise is measured again. In an empty field nothing is taken out, so its noise is unbiased.

    Parameters
    ----------
    responses
        (k, y, x), of k filters.
    is_valid, is_searched
        (y, x) bool: sound pixels, and those where a particle may have its centre.
    n_kinds
        Families among the filters; within one they differ in size only and so share their noise.
    min_distance
        Of two peaks, px.
    disc_radius
        About a particle that is taken out of the background, px.
    window_radius
        Of the local noise statistics, px.
    false_positives, false_share
        As `threshold_for_discoveries` takes them.
    """
    is_background = is_valid
    n_sizes = len(responses) / n_kinds
    multiplicity = n_kinds * (1 + _KERNEL_OVERLAP * (n_sizes - 1)) / len(responses)
    area = float(is_searched.sum())
    n_before = -1
    for _ in range(_ROUNDS):
        standardised = standardise(responses, is_background, radius=window_radius)
        best, which = standardised.scores.max(0)
        searched = torch.where(is_searched, best, -torch.inf)
        pixels, positions, scores = _peaks(searched, min_distance)
        noise = {"roughness": float(standardised.roughness.sum()) * multiplicity, "area": area}
        descending = scores.double().cpu().numpy()
        cut = threshold_for_discoveries(  # generous: what may be a particle is no background
            descending, false_peaks=false_positives, false_share=0.5, at_least=20, **noise
        )
        n_now = int((descending >= cut).sum())
        if abs(n_now - n_before) <= 0.02 * n_now:
            break
        n_before = n_now
        is_background = exclude_discs(is_valid, positions[scores >= cut], radius=disc_radius)
    threshold = threshold_for_discoveries(
        descending, false_peaks=false_positives, false_share=false_share, at_least=10, **noise
    )
    return Detections(positions, pixels, scores, threshold, best, which)


def _peaks(searched: Tensor, min_distance: float) -> tuple[Tensor, Tensor, Tensor]:
    radius = max(1, int(0.4 * min_distance))
    pixels = local_maxima(searched, radius=radius, floor=_FLOOR)
    positions, scores = refine_peaks(searched, pixels)
    order = torch.sort(scores, descending=True, stable=True).indices
    pixels, positions, scores = pixels[order], positions[order], scores[order]
    kept: NDArray[np.int64] = suppress_close(
        positions.double().cpu().numpy(), min_distance=min_distance
    )
    index = torch.from_numpy(kept).to(pixels.device)
    return pixels[index], positions[index], scores[index]
