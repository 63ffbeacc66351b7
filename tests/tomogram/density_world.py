"""Small tomograms with known particles, made without the project's simulator."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from cryopick.tomogram.locate import Located, locate_particles
from cryopick.tomogram.locate_parameters import TomogramPickParameters
from cryopick.tomogram.locate_source import ArraySource

VOXEL = 10.0


def distance_grid(shape, centre):
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)))


def add_ball(volume, centre, radius, density=1.0):
    volume += density * np.clip(radius + 0.5 - distance_grid(volume.shape, centre), 0, 1)


def places_apart(shape, number, *, distance, margin, seed):
    generator = np.random.default_rng(seed)
    places: list[NDArray[np.float64]] = []
    while len(places) < number:
        place = generator.uniform(margin, np.array(shape) - margin)
        if all(np.linalg.norm(place - p) >= distance for p in places):
            places.append(place)
    return np.array(places)


def field_of_balls_and_dumbbells(shape=(64, 128, 128), number=12, *, seed=0, noise=2.0):
    """Dark balls of 160 A and dumbbells of 210 A in white noise; volume and centres."""
    generator = np.random.default_rng(seed + 1000)
    volume = np.zeros(shape, np.float32)
    centres = places_apart(shape, number, distance=28, margin=14, seed=seed)
    for count, centre in enumerate(centres):
        if count % 2:
            way = generator.standard_normal(3)
            way *= 6.5 / np.linalg.norm(way)
            add_ball(volume, centre + way, 4.5)
            add_ball(volume, centre - way, 4.5)
        else:
            add_ball(volume, centre, 8.0)
    volume += noise * generator.standard_normal(shape).astype(np.float32)
    return -volume, centres


def locate(volume, *, segmentation=None, device="cpu", **choices) -> Located:
    return locate_particles(
        ArraySource(volume),
        voxel_size=VOXEL,
        parameters=TomogramPickParameters(**choices),
        evidence=ArraySource(np.zeros(volume.shape, np.float16)),
        device=device,
        segmentation=None if segmentation is None else ArraySource(segmentation),
    )


def matched_distances(found, truth, *, within=10.0):
    """Distances of one-to-one matches, voxels."""
    if not len(found) or not len(truth):
        return np.zeros(0)
    distance = np.linalg.norm(found[:, None] - truth[None], axis=-1)
    rows, columns = linear_sum_assignment(np.where(distance <= within, distance - 1000, 0))
    matched = distance[rows, columns]
    return matched[matched <= within]


def f1(found, truth, *, within=10.0):
    return 2 * len(matched_distances(found, truth, within=within)) / (len(found) + len(truth))
