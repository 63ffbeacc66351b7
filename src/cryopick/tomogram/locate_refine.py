"""From maxima to particles: extended things are left out, the others moved to their middle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopick.tomogram.locate_parameters import TomogramPickParameters
from cryopick.tomogram.locate_peaks import Peaks, suppress_close
from cryopick.tomogram.locate_search import Search
from cryopick.tomogram.locate_shift import shift_to_means
from cryopick.tomogram.locate_source import VoxelSource, read_padded
from cryopick.tomogram.shapes import connected_groups, measure_curvatures

__all__ = ["FLOOR", "NEAR_BEAD", "refine_places", "scores_at"]

FLOOR = 3.5  # z-score that is no evidence of a particle
NEAR_BEAD = 4.0  # voxels beyond the core
_LONG = 1.5  # largest diameters: a group of maxima that goes on further is extended
_ROUND = (0.5, -1.0)  # least shares of the second and third curvature of a pick on its own
_ROUND_IN_LONG = (0.65, 0.3)  # and of one in an extended group
_RIDGE = 0.5  # of the lower of two maxima, kept between them in one object
_TOP = 0.6  # of the score: evidence above it says where the middle of one body is
_DOMAIN = 0.7  # of the best maximum of an object, that another domain has
_APART = 0.6  # of the largest radius, that domains seen apart are
_NEAR = 2  # voxels


def scores_at(places: NDArray[np.float64], evidence: VoxelSource) -> NDArray[np.float64]:
    """Give each object the largest response within a few voxels of its centre."""
    scores = []
    for place in places:
        z, y, x = (int(c) - _NEAR for c in np.round(place))
        end = 2 * _NEAR + 1
        scores.append(float(read_padded(evidence, (z, y, x), (z + end, y + end, x + end)).max()))
    return np.array(scores, np.float64)


def refine_places(
    search: Search,
    parameters: TomogramPickParameters,
    voxel_size: float,
    evidence: VoxelSource,
    places: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], int]:
    """Leave out what is extended, and move the others to the middle of their object."""
    radius = parameters.max_diameter / 2 / voxel_size
    sure = scores > search.threshold
    places, scores = places[sure], scores[sure]
    n_extended = 0
    if not parameters.extended:
        shares = measure_curvatures(evidence, places, radius=0.6 * radius)
        _, lengths = connected_groups(evidence, places, scores, reach=1.3 * radius, share=_RIDGE)
        is_long = lengths > _LONG * 2 * radius
        least = np.where(is_long[:, None], _ROUND_IN_LONG, _ROUND)
        is_compact = (shares >= least).all(1)
        n_extended = int((~is_compact).sum())
        places, scores = places[is_compact], scores[is_compact]
    maxima = Peaks(places, scores, np.zeros(len(scores), np.int64))
    if parameters.method == "matched":
        places = shift_to_means(evidence, places, radius=radius, least=FLOOR)
    depth, height, width = search.tomogram.shape
    inside = ((places > -0.5) & (places < np.array([depth, height, width]) - 0.5)).all(1)
    inside &= ~search.tomogram.streaks.covers(places, margin=NEAR_BEAD)
    inside &= (places[:, 0] >= search.slab[0] - 0.5) & (places[:, 0] < search.slab[1] - 0.5)
    numbers = np.flatnonzero(inside)
    kept = suppress_close(places[inside], scores[inside], distance=parameters.distance / voxel_size)
    chosen = numbers[kept]
    if parameters.method == "matched":
        places[chosen] = _centred(places[chosen], scores[chosen], maxima, evidence, radius)
    return places, scores, chosen, n_extended


def _centred(
    places: NDArray[np.float64],
    scores: NDArray[np.float64],
    maxima: Peaks,
    evidence: VoxelSource,
    radius: float,
) -> NDArray[np.float64]:
    """Sharpen the centres, now that it is known what belongs to one object.

    Domains that are seen apart are each found better than the object as a whole, so that the mean
    of their maxima is taken. The centre of one body is that of the top of its response, where
    noise counts less than at its foot.
    """
    centred = shift_to_means(
        evidence, places, radius=radius, least=np.maximum(FLOOR, _TOP * scores)
    )
    for number, place in enumerate(places):
        near = maxima.keep(np.linalg.norm(maxima.places - place, axis=1) < radius)
        near = near.keep(near.scores > _DOMAIN * near.scores.max(initial=0))
        apart = near.keep(suppress_close(near.places, near.scores, distance=_APART * radius))
        if len(apart) > 1:
            centred[number] = apart.places.mean(0)
    return centred
