"""Other particles in an image: two that overlap, one at an edge, and the crowd of a dense field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.simulation.orientations import draw_angles, euler_matrices
from cryopick.simulation.projection import Model

__all__ = ["Copies", "copies_in_pairs", "copies_in_the_crowd", "copies_of_some", "join_copies"]

_FROM_BOTH = (0.25, 0.55)  # diameters from the centre to each of two that overlap
_LARGEST_GAP = 0.8  # diameters between the centres of two that overlap
_CROWD_RANGE = (0.95, 1.6)  # mean diameters of the two, from the particle to one of the crowd
_CROWD_SEPARATION = 0.9  # least distance within the crowd, in mean diameters
_CROWD_TRIALS = 20


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Particles that are in images, beside the one that an image is of."""

    image_index: NDArray[np.int64]  # (m,)
    species: NDArray[np.int64]  # (m,)
    rotations: NDArray[np.float64]  # (m, 3, 3)
    shifts_yx: NDArray[np.float64]  # (m, 2) px from the centre


def join_copies(parts: Sequence[Copies]) -> Copies:
    """Put the copies of several sources together, in their order."""
    return Copies(
        image_index=np.concatenate([p.image_index for p in parts]),
        species=np.concatenate([p.species for p in parts]),
        rotations=np.concatenate([p.rotations for p in parts]),
        shifts_yx=np.concatenate([p.shifts_yx for p in parts]),
    )


def copies_in_pairs(
    images: NDArray[np.int64],
    centred: Copies,
    diameters: NDArray[np.float64],
    generator: np.random.Generator,
) -> Copies:
    """Put two particles of one species into each image, so near that compact ones overlap.

    Each lies 0.25 to 0.55 diameters from the middle, on opposite sides.

    Parameters
    ----------
    images
        (k,) the images that get a pair.
    centred
        The particle that would have been in each image of the batch, one for each image.
    diameters
        (species,) px.
    generator
        Source of randomness.
    """
    size = diameters[centred.species[images]]
    first = generator.uniform(*_FROM_BOTH, len(images))
    second = generator.uniform(_FROM_BOTH[0], np.clip(_LARGEST_GAP - first, *_FROM_BOTH))
    angle = generator.uniform(0, 2 * math.pi, len(images))
    other = angle + math.pi + generator.normal(0, 0.4, len(images))
    turned = euler_matrices(draw_angles(len(images), generator=generator))
    middle = centred.shifts_yx[images]
    one = middle + (size * first)[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    two = middle + (size * second)[:, None] * np.stack([np.sin(other), np.cos(other)], 1)
    return Copies(
        image_index=np.tile(images, 2),
        species=np.tile(centred.species[images], 2),
        rotations=np.concatenate([centred.rotations[images], turned]),
        shifts_yx=np.concatenate([one, two]),
    )


def copies_of_some(
    images: NDArray[np.int64], centred: Copies, generator: np.random.Generator
) -> Copies:
    """Take the particle that would have been there, in half of these images."""
    kept = images[generator.random(len(images)) < 0.5]
    return Copies(
        image_index=kept,
        species=centred.species[kept],
        rotations=centred.rotations[kept],
        shifts_yx=centred.shifts_yx[kept],
    )


def copies_in_the_crowd(
    mean_number: float,
    centred: Copies,
    present: Copies,
    models: Sequence[Model],
    *,
    pixel_size: float,
    preferred_fraction: float,
    generator: np.random.Generator,
) -> Copies:
    """Draw the particles that lie near those of a dense field.

    Their number is Poisson distributed, their density even from 0.95 to 1.6 diameters; none
    lies nearer than 0.9 diameters to another, and one that finds no room is left out.
    Diameters are the mean of those of the two particles.

    Parameters
    ----------
    mean_number
        In an image, on average.
    centred
        The particle that is, or would have been, in each image of the batch.
    present
        Other particles that are already there.
    models
        The species, equally frequent.
    pixel_size
        A/px.
    preferred_fraction
        Share of the orientations near a preferred view.
    generator
        Source of randomness.
    """
    diameters = np.array([m.diameter for m in models]) / pixel_size
    images: list[int] = []
    species: list[int] = []
    places: list[NDArray[np.float64]] = [np.empty((0, 2))]
    for image, number in enumerate(generator.poisson(mean_number, len(centred.species)).tolist()):
        there = present.image_index == image
        taken = np.concatenate([centred.shifts_yx[image : image + 1], present.shifts_yx[there]])
        sizes = diameters[np.append(centred.species[image], present.species[there])]
        for _ in range(number):
            kind = int(generator.integers(len(models)))
            place = _find_room(taken, (sizes + diameters[kind]) / 2, generator)
            if place is None:
                continue
            taken, sizes = np.vstack([taken, place]), np.append(sizes, diameters[kind])
            images.append(image)
            species.append(kind)
            places.append(place[None])
    angles = draw_angles(len(images), generator=generator, preferred_fraction=preferred_fraction)
    return Copies(
        image_index=np.array(images, np.int64),
        species=np.array(species, np.int64),
        rotations=euler_matrices(angles),
        shifts_yx=np.concatenate(places),
    )


def _find_room(
    taken: NDArray[np.float64], reach: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64] | None:
    """Place near the first of those there, (2,) px, clear of all; None if none was found."""
    low, high = _CROWD_RANGE
    for _ in range(_CROWD_TRIALS):
        away = reach[0] * math.sqrt(generator.uniform(low**2, high**2))
        angle = generator.uniform(0, 2 * math.pi)
        place: NDArray[np.float64] = taken[0] + away * np.array([math.sin(angle), math.cos(angle)])
        if (np.linalg.norm(taken - place, axis=1) >= _CROWD_SEPARATION * reach).all():
            return place
    return None
