"""Tell picks of whole particles from picks of their parts, by where they lie.

A particle that is not compact, as a cage or one of four domains, is explained better by several
small blobs than by one large one. Two things give parts away: picks of a larger size gather them
in twos and threes; and they lie closer to one another than whole particles can, which do not
overlap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = ["are_parts", "overlap"]

Points = NDArray[np.float64]

_WHOLE = 1.35  # least ratio of the diameters of a whole and of its parts
_PARTS = 1.4  # picks in a whole, on average, if they are parts; 1.1 of particles that crowd
_GATHERED = 0.6  # least share of the parts that lie in wholes
_NEAR, _FAR = (0.4, 0.8), (3.0, 6.0)  # diameters between two picks
_FEWEST_PAIRS = 10  # expected near, to say that there are fewer
_OVERLAP = 0.7  # of parts; whole particles that crowd have 0.2
_LESS = 0.6  # overlap of the larger size over that of parts
_LEAST_GAIN = 0.3  # of the larger size, over the best


def are_parts(
    diameters: Points,
    picks: Sequence[Sequence[Points]],
    gains: Points,
) -> NDArray[np.bool_]:
    """Say which diameters find parts of particles.

    Parameters
    ----------
    diameters
        (k,) rising, A.
    picks
        (k, fields) of (n, 2) x and y, A.
    gains
        (k,) what the picks of each explain; 0 takes one out of the comparison.

    Returns
    -------
    ndarray
        (k,) bool.
    """
    counted = np.flatnonzero(gains > 0)
    is_part = np.zeros(len(diameters), bool)
    for small in counted.tolist():
        for large in counted[diameters[counted] >= _WHOLE * diameters[small]].tolist():
            if _is_gathered(picks[small], picks[large], radius=diameters[large] / 2):
                is_part[small] = True
    overlaps = [overlap(fields, diameter=d) for fields, d in zip(picks, diameters, strict=True)]
    enough = _LEAST_GAIN * np.where(is_part, 0.0, gains).max(initial=0.0)
    for small in counted.tolist():
        for large in counted[(counted > small) & ~is_part[counted] & (gains[counted] >= enough)]:
            if overlaps[small] > _OVERLAP and overlaps[large] <= _LESS * overlaps[small]:
                is_part[small] = True
    return is_part


def overlap(fields: Sequence[Points], *, diameter: float) -> float:
    """Compare the number of close pairs with that of picks that lie anywhere.

    Parameters
    ----------
    fields
        (n, 2) x and y of the picks of each, A.
    diameter
        A.

    Returns
    -------
    float
        The pair correlation between 0.4 and 0.8 diameters, over that between 3 and 6: 0 of
        particles that do not overlap, 1 of random points; nan if too few pairs are expected.
    """
    near, far = 0, 0
    for points in fields:
        tree = cKDTree(points.reshape(-1, 2))
        distances = np.multiply((*_NEAR, *_FAR), diameter)
        counts = np.asarray(tree.count_neighbors(tree, distances))
        near += int(counts[1] - counts[0])
        far += int(counts[3] - counts[2])
    expected = far * (_NEAR[1] ** 2 - _NEAR[0] ** 2) / (_FAR[1] ** 2 - _FAR[0] ** 2)
    return near / expected if expected >= _FEWEST_PAIRS else np.nan


def _is_gathered(parts: Sequence[Points], wholes: Sequence[Points], *, radius: float) -> bool:
    """Whether most parts lie within a radius of wholes that have several of them."""
    inside, taken, total = 0, 0, 0
    for few, many in zip(wholes, parts, strict=True):
        total += len(many)
        if not len(few) or not len(many):
            continue
        distances, nearest = (np.asarray(found) for found in cKDTree(few).query(many))
        in_each = np.bincount(nearest[distances < radius], minlength=len(few))
        inside += int(in_each.sum())
        taken += int((in_each > 0).sum())
    return inside >= _GATHERED * total and inside >= _PARTS * taken
