"""Claims about the reliability of pickers, on simulated votes whose truth is known."""

import numpy as np
import pytest

from cryopick.errors import ShapeError
from cryopick.picking.consensus_reliability import fit_reliability
from cryopick.picking.evaluate import average_precision

SENSITIVITY, FALSE = (0.9, 0.8, 0.7, 0.6), (0.05, 0.1, 0.3, 0.2)
PARTICLES, OTHERS = 2000, 3000


def votes(sensitivity=SENSITIVITY, false=FALSE, *, seed=1, apart=1.5):
    """Truth, votes and scores of candidates that anyone has voted for."""
    random = np.random.default_rng(seed)
    is_true = np.arange(PARTICLES + OTHERS) < PARTICLES
    has_vote = random.random((len(is_true), len(sensitivity))) < np.where(
        is_true[:, None], np.array(sensitivity), np.array(false)
    )
    scores = random.normal(size=has_vote.shape) + apart * is_true[:, None]
    scores[~has_vote] = np.nan
    found = has_vote.any(1)
    return is_true[found], has_vote[found], scores[found]


def precision(is_true, values):
    order = np.lexsort((np.random.default_rng(0).random(len(values)), -values))
    return average_precision(is_true[order], n_truth=PARTICLES)


def brier(is_true, chance):
    return float(np.mean((chance - is_true) ** 2))


@pytest.mark.parametrize("with_scores", [True, False])
def test_what_pickers_find_and_mistake_is_told_from_their_votes(with_scores):
    is_true, has_vote, scores = votes()
    found = fit_reliability(has_vote, scores=scores if with_scores else None)

    np.testing.assert_allclose(found.sensitivity, SENSITIVITY, atol=0.04)
    true_share = np.array([is_true[v].mean() for v in has_vote.T])
    np.testing.assert_allclose(found.false_share, 1 - true_share, atol=0.05)
    assert found.n_groups == 4
    assert 0 <= found.n_unseen < 20  # 2000 x 0.1 x 0.2 x 0.3 x 0.4 = 5 are expected


def test_probabilities_are_right_as_often_as_they_say():
    is_true, has_vote, scores = votes()
    chance = fit_reliability(has_vote, scores=scores).probability

    part = np.minimum((chance * 10).astype(int), 9)
    gaps = [abs((chance - is_true)[part == k].sum()) for k in range(10)]
    assert sum(gaps) / len(chance) < 0.025  # expected calibration error
    assert brier(is_true, chance) < 0.04


@pytest.mark.parametrize("number", [2, 3, 4])
def test_reliability_sorts_candidates_better_than_the_number_of_votes(number):
    is_true, has_vote, scores = votes(SENSITIVITY[:number], FALSE[:number])
    chance = fit_reliability(has_vote, scores=scores).probability

    assert precision(is_true, chance) > precision(is_true, has_vote.sum(1)) + 0.02


def test_copies_of_a_picker_have_one_vote_together():
    _, has_vote, scores = votes(SENSITIVITY[:3], FALSE[:3])
    alone = fit_reliability(has_vote, scores=scores)
    copied = [0, 1, 2, 2, 2]
    found = fit_reliability(has_vote[:, copied], scores=scores[:, copied])

    assert found.group.tolist() == [0, 1, 2, 2, 2]
    np.testing.assert_allclose(found.probability, alone.probability, atol=1e-6)


def test_three_copies_of_one_set_keep_the_order_of_its_scores():
    _, has_vote, scores = votes((0.9,), (0.3,))
    found = fit_reliability(np.repeat(has_vote, 3, 1), scores=np.repeat(scores, 3, 1))

    assert found.n_groups == 1
    np.testing.assert_array_equal(np.argsort(found.probability), np.argsort(scores[:, 0]))


def test_one_picker_at_two_thresholds_has_one_vote():
    _, has_vote, scores = votes(SENSITIVITY[:3], FALSE[:3])
    strict = has_vote[:, :1] & (scores[:, :1] > 0.7)
    both = np.concatenate([has_vote, strict], 1)
    found = fit_reliability(both, scores=np.concatenate([scores, scores[:, :1]], 1))

    assert found.group.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("number", [2, 3])
def test_a_picker_that_votes_at_random_costs_next_to_nothing(number):
    is_true, has_vote, scores = votes((*SENSITIVITY[:number], 0.3), (*FALSE[:number], 0.3))
    random = fit_reliability(has_vote, scores=scores).probability
    known = has_vote[:, :-1].any(1)
    without = fit_reliability(has_vote[known, :-1], scores=scores[known, :-1]).probability

    assert precision(is_true, random) > precision(is_true[known], without) - 0.01


def test_what_a_picker_has_not_seen_is_not_held_against_it():
    is_true, has_vote, _ = votes()
    is_seen = np.ones_like(has_vote)
    is_seen[::2, 0] = False
    has_vote = has_vote & is_seen
    kept = has_vote.any(1)
    is_true, has_vote, is_seen = is_true[kept], has_vote[kept], is_seen[kept]

    found = fit_reliability(has_vote, is_seen=is_seen)
    blind = fit_reliability(has_vote)

    assert abs(found.sensitivity[0] - SENSITIVITY[0]) < 0.05
    assert abs(blind.sensitivity[0] - SENSITIVITY[0]) > 0.3
    assert brier(is_true, found.probability) < brier(is_true, blind.probability)


def test_log_odds_from_elsewhere_are_used_as_far_as_they_are_worth():
    is_true, has_vote, scores = votes()
    random = np.random.default_rng(3)
    alone = fit_reliability(has_vote, scores=scores).probability
    good = fit_reliability(
        has_vote, scores=scores, prior=random.normal(6 * is_true - 3, 2.0)
    ).probability
    nothing = fit_reliability(  # calibrated, but it knows no more than how many are particles
        has_vote, scores=scores, prior=random.normal(0, 0.3, len(is_true))
    ).probability

    assert brier(is_true, good) < 0.6 * brier(is_true, alone)
    assert brier(is_true, nothing) < brier(is_true, alone) + 0.02  # independence is not trusted


def test_the_order_of_pickers_and_candidates_changes_nothing():
    _, has_vote, scores = votes()
    one = fit_reliability(has_vote, scores=scores)
    turn, order = np.random.default_rng(2).permutation(len(has_vote)), [2, 0, 3, 1]
    other = fit_reliability(has_vote[turn][:, order], scores=scores[turn][:, order])

    np.testing.assert_allclose(other.probability, one.probability[turn], atol=1e-6)
    np.testing.assert_allclose(other.sensitivity, one.sensitivity[order], atol=1e-6)


def test_nothing_comes_of_no_candidates():
    found = fit_reliability(np.zeros((0, 3), bool))

    assert found.probability.shape == (0,)
    assert found.sensitivity.tolist() == [0, 0, 0]


def test_arrays_must_match():
    with pytest.raises(ShapeError, match="scores must have shape"):
        fit_reliability(np.ones((4, 2), bool), scores=np.zeros((4, 3)))
