"""Picks of several pickers are joined into candidates, in whatever order they come."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.errors import ParameterError
from cryopick.picking.consensus_points import join_picks

RADIUS = 10.0


def scattered(count, *, side=2000.0, apart=40.0, seed=0):
    random, kept = np.random.default_rng(seed), np.empty((0, 2))
    while len(kept) < count:
        point = random.uniform(0, side, 2)
        if not len(kept) or np.hypot(*(kept - point).T).min() >= apart:
            kept = np.vstack([kept, point])
    return kept


def test_picks_of_one_particle_become_one_candidate_with_the_mean_position():
    true = scattered(100)
    random = np.random.default_rng(1)
    picks = [true + random.normal(0, 1.5, true.shape) for _ in range(4)]
    seen = [random.random(100) < share for share in (0.9, 0.8, 0.7, 0.6)]

    found = join_picks([p[s] for p, s in zip(picks, seen, strict=True)], [None] * 4, radius=RADIUS)

    assert len(found.positions) == np.any(seen, axis=0).sum()
    for k, point in enumerate(true):
        if not any(s[k] for s in seen):
            continue
        own = np.hypot(*(found.positions - point).T).argmin()
        mean = np.mean([p[k] for p, s in zip(picks, seen, strict=True) if s[k]], axis=0)
        np.testing.assert_allclose(found.positions[own], mean)
        assert found.has_vote[own].tolist() == [s[k] for s in seen]


def test_neither_the_order_of_pickers_nor_that_of_picks_matters():
    random = np.random.default_rng(2)
    picks = [random.uniform(0, 300, (150, 2)) for _ in range(3)]  # crowded: much to decide
    scores = [random.random(150) for _ in range(3)]
    one = join_picks(picks, scores, radius=RADIUS)

    for seed in range(5):
        shuffled = np.random.default_rng(seed)
        order = shuffled.permutation(3)
        turns = [shuffled.permutation(150) for _ in range(3)]
        other = join_picks(
            [picks[k][turns[k]] for k in order], [scores[k][turns[k]] for k in order], radius=RADIUS
        )
        np.testing.assert_allclose(other.positions, one.positions)
        np.testing.assert_array_equal(other.has_vote, one.has_vote[:, order])
        np.testing.assert_array_equal(other.scores, one.scores[:, order])


def test_a_picker_has_one_vote_however_often_it_picks_a_particle():
    twice = np.array([[50.0, 50.0], [53.0, 50.0]])
    found = join_picks([twice, np.array([[51.0, 50.0]])], [np.array([0.2, 0.9]), None], radius=10.0)

    assert found.votes.tolist() == [2]
    assert found.scores[0, 0] == 0.9
    np.testing.assert_allclose(
        found.positions, [[52.0, 50.0]]
    )  # the best of the two, and the other


def test_a_chain_is_not_one_particle():
    """Three pickers, each 8 px from the next: the ends are 16 px apart."""
    found = join_picks(
        [np.array([[0.0, 0.0]]), np.array([[8.0, 0.0]]), np.array([[15.9, 0.0]])],
        [None] * 3,
        radius=RADIUS,
    )

    assert sorted(found.votes.tolist()) == [1, 2]


def test_a_picker_that_found_nothing_has_no_vote():
    found = join_picks([np.array([[5.0, 5.0]]), np.empty((0, 2))], [None, None], radius=RADIUS)

    assert found.has_vote.tolist() == [[True, False]]
    assert len(join_picks([np.empty((0, 2))] * 2, [None] * 2, radius=RADIUS).positions) == 0


def test_a_radius_must_be_above_zero():
    with pytest.raises(ParameterError, match="the radius must be above 0"):
        join_picks([np.empty((0, 2))], [None], radius=0.0)
