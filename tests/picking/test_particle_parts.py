"""Parts of particles are gathered by larger picks, and lie closer than particles can."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.picking.particle_parts import are_parts, overlap

SIDE = 4000.0  # A


def scattered(count, *, apart, seed=0):
    """Points anywhere, but never closer than a distance."""
    random, kept = np.random.default_rng(seed), np.empty((0, 2))
    while len(kept) < count:
        point = random.uniform(0, SIDE, 2)
        if not len(kept) or np.hypot(*(kept - point).T).min() >= apart:
            kept = np.vstack([kept, point])
    return kept


def test_random_points_overlap_as_often_as_chance_has_it():
    points = [scattered(400, apart=0.0, seed=i) for i in range(20)]

    assert overlap(points, diameter=100.0) == pytest.approx(1.0, abs=0.15)


def test_particles_that_do_not_overlap_are_whole():
    points = [scattered(400, apart=100.0, seed=i) for i in range(4)]

    assert overlap(points, diameter=100.0) == 0.0


def test_too_few_pairs_say_nothing():
    assert np.isnan(overlap([scattered(20, apart=0.0)], diameter=100.0))


def test_what_a_larger_size_gathers_is_a_part():
    """Four corners of each particle."""
    wholes = scattered(50, apart=220.0)
    corners = 40.0 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    parts = (wholes[:, None] + corners).reshape(-1, 2)

    is_part = are_parts(np.array([80.0, 160.0]), [[parts], [wholes]], np.array([2000.0, 500.0]))

    assert is_part.tolist() == [True, False]


def test_small_particles_that_crowd_are_whole():
    """One large pick in ten holds two small ones."""
    large = scattered(200, apart=220.0)
    small = np.concatenate([large, large[:20] + 50.0])

    is_part = are_parts(np.array([80.0, 160.0]), [[small], [large]], np.array([2000.0, 1500.0]))

    assert not is_part.any()


def test_picks_closer_than_particles_can_be_are_parts():
    """One or two domains of each particle are seen: few wholes gather two, but they are close."""
    wholes = [scattered(250, apart=150.0, seed=i) for i in range(4)]
    angles = [np.random.default_rng(i).uniform(0, 2 * np.pi, (250, 2)) for i in range(4)]
    parts = []
    for centers, turns in zip(wholes, angles, strict=True):
        first, second = (centers + 30.0 * np.column_stack([np.cos(t), np.sin(t)]) for t in turns.T)
        parts.append(np.concatenate([first, second[:80]]))
    picks = [parts, wholes]

    sizes, gains = np.array([70.0, 110.0]), np.array([2000.0, 1000.0])
    assert are_parts(sizes, picks, gains).tolist() == [True, False]
    too_weak = np.array([2000.0, 500.0])
    assert not are_parts(sizes, picks, too_weak).any()
