"""Where particles lie in a field: apart by a least distance, and some in clumps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Places", "place_particles"]

_TRIES = 40  # per particle, before a crowded field counts as full
_CLUMP_MEMBERS = (5, 25)
_CLUMP_STEP = (0.45, 0.75)  # diameters between a member and the one it sticks to


@dataclass(frozen=True, kw_only=True)
class Places:
    """Centres and species of all particles."""

    yx: NDArray[np.float64]  # (n, 2) px
    species: NDArray[np.int64]  # (n,) index
    is_clumped: NDArray[np.bool_]  # (n,)


def place_particles(
    shape: tuple[int, int],
    *,
    count: int,
    diameters: NDArray[np.float64],
    separation: float,
    clumps: float,
    generator: np.random.Generator,
) -> Places:
    """Put clumps, then single particles, at random where there is room.

    Parameters
    ----------
    shape
        (y, x) px of the field.
    count
        Single particles wanted; fewer are placed when the field is full.
    diameters
        (k,) px of the species, which are equally frequent.
    separation
        Least distance of two centres over the mean of their diameters.
    clumps
        Clumps in the field, on average.
    generator
        Source of randomness.
    """
    extent = np.array(shape, float)
    yx, species = _draw_clumps(extent, diameters, clumps, generator)
    n_clumped = len(yx)
    capacity = n_clumped + count
    places = np.concatenate([yx, np.zeros((count, 2))])
    radii = np.concatenate([diameters[species], np.zeros(count)]) * (separation / 2)
    kinds = np.concatenate([species, np.empty(count, np.int64)])
    filled = n_clumped
    for _ in range(count):
        kind = int(generator.integers(len(diameters)))
        tries = generator.uniform(0, 1, (_TRIES, 2)) * extent - 0.5
        radius = diameters[kind] * separation / 2
        gaps = np.linalg.norm(tries[:, None] - places[:filled], axis=2) - radii[:filled] - radius
        free = np.flatnonzero((gaps >= 0).all(axis=1))
        if len(free) and filled < capacity:
            places[filled], radii[filled], kinds[filled] = tries[free[0]], radius, kind
            filled += 1
    return Places(
        yx=places[:filled],
        species=kinds[:filled],
        is_clumped=np.arange(filled) < n_clumped,
    )


def _draw_clumps(
    extent: NDArray[np.float64],
    diameters: NDArray[np.float64],
    mean: float,
    generator: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Grow each clump by sticking members to members."""
    found: list[NDArray[np.float64]] = []
    kinds: list[int] = []
    for _ in range(int(generator.poisson(mean))):
        members = [generator.uniform(0, 1, 2) * extent - 0.5]
        kinds.append(int(generator.integers(len(diameters))))
        for _ in range(int(generator.integers(*_CLUMP_MEMBERS))):
            kind = int(generator.integers(len(diameters)))
            angle = generator.uniform(0, 2 * math.pi)
            step = generator.uniform(*_CLUMP_STEP) * diameters[kind]
            other = members[int(generator.integers(len(members)))]
            members.append(other + step * np.array([math.sin(angle), math.cos(angle)]))
            kinds.append(kind)
        found.extend(members)
    return np.array(found).reshape(-1, 2), np.array(kinds, np.int64)
