"""Which picks of several pickers are of one particle.

Picks are joined into candidates by complete linkage, the closest first: two groups become one if
no two picks of it are farther apart than the radius, and no picker is in it twice. So a picker has
one vote for a candidate however often it has picked it, and neither the order of the pickers nor
that of their picks matters: ties are broken by where picks lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryopick.checks import require_above, require_shape

__all__ = ["Consensus", "join_picks"]

Floats = NDArray[np.float64]
_FINEST = 1e-3  # px that positions are told apart by


class Consensus(NamedTuple):
    """Candidates of one micrograph, ordered by y, then x."""

    positions: Floats  # (n, 2) x and y, px: mean of the picks
    has_vote: NDArray[np.bool_]  # (n, pickers)
    scores: Floats  # (n, pickers) best score that a picker gave; nan without a vote
    spread: Floats  # (n,) px: root mean square distance of the picks from their mean

    @property
    def votes(self) -> NDArray[np.int64]:
        """Pickers that have a candidate, (n,)."""
        counts: NDArray[np.int64] = self.has_vote.sum(1)
        return counts


def join_picks(
    positions: Sequence[Floats], scores: Sequence[Floats | None], *, radius: float
) -> Consensus:
    """Join the picks of several pickers on one micrograph.

    Parameters
    ----------
    positions
        (n, 2) x and y of each picker, px of the micrograph; n may be zero.
    scores
        (n,) of each picker, higher is better; None where it gives none. Of picks of one picker
        that are closer than the radius the best is kept; without scores, their mean.
    radius
        Least distance of different particles, px.

    Raises
    ------
    ParameterError
        If the radius is not above 0.
    ShapeError
        If positions and scores do not match.
    """
    require_above(radius, 0, name="the radius", unit="px")
    n_pickers = len(positions)
    singles = [
        _one_each(np.asarray(p, float).reshape(-1, 2), s, radius)
        for p, s in zip(positions, scores, strict=True)
    ]
    points = np.concatenate([s[0] for s in singles] or [np.empty((0, 2))])
    values = np.concatenate([s[1] for s in singles] or [np.empty(0)])
    owner = np.repeat(np.arange(n_pickers), [len(s[0]) for s in singles])
    groups = _link(points, owner, radius)
    has_vote = np.zeros((len(groups), n_pickers), bool)
    found = np.full((len(groups), n_pickers), np.nan)
    centers, spread = np.zeros((len(groups), 2)), np.zeros(len(groups))
    for number, members in enumerate(groups):
        own = points[members]
        centers[number] = own.mean(0)
        spread[number] = np.sqrt(((own - own.mean(0)) ** 2).sum(1).mean())
        has_vote[number, owner[members]] = True
        found[number, owner[members]] = values[members]
    order = np.lexsort(np.round(centers / _FINEST).T)
    return Consensus(centers[order], has_vote[order], found[order], spread[order])


def _one_each(points: Floats, scores: Floats | None, radius: float) -> tuple[Floats, Floats]:
    """Join what one picker has picked twice."""
    if scores is not None:
        require_shape(scores, f"{len(points)}", name="scores")
    given = np.full(len(points), np.nan) if scores is None else np.asarray(scores, float)
    groups = _link(points, np.arange(len(points)), radius)
    if scores is None:
        kept = [points[g].mean(0) for g in groups]
        return np.array(kept).reshape(-1, 2), np.full(len(groups), np.nan)
    best = [g[int(np.nan_to_num(given[g], nan=-np.inf).argmax())] for g in groups]
    return points[best].reshape(-1, 2), given[best]


def _link(points: Floats, owner: NDArray[np.int64], radius: float) -> list[list[int]]:
    """Complete linkage of points of different owners, the closest first."""
    if not len(points):
        return []
    pairs = cKDTree(points).query_pairs(radius, output_type="ndarray")
    pairs = pairs[owner[pairs[:, 0]] != owner[pairs[:, 1]]]
    distance = np.hypot(*(points[pairs[:, 0]] - points[pairs[:, 1]]).T)
    pairs, distance = pairs[distance < radius], distance[distance < radius]
    middle = points[pairs].mean(1)
    order = np.lexsort((*np.round(middle / _FINEST).T, np.round(distance / _FINEST)))
    group_of = list(range(len(points)))
    groups: dict[int, list[int]] = {i: [i] for i in range(len(points))}
    for first, second in pairs[order].tolist():
        a, b = group_of[first], group_of[second]
        if a == b or {owner[i] for i in groups[a]} & {owner[i] for i in groups[b]}:
            continue
        gaps = points[groups[a]][:, None] - points[groups[b]]
        if np.hypot(gaps[..., 0], gaps[..., 1]).max() >= radius:
            continue
        groups[a] += groups.pop(b)
        for i in groups[a]:
            group_of[i] = a
    return list(groups.values())
