"""Where things lie in a tomogram: vesicles, then gold, then particles where there is room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import ParameterError
from cryopick.simulation.orientations import draw_angles, euler_matrices
from cryopick.simulation.tomograms_parameters import TomogramSimulationParameters

__all__ = ["MEMBRANE_HALF_WIDTH", "Scene", "Vesicle", "draw_scene"]

MEMBRANE_HALF_WIDTH = 32.0  # A from the middle of a bilayer to where nothing of it is left
_BATCH = 512  # tries that are looked at together
_TRIES = 200  # batches before the volume counts as full
_UNEVENNESS = 0.2  # of a vesicle's axes

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Vesicle:
    """An ellipsoidal bilayer."""

    centre: Floats  # (3,) x, y, z, A
    semi_axes: Floats  # (3,) A, to the middle of the bilayer
    rotation: Floats  # (3, 3): rows are the directions of the axes

    def distance(self, points: Floats) -> Floats:
        """Distance of points (n, 3) from the middle of the bilayer, A; negative inside.

        To first order, f / |grad f| with f the radius in units of the axes, less 1.
        """
        local = (points - self.centre) @ self.rotation.T
        scaled = local / self.semi_axes
        radius = np.maximum(np.linalg.norm(scaled, axis=1), 1e-6)
        slope = np.linalg.norm(scaled / self.semi_axes, axis=1) / radius
        return np.asarray((radius - 1) / np.maximum(slope, 1e-6))


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a tomogram holds. Positions are in A from the centre of the first voxel."""

    places: Floats  # (n, 3) x, y, z of particles
    species: NDArray[np.int64]  # (n,) index
    angles: Floats  # (n, 3) rot, tilt, psi, deg
    gold: Floats  # (m, 3) x, y, z of beads
    vesicles: tuple[Vesicle, ...]


def draw_scene(
    diameters: Floats,
    parameters: TomogramSimulationParameters,
    *,
    preferred_fraction: float,
    generator: np.random.Generator,
) -> Scene:
    """Put things at random where there is room.

    Parameters
    ----------
    diameters
        (k,) A of the species, which take turns, so that they are equally frequent.
    parameters
        How many, how close, and the size of the tomogram.
    preferred_fraction
        Share of the orientations near a preferred view (`draw_angles`).
    generator
        Source of randomness.

    Returns
    -------
    Scene
        Whole things only: nothing is cut by a face of the tomogram.

    Raises
    ------
    ParameterError
        If not all that is asked for finds room.
    """
    extent = (np.array(parameters.shape[::-1]) - 1) * parameters.voxel_size
    vesicles = _draw_vesicles(extent, parameters, generator)
    gold = _draw_gold(extent, vesicles, parameters, generator)
    count = parameters.particles
    species = generator.permutation(np.arange(count) % len(diameters))
    order = np.argsort(-diameters[species], kind="stable")  # the large ones need most room
    places = np.zeros((count, 3))
    done: list[int] = []
    for index in order:
        diameter = float(diameters[species[index]])
        tries = _Tries(extent, diameter / 2, generator, name="particles", wanted=count)
        touching = (diameters[species[done]] + diameter) / 2
        least = touching if parameters.min_distance is None else parameters.min_distance
        for points in tries:
            free = _clear_of(points, places[done], least)
            free &= _clear_of(points, gold, (diameter + parameters.gold_diameter) / 2)
            for vesicle in vesicles:
                free &= np.abs(vesicle.distance(points)) >= diameter / 2 + MEMBRANE_HALF_WIDTH
            if free.any():
                places[index] = points[free][0]
                done.append(int(index))
                break
            tries.placed = len(done)
    return Scene(
        places=places,
        species=species,
        angles=draw_angles(count, generator=generator, preferred_fraction=preferred_fraction),
        gold=gold,
        vesicles=vesicles,
    )


class _Tries:
    """Batches of random points that keep clear of the faces, until the volume counts as full."""

    def __init__(
        self,
        extent: Floats,
        margin: float,
        generator: np.random.Generator,
        *,
        name: str,
        wanted: int,
    ) -> None:
        self._extent, self._margin, self._generator = extent, margin, generator
        self._name, self._wanted = name, wanted
        self._left = _TRIES
        self.placed = 0

    def __iter__(self) -> _Tries:
        return self

    def __next__(self) -> Floats:
        room = self._extent - 2 * self._margin
        self._left -= 1
        if (room < 0).any() or self._left < 0:
            raise ParameterError(
                self._name,
                must="find room in the tomogram",
                got=f"{self._wanted}, of which {self.placed} did",
                remedy="Ask for fewer, for less distance, or for a larger tomogram",
            )
        return self._generator.uniform(0, 1, (_BATCH, 3)) * room + self._margin


def _clear_of(points: Floats, others: Floats, least: Floats | float) -> NDArray[np.bool_]:
    """Whether points (n, 3) keep their distance, one number or (m,), from others (m, 3)."""
    gaps = np.linalg.norm(points[:, None] - others, axis=2)
    return np.asarray((gaps >= least).all(axis=1))


def _draw_vesicles(
    extent: Floats, parameters: TomogramSimulationParameters, generator: np.random.Generator
) -> tuple[Vesicle, ...]:
    found: list[Vesicle] = []
    radius = parameters.vesicle_diameter / 2
    reach = (1 + _UNEVENNESS) * radius + MEMBRANE_HALF_WIDTH
    for _ in range(parameters.vesicles):
        axes = radius * generator.uniform(1 - _UNEVENNESS, 1 + _UNEVENNESS, 3)
        turn = euler_matrices(draw_angles(1, generator=generator))[0]
        centres = np.array([v.centre for v in found]).reshape(-1, 3)
        tries = _Tries(extent, reach, generator, name="vesicles", wanted=parameters.vesicles)
        tries.placed = len(found)
        for points in tries:
            free = _clear_of(points, centres, 2 * reach)
            if free.any():
                found.append(Vesicle(centre=points[free][0], semi_axes=axes, rotation=turn))
                break
    return tuple(found)


def _draw_gold(
    extent: Floats,
    vesicles: tuple[Vesicle, ...],
    parameters: TomogramSimulationParameters,
    generator: np.random.Generator,
) -> Floats:
    diameter = parameters.gold_diameter
    found = np.zeros((0, 3))
    for _ in range(parameters.gold):
        tries = _Tries(extent, diameter / 2, generator, name="gold", wanted=parameters.gold)
        tries.placed = len(found)
        for points in tries:
            free = _clear_of(points, found, 2 * diameter)
            for vesicle in vesicles:
                free &= np.abs(vesicle.distance(points)) >= diameter / 2 + MEMBRANE_HALF_WIDTH
            if free.any():
                found = np.concatenate([found, points[free][:1]])
                break
    return found
