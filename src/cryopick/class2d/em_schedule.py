"""How a run goes on: coarse to fine in resolution, shifts and number of particles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.class2d.em_parameters import ClassificationParameters

__all__ = ["Stage", "class_count", "fine_iterations", "sample_of", "stage_of", "subset_of"]

_HARD = 2  # first iterations by best correlation, from a cold start
_COARSE, _MIDDLE, _FINE = 0.2, 0.2, 0.12  # shares of the iterations
_FIRST_RINGS, _MIDDLE_RINGS = 9, 13
_PER_CLASS = 100  # particles a class gets in the first iterations of a large set
_FEWEST_CLASSES = 4  # to begin with
_GROWN = 0.6  # share of the iterations by which all classes are there


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One iteration."""

    n_rings: int
    offset_range: float  # A
    offset_step: float  # A
    is_hard: bool
    is_fine: bool  # the last stage: all particles, poses below the grid
    finds_junk: bool
    subset: int  # particles to see


def stage_of(
    iteration: int,
    parameters: ClassificationParameters,
    *,
    most_rings: int,
    data_rings: int,
    n_particles: int,
    has_references: bool,
    fine_from: int | None,
    has_seen_all: bool,
) -> Stage:
    """Plan iteration number `iteration`, from 0.

    Parameters
    ----------
    most_rings
        Rings up to the resolution limit.
    data_rings
        Rings in which the averages hold signal so far.
    fine_from
        Iteration from which on all is fine, because the classes have settled.
    has_seen_all
        Whether every particle has been aligned. If not, all are, widely, before the fine part.
    """
    total = parameters.iterations
    fine = fine_iterations(parameters) + (not has_seen_all and total > 1)
    coarse = 0 if has_references else max(2, round(_COARSE * total))
    middle = 0 if has_references else max(1, round(_MIDDLE * total))
    is_last = iteration >= (total - fine if fine_from is None else fine_from)
    is_fine = is_last and (has_seen_all or iteration == total - 1)
    wide, step = parameters.offset_range, parameters.offset_step
    if is_last and not has_seen_all:
        rings, step = data_rings, 0.5 * step
    elif iteration < coarse and not is_fine:
        rings = _FIRST_RINGS
    elif iteration < coarse + middle and not is_fine:
        rings, wide, step = _MIDDLE_RINGS, 0.75 * wide, 0.75 * step
    else:
        rings, wide, step = data_rings, 0.4 * wide, 0.5 * step
    if is_fine and has_seen_all:
        wide = step = 0.25 * parameters.offset_step
    if has_references and iteration == 0:
        rings, wide, step = most_rings, parameters.offset_range, 0.5 * parameters.offset_step
    wide = min(wide, parameters.offset_range)
    step = min(step, wide)
    return Stage(
        n_rings=min(rings, most_rings),
        offset_range=wide,
        offset_step=step,
        is_hard=iteration < _HARD and not has_references,
        is_fine=is_fine,
        finds_junk=parameters.junk and is_fine,
        subset=n_particles
        if is_last or not parameters.batches
        else _subset_size(iteration, total - fine, parameters.n_classes, n_particles),
    )


def fine_iterations(parameters: ClassificationParameters) -> int:
    """Count the iterations at the end that refine poses below the grid."""
    return max(1, round(_FINE * parameters.iterations))


def _subset_size(iteration: int, total: int, n_classes: int, n_particles: int) -> int:
    """Grow from `_PER_CLASS` particles a class to all, in the last iterations before the fine."""
    first = _PER_CLASS * n_classes
    if n_particles <= 1.5 * first:
        return n_particles
    grown = first * 2 ** math.floor(3 * iteration / max(total, 1))
    return min(int(grown), n_particles)


def subset_of(iteration_start: int, size: int, n_particles: int, *, seed: int) -> NDArray[np.int64]:
    """Take `size` particles from place `iteration_start` on of a random order, round and round.

    The order is drawn once from the seed; the result is sorted, so that reading goes forwards.
    """
    if size >= n_particles:
        return np.arange(n_particles)
    order = np.random.default_rng(seed).permutation(n_particles)
    places = (iteration_start + np.arange(size)) % n_particles
    return np.sort(order[places])


def sample_of(n_particles: int, most: int, *, seed: int) -> NDArray[np.int64]:
    """Draw at most so many particles, in order."""
    if n_particles <= most:
        return np.arange(n_particles)
    return np.sort(np.random.default_rng(seed).choice(n_particles, most, replace=False))


def class_count(iteration: int, parameters: ClassificationParameters) -> int:
    """How many classes there are in an iteration: from few, doubled at equal steps.

    Averages of few classes find the rotations of particles better than those of many; what they
    have found is handed down when classes are split.
    """
    if iteration >= parameters.iterations - fine_iterations(parameters):
        return parameters.n_classes
    n_doublings = 0
    while parameters.n_classes / 2 ** (n_doublings + 1) >= _FEWEST_CLASSES:
        n_doublings += 1
    last = _GROWN * parameters.iterations
    steps = min(n_doublings, int((n_doublings + 1) * iteration / max(last, 1)))
    return math.ceil(parameters.n_classes / int(2 ** (n_doublings - steps)))
