"""Places of a field where there is no candidate, as examples of what is no particle."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryopick.checks import require_above
from cryopick.image.peaks import suppress_close

__all__ = ["NoisePlaces", "sample_noise"]

_TRIES = 20  # points that are drawn for each that is wanted
_ENOUGH = 0.5  # of the places wanted: with fewer, a field is crowded

Points = NDArray[np.float64]


class NoisePlaces(NamedTuple):
    """Places that are no candidate's."""

    places: Points  # (n, 2) y and x, px of the field
    is_crowded: bool  # they are half a box from the candidates, as too few are a whole one away


def sample_noise(
    is_valid: Tensor, candidates: Points, *, count: int, box: float, seed: int
) -> NoisePlaces:
    """Draw places all over a field, a box away from any candidate and from one another.

    Parameters
    ----------
    is_valid
        (y, x) bool: places are drawn where it is true.
    candidates
        (n, 2) y and x, px: all of them, likely or not.
    count
        Places wanted. Where less than half of them can be found, they are drawn half a box
        away.
    box
        Side of the box, px.
    seed
        Of the places.

    Raises
    ------
    ParameterError
        If the box is not above 0.
    """
    require_above(box, 0, name="the box", unit="px")
    random = np.random.default_rng([seed, 17])
    drawn = random.uniform(0, 1, (_TRIES * count, 2)) * (np.array(is_valid.shape) - 1)
    pixels = np.rint(drawn).astype(int)
    drawn = drawn[is_valid.cpu().numpy()[pixels[:, 0], pixels[:, 1]]]
    away, _ = cKDTree(candidates).query(drawn)  # infinite where there is none
    found = _apart(drawn[away >= box], box, count)
    if len(found) >= _ENOUGH * count:
        return NoisePlaces(found, is_crowded=False)
    return NoisePlaces(_apart(drawn[away >= box / 2], box / 2, count), is_crowded=True)


def _apart(points: Points, distance: float, most: int) -> Points:
    return points[suppress_close(points, min_distance=distance)[:most]]
