"""Find peaks of filter responses that stand out of the noise of their own field."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from cryopick.image.peaks import local_maxima, refine_peaks, suppress_close
from cryopick.image.robust import middle_and_spread
from cryopick.picking.background import (
    exclude_discs,
    standardise,
    threshold_for_discoveries,
)

__all__ = ["Detections", "detect"]

_FLOOR = 1.0  # standard deviations: peaks below are of no use to anyone
_ROUNDS = 4
_LEAST_BACKGROUND = 0.05  # share of the field that noise is measured on at least
_OUTLIER = 4.5  # robust standard deviations
_KERNEL_OVERLAP = 0.35  # what each further size adds to the noise peaks of the first (measured)


class Detections(NamedTuple):
    """Peaks of a field, best first."""

    positions: Tensor  # (n, 2) px, y and x, below the grid
    pixels: Tensor  # (n, 2) int64: the pixel of each peak
    scores: Tensor  # (n,) z-scores
    threshold: float
    best: Tensor  # (y, x): largest score over the responses
    which: Tensor  # (y, x) int64: the response that gave it
    is_ordinary: Tensor  # (y, x) bool: valid, and explained by noise or particles
    is_background: Tensor  # (y, x) bool: what noise was measured on

    def subset(self, is_kept: Tensor) -> Detections:
        """Keep some of the peaks, (n,) bool."""
        return self._replace(
            positions=self.positions[is_kept],
            pixels=self.pixels[is_kept],
            scores=self.scores[is_kept],
        )


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
    start: Detections | None = None,
    rounds: int = _ROUNDS,
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
    start
        An earlier search of the same field: noise is first measured on its background.
    rounds
        Of measuring noise, at most.
    """
    if start is None:
        is_ordinary = is_valid & ~_outliers(responses, is_valid, block=2 * window_radius)
        is_background = is_ordinary
    else:
        is_ordinary, is_background = start.is_ordinary, start.is_background
    n_sizes = len(responses) / n_kinds
    multiplicity = n_kinds * (1 + _KERNEL_OVERLAP * (n_sizes - 1)) / len(responses)
    area = float(is_searched.sum())
    n_before = -1
    for _ in range(rounds):
        standardised = standardise(responses, is_background, radius=window_radius)
        best, which = standardised.scores.max(0)
        searched = torch.where(is_searched, best, -torch.inf)
        pixels, scores = _peaks(searched, min_distance)
        noise = {"roughness": float(standardised.roughness.sum()) * multiplicity, "area": area}
        descending = scores.double().cpu().numpy()
        cut = threshold_for_discoveries(  # generous: what may be a particle is no background
            descending, false_peaks=false_positives, false_share=0.5, at_least=20, **noise
        )
        n_now = int((descending >= cut).sum())
        if abs(n_now - n_before) <= 0.02 * n_now:
            break
        n_before = n_now
        cleared = exclude_discs(is_ordinary, pixels[scores >= cut], radius=disc_radius)
        if cleared.sum() < _LEAST_BACKGROUND * is_ordinary.sum():
            break  # discs of the largest size would leave no noise to measure
        is_background = cleared
    threshold = threshold_for_discoveries(
        descending, false_peaks=false_positives, false_share=false_share, at_least=25, **noise
    )
    climb = max(1, int(min_distance / 3))
    positions = _refine(responses, pixels, is_searched, radius=climb)
    return Detections(positions, pixels, scores, threshold, best, which, is_ordinary, is_background)


def _refine(responses: Tensor, pixels: Tensor, is_searched: Tensor, *, radius: int) -> Tensor:
    """Climb to the top of the mean response: a z-score leans to where the noise is less."""
    spread = responses.std((-2, -1), keepdim=True).clamp_min(1e-20)
    mean = torch.where(is_searched, (responses / spread).mean(0), -torch.inf)
    return refine_peaks(mean, _highest_nearby(mean, pixels, radius))[0]


def _highest_nearby(response: Tensor, pixels: Tensor, radius: int) -> Tensor:
    height, width = response.shape
    steps = torch.arange(-radius, radius + 1, device=pixels.device)
    rows = (pixels[:, 0, None] + steps).clamp(0, height - 1)
    columns = (pixels[:, 1, None] + steps).clamp(0, width - 1)
    nearby = response[rows[:, :, None], columns[:, None, :]].flatten(1)
    best = nearby.argmax(1) if len(pixels) else pixels[:, 0]
    down = torch.div(best, len(steps), rounding_mode="floor")
    picked = torch.arange(len(pixels), device=pixels.device)
    return torch.stack([rows[picked, down], columns[picked, best % len(steps)]], 1)


def _outliers(responses: Tensor, is_valid: Tensor, *, block: int) -> Tensor:
    """Mark what no noise explains, so that a few strong particles do not pass for noise."""
    height, width = is_valid.shape
    rows, columns = max(1, height // block), max(1, width // block)
    size = (height // rows, width // columns)
    tiles = responses[:, : rows * size[0], : columns * size[1]]
    tiles = tiles.reshape(-1, rows, size[0], columns, size[1]).transpose(2, 3).flatten(3)
    _, spread = middle_and_spread(tiles, dim=3)
    spread = functional.max_pool2d(spread[:, None], 3, 1, 1)  # no tile is judged by a quieter one
    spread = functional.interpolate(spread, (height, width), mode="nearest")[:, 0]
    middle = torch.stack([r[is_valid].median() for r in responses])[:, None, None]
    return ((responses - middle).abs() > _OUTLIER * spread).any(0)


def _peaks(searched: Tensor, min_distance: float) -> tuple[Tensor, Tensor]:
    """Pixels and heights of the peaks that keep their distance, best first."""
    pixels = local_maxima(searched, radius=max(1, int(0.4 * min_distance)), floor=_FLOOR)
    heights = searched[pixels[:, 0], pixels[:, 1]]
    kept = suppress_close(pixels.double().cpu().numpy(), min_distance=min_distance)
    index = torch.from_numpy(kept).to(pixels.device)
    return pixels[index], heights[index]
