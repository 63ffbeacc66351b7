"""How well scores of classes agree with what a person has chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["THRESHOLD", "Agreement", "measure_agreement"]

THRESHOLD: Final = 0.5  # on the score: classes from there on are kept
_SURE = 1e-12  # nearer to 0 or 1 than this, a score counts as this

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Scores of classes against a person's choices."""

    log_loss: float  # mean of -log(probability given to what was chosen); 0.69 is a coin's
    auc: float  # chance that a chosen class scores above one that was not chosen
    accuracy: float  # share of the classes that are kept, or not, at `THRESHOLD` as chosen


def measure_agreement(score: Floats, is_selected: NDArray[np.bool_], weights: Floats) -> Agreement:
    """Compare scores with choices.

    Parameters
    ----------
    score
        (n,) 0..1.
    is_selected
        (n,); some True and some False.
    weights
        (n,) above 0: how much each class counts.

    Notes
    -----
    The area under the ROC curve is the probability of Mann and Whitney's statistic, equal scores
    counting half (Hanley & McNeil, Radiology 143, 29, 1982).
    """
    share = weights / weights.sum()
    given = np.clip(np.where(is_selected, score, 1 - score), _SURE, 1)
    return Agreement(
        log_loss=float(-share @ np.log(given)),
        auc=_auc(score, is_selected, weights),
        accuracy=float(share @ ((score >= THRESHOLD) == is_selected)),
    )


def _auc(score: Floats, is_selected: NDArray[np.bool_], weights: Floats) -> float:
    values, place = np.unique(score, return_inverse=True)
    kept = np.bincount(place, weights * is_selected, minlength=len(values))
    left = np.bincount(place, weights * ~is_selected, minlength=len(values))
    below = np.cumsum(left) - left / 2
    return float(kept @ below / (kept.sum() * left.sum()))
