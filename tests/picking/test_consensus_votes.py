"""Claims about votes beside a network, on simulated pickers that agree for two reasons."""

import numpy as np
from scipy.special import expit

from cryopick.picking.consensus_reliability import fit_reliability

NUMBER = 3000


def world(of_class, of_clearness, *, seed=1):
    """Truth, calibrated log-odds of a network, and votes of four pickers."""
    random = np.random.default_rng(seed)
    is_true = random.random(NUMBER) < 0.5
    known = random.normal(np.where(is_true, 2.0, -2.0), 2.0)  # their own log-odds
    shared = random.normal(0, 1, NUMBER)
    odds = (
        -1.5
        + of_class * is_true[:, None]
        + of_clearness * (known / 2 + 1.5 * shared)[:, None]
        + np.array([0.0, 0.3, -0.3, 0.2])
    )
    has_vote = random.random(odds.shape) < expit(odds)
    return is_true, known, has_vote


def brier(is_true, chance):
    return float(np.mean((chance - is_true) ** 2))


def test_pickers_that_find_the_same_things_easy_do_not_overrule_the_network():
    is_true, known, has_vote = world(of_class=0.0, of_clearness=0.5)
    chance = fit_reliability(has_vote, prior=known).probability

    assert brier(is_true, chance) < brier(is_true, expit(known)) + 0.015


def test_votes_for_particles_count_beside_the_network():
    is_true, known, has_vote = world(of_class=3.5, of_clearness=0.0)
    chance = fit_reliability(has_vote, prior=known).probability
    by_votes = fit_reliability(has_vote[has_vote.any(1)]).probability

    assert brier(is_true, chance) < 0.5 * brier(is_true, expit(known))
    assert brier(is_true, chance) < 0.6 * brier(is_true[has_vote.any(1)], by_votes)


def test_what_only_the_network_has_found_is_judged_by_it():
    is_true, known, has_vote = world(of_class=1.0, of_clearness=0.3)
    nobody = ~has_vote.any(1)
    found = fit_reliability(has_vote, prior=known)

    assert nobody.sum() > 100
    assert brier(is_true, found.probability) < brier(is_true, expit(known))
    assert abs(found.probability[nobody].mean() - is_true[nobody].mean()) < 0.1
    assert found.n_unseen == 0
