"""How well networks tell known particles from known non-particles."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import rankdata

__all__ = ["TestScores", "roc_curve", "score_tests"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TestScores:
    """What networks are worth on examples that they have not learned from."""

    __test__ = False  # no test of pytest

    n_positives: int
    n_negatives: int
    roc_auc: float  # chance that a particle has a higher score than a non-particle
    accuracy: float  # share told apart by a probability of 0.5
    best_threshold: float  # probability at which Matthews' correlation is highest
    best_mcc: float  # Matthews' correlation there

    def to_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        return asdict(self)


def score_tests(positives: Floats, negatives: Floats) -> TestScores:
    """Score the log-odds of known examples.

    Parameters
    ----------
    positives, negatives
        (n,) and (m,) log-odds of particles and of non-particles; neither empty.

    Notes
    -----
    The area under the ROC curve is the statistic of Mann and Whitney over n m, equal scores
    counting half. Matthews' correlation (1975) is taken at every threshold between two scores.

    Examples
    --------
    >>> score_tests(np.array([2.0, 1.0, -1.0]), np.array([-2.0, -3.0])).accuracy
    0.8
    """
    n, m = len(positives), len(negatives)
    every = np.concatenate([positives, negatives])
    area = (rankdata(every)[:n].sum() - n * (n + 1) / 2) / (n * m)
    thresholds, false_share, true_share = roc_curve(positives, negatives)
    hits, wrong = true_share * n, false_share * m
    n_kept = hits + wrong
    product = n_kept * (n + m - n_kept) * n * m
    mcc = (hits * (m - wrong) - wrong * (n - hits)) / np.sqrt(np.where(product > 0, product, 1.0))
    mcc = np.where(product > 0, mcc, 0.0)
    best = int(mcc.argmax())
    lower = thresholds[best + 1] if best + 1 < len(thresholds) else thresholds[best]
    between = (np.clip(thresholds[best], -30, 30) + np.clip(lower, -30, 30)) / 2
    return TestScores(
        n_positives=n,
        n_negatives=m,
        roc_auc=float(area),
        accuracy=float(((positives > 0).sum() + (negatives <= 0).sum()) / (n + m)),
        best_threshold=float(expit(between)),
        best_mcc=float(mcc[best]),
    )


def roc_curve(positives: Floats, negatives: Floats) -> tuple[Floats, Floats, Floats]:
    """Give the shares that are kept as the threshold falls.

    Parameters
    ----------
    positives, negatives
        (n,) and (m,) scores.

    Returns
    -------
    tuple of numpy.ndarray
        Thresholds, descending from infinity, of which scores from each on are kept; the shares
        of negatives and of positives kept.

    Examples
    --------
    >>> _, wrong, right = roc_curve(np.array([2.0, 1.0]), np.array([0.0]))
    >>> wrong.tolist(), right.tolist()
    ([0.0, 0.0, 0.0, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    thresholds = np.concatenate([[np.inf], np.unique([*positives, *negatives])[::-1]])
    shares = [
        (len(s) - np.searchsorted(np.sort(s), thresholds, side="left")) / len(s)
        for s in (negatives, positives)
    ]
    return thresholds, shares[0], shares[1]
