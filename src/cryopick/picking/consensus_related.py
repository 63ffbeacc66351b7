"""Pickers that are not independent: copies, and one picker at several thresholds.

Agreement of such pickers says nothing. They are found by how they vote where others vote alike,
and then counted as one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import rankdata

__all__ = ["related_pickers"]

_SAME_VOTES = 0.95  # shared candidates over those that either has
_SAME_ORDER, _WITHIN = 0.99, 0.9  # rank correlation of scores; shared over the smaller set
_CORRELATED = 0.8  # of votes, among candidates that as many others have
_FEWEST = 20  # candidates that a correlation is taken over

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def related_pickers(has_vote: Bools, scores: Floats, is_seen: Bools) -> NDArray[np.int64]:
    """Find pickers that are one in truth, and number the groups they form.

    Parameters
    ----------
    has_vote
        (n, pickers).
    scores
        (n, pickers), nan where there is none.
    is_seen
        (n, pickers) whether the picker has looked at the micrograph of the candidate.

    Returns
    -------
    numpy.ndarray
        (pickers,) int64. Two pickers are related if their votes are nearly the same, if one lies
        within the other and scores in the same order, or if their votes correlate above 0.8 among
        candidates that as many other pickers have.
    """
    count = has_vote.shape[1]
    pairs = [
        (a, b)
        for a in range(count)
        for b in range(a + 1, count)
        if _is_related(a, b, has_vote, scores, is_seen)
    ]
    rows, columns = np.array(pairs, int).reshape(-1, 2).T
    links = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)


def _is_related(a: int, b: int, has_vote: Bools, scores: Floats, is_seen: Bools) -> bool:
    common = is_seen[:, a] & is_seen[:, b]
    one, other = has_vote[common, a], has_vote[common, b]
    shared = int((one & other).sum())
    if shared < _FEWEST:
        return False
    if shared >= _SAME_VOTES * (one | other).sum():
        return True
    if shared >= _WITHIN * min(one.sum(), other.sum()):
        both = scores[common][one & other][:, [a, b]]
        if np.isfinite(both).all() and _rank_correlation(both) >= _SAME_ORDER:
            return True
    others = np.delete(has_vote[common], [a, b], axis=1).sum(1)
    return _correlation_within(one, other, others) >= _CORRELATED


def _rank_correlation(both: Floats) -> float:
    if (both == both[:1]).all(0).any():
        return 0.0
    return float(np.corrcoef(rankdata(both[:, 0]), rankdata(both[:, 1]))[0, 1])


def _correlation_within(one: Bools, other: Bools, stratum: NDArray[np.int64]) -> float:
    """Correlation about the means of each stratum; candidates that no other has are left out."""
    products, first, second, n_used = 0.0, 0.0, 0.0, 0
    for value in np.unique(stratum[stratum > 0]):
        mine = stratum == value
        x, y = one[mine] - one[mine].mean(), other[mine] - other[mine].mean()
        products += float(x @ y)
        first += float(x @ x)
        second += float(y @ y)
        n_used += int(mine.sum())
    if n_used < _FEWEST or min(first, second) < 1:
        return 0.0
    return products / float(np.sqrt(first * second))
