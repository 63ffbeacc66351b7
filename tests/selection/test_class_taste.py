"""A person's choices move the score as far as they foretell other choices, and no further."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from cryopick.errors import DataError
from cryopick.io.weights import write_weights
from cryopick.selection.class_agreement import measure_agreement
from cryopick.selection.class_features import GROUPS, class_inputs
from cryopick.selection.class_network import ClassNetwork
from cryopick.selection.class_scorer import (
    ClassScorer,
    Taste,
    read_scorer,
    score_classes,
    to_weights,
)
from cryopick.selection.class_taste import (
    FREEDOMS,
    NOTHING,
    Freedom,
    JudgedClasses,
    fit_taste,
    learn_taste,
)

LATENT, VALUES = 10, 72
PERSONS = {
    "follows the score": lambda score, seen, rng: score >= 0.5,
    "follows the score, with slips": lambda score, seen, rng: (score >= 0.5) ^ (rng.random() < 0.1),
    "as the score says": lambda score, seen, rng: rng.random() < score,
    "strict": lambda score, seen, rng: score >= 0.9,
    "likes another thing": lambda score, seen, rng: seen[1] > 0,
    "at random": lambda score, seen, rng: rng.random() < 0.4,
}


def judge(person, *, seed, runs=3, classes=40):
    """Runs whose hidden values mix what can be seen; the score is one of the things, in noise."""
    mix = np.random.default_rng(99).normal(size=(LATENT, VALUES)) / LATENT**0.5
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(runs):
        seen = rng.normal(size=(classes, LATENT))
        score = expit(3 * seen[:, 0] + rng.normal(size=classes))
        hidden = 0.3 + seen @ mix + 0.1 * rng.normal(size=(classes, VALUES))
        chosen = [PERSONS[person](s, f, rng) for s, f in zip(score, seen, strict=True)]
        found.append(JudgedClasses(score=score, hidden=hidden, is_selected=np.array(chosen)))
    return found


def agreement(taste, runs):
    """How a taste agrees with runs that it was not learned from."""
    score, hidden = (np.concatenate([getattr(r, n) for r in runs]) for n in ("score", "hidden"))
    is_selected = np.concatenate([r.is_selected for r in runs])
    changed = score if taste is None else taste.apply(score, hidden)
    return measure_agreement(changed, is_selected, np.ones(len(score)))


@pytest.fixture
def inputs():
    rng = np.random.default_rng(5)
    y, x = np.indices((32, 32)) - 16
    sizes = rng.uniform(3, 7, (6, 1, 1))
    blobs = np.exp(-(x**2 + y**2) / (2 * sizes**2)) + 0.05 * rng.normal(size=(6, 32, 32))
    return class_inputs(blobs.astype(np.float32), pixel_size=4.0, mask_diameter=100.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("runs", [1, 3])
def test_another_taste_is_learned_and_holds_for_runs_not_seen(seed, runs):
    learned = learn_taste(judge("likes another thing", seed=seed, runs=runs, classes=60))

    others = judge("likes another thing", seed=seed + 50, runs=4)
    assert agreement(None, others).auc < 0.6
    assert agreement(learned.taste, others).auc > 0.9
    assert learned.before.auc < 0.65
    assert learned.after.auc > 0.9
    assert learned.after.accuracy > 0.8


@pytest.mark.parametrize("seed", range(3))
def test_a_strict_person_moves_the_threshold_and_keeps_the_order(seed):
    learned = learn_taste(judge("strict", seed=seed))

    others = judge("strict", seed=seed + 50, runs=4)
    assert agreement(None, others).accuracy < 0.85
    assert agreement(learned.taste, others).accuracy > 0.93
    assert agreement(learned.taste, others).auc > 0.99


@pytest.mark.parametrize("person", ["follows the score", "follows the score, with slips"])
@pytest.mark.parametrize("seed", range(3))
def test_choices_that_follow_the_score_keep_its_order(person, seed):
    learned = learn_taste(judge(person, seed=seed))

    others = judge(person, seed=seed + 50, runs=4)
    assert agreement(learned.taste, others).auc >= agreement(None, others).auc - 1e-9
    assert (learned.after.accuracy, learned.after.auc) >= (
        learned.before.accuracy,
        learned.before.auc,
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("runs", [1, 4])
def test_random_choices_change_nothing(seed, runs):
    learned = learn_taste(judge("at random", seed=seed, runs=runs))

    assert learned.taste is None
    assert learned.freedom == NOTHING
    assert learned.after == learned.before


@pytest.mark.parametrize("seed", range(4))
def test_choices_drawn_from_the_score_change_nothing(seed):
    assert learn_taste(judge("as the score says", seed=seed, runs=4)).taste is None


def test_the_least_change_within_a_standard_error_of_the_best_is_taken():
    found = [learn_taste(judge("strict", seed=seed, runs=2, classes=15)) for seed in range(6)]

    places = []
    for learned in found:
        place = FREEDOMS.index(learned.freedom)
        taken = learned.trials[place]
        assert taken.excess <= taken.error
        assert all(t.excess > t.error for t in learned.trials[:place] if t.is_good)
        good = [t for t in learned.trials if t.is_good]
        best = min(good, key=lambda t: t.log_loss)
        assert best.excess == 0
        places.append(learned.trials.index(best) - place)
    assert max(places) > 0  # the rule makes a difference


def test_a_prior_without_freedom_gives_the_identity_and_a_narrow_one_nearly():
    runs = judge("likes another thing", seed=0)

    taste = fit_taste(runs, NOTHING)
    near = fit_taste(runs, Freedom(level=1e-4, turn=1e-4))

    assert (taste.slope, taste.offset) == (1.0, 0.0)
    assert not taste.turn.any()
    score = np.linspace(0.001, 0.999, len(runs[0].score))
    np.testing.assert_allclose(taste.apply(score, runs[0].hidden), score, rtol=1e-12)
    np.testing.assert_allclose(near.apply(score, runs[0].hidden), score, atol=1e-5)


def test_freedom_lowers_the_loss_of_the_choices_learned_from_step_by_step():
    runs = judge("likes another thing", seed=1)

    losses = [agreement(fit_taste(runs, freedom), runs).log_loss for freedom in FREEDOMS]

    assert np.all(np.diff(losses) < 0)


def test_no_taste_near_by_has_a_larger_posterior():
    runs = judge("strict", seed=3, runs=2, classes=30)
    taste = fit_taste(runs, Freedom(level=2.0, turn=0.0))
    logits = np.concatenate([np.log(r.score / (1 - r.score)) for r in runs]).clip(-9.2, 9.2)
    is_selected = np.concatenate([r.is_selected for r in runs])
    width = 2.0 / np.sqrt(np.mean(logits**2))  # of the slope, as far as a typical logit goes

    def log_posterior(slope, offset):
        chance = expit(slope * logits + offset)
        said = np.log(np.where(is_selected, chance, 1 - chance)).sum()
        return said - ((slope - 1) / width) ** 2 / 2 - (offset / 2.0) ** 2 / 2

    best = log_posterior(taste.slope, taste.offset)
    for way in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3), (1e-3, -1e-3)):
        assert log_posterior(taste.slope + way[0], taste.offset + way[1]) < best


def test_the_order_of_runs_and_classes_does_not_count():
    runs = judge("likes another thing", seed=2)
    shuffle = np.random.default_rng(0).permutation(len(runs[0].score))
    shuffled = [
        JudgedClasses(**{k: getattr(r, k)[shuffle] for k in ("score", "hidden", "is_selected")})
        for r in reversed(runs)
    ]

    one, other = learn_taste(runs), learn_taste(shuffled)

    assert (one.taste.slope, one.taste.offset) == (other.taste.slope, other.taste.offset)
    np.testing.assert_array_equal(one.taste.turn, other.taste.turn)
    assert (one.before, one.after, one.trials) == (other.before, other.after, other.trials)
    np.testing.assert_array_equal(one.score_after[0][shuffle], other.score_after[-1])


def test_empty_classes_and_constant_hidden_values_do_not_count():
    runs = judge("likes another thing", seed=4)
    widened = [
        JudgedClasses(
            score=np.append(r.score, np.nan),
            hidden=np.pad(r.hidden, ((0, 1), (0, 1)), constant_values=7.0),
            is_selected=np.append(r.is_selected, True),
        )
        for r in runs
    ]

    one, other = learn_taste(runs), learn_taste(widened)

    assert other.n_classes == one.n_classes == 120
    assert other.taste.turn[-1] == 0
    np.testing.assert_allclose(other.taste.turn[:-1], one.taste.turn, rtol=1e-6, atol=1e-9)
    assert np.isnan(other.score_after[0][-1])


def test_a_large_run_counts_no_more_than_a_small_one():
    small = judge("strict", seed=5, runs=1, classes=20)
    large = judge("follows the score", seed=6, runs=1, classes=20)
    thrice = [
        JudgedClasses(**{k: np.repeat(getattr(large[0], k), 3, axis=0) for k in
                         ("score", "hidden", "is_selected")})
    ]  # fmt: skip
    freedom = Freedom(level=100.0, turn=0.0)  # so wide that only the choices count

    one, other = fit_taste(small + large, freedom), fit_taste(small + thrice, freedom)

    assert other.slope == pytest.approx(one.slope, rel=1e-2)
    assert other.offset == pytest.approx(one.offset, rel=1e-2)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        (np.arange(9) < 4, "must be of at least 10 classes with particles; got 9"),
        (np.ones(12, bool), "must keep some classes and leave out others; got all of 12 kept"),
        (np.zeros(12, bool), "must keep some classes and leave out others; got none of 12 kept"),
    ],
)
def test_too_little_to_learn_from_is_refused(chosen, sentence):
    run = JudgedClasses(
        score=np.linspace(0.1, 0.9, len(chosen)),
        hidden=np.zeros((len(chosen), 3)),
        is_selected=chosen,
    )

    with pytest.raises(DataError, match=sentence):
        learn_taste([run])


def test_agreement_by_counting_pairs():
    rng = np.random.default_rng(0)
    score, is_selected = rng.integers(0, 6, 40) / 5, rng.random(40) < 0.4
    weights = rng.uniform(0.5, 2, 40)

    found = measure_agreement(score, is_selected, weights)

    pairs = [
        (weights[a] * weights[b], np.sign(score[a] - score[b]))
        for a in np.flatnonzero(is_selected)
        for b in np.flatnonzero(~is_selected)
    ]
    right = sum(w * (1 + sign) / 2 for w, sign in pairs) / sum(w for w, _ in pairs)
    assert found.auc == pytest.approx(right)
    is_kept = score >= 0.5
    assert found.accuracy == pytest.approx(np.average(is_kept == is_selected, weights=weights))


def test_weights_with_a_taste_give_the_same_scores_after_a_trip_through_a_file(tmp_path, inputs):
    networks = tuple(ClassNetwork(GROUPS, seed=k).eval() for k in range(2))
    values = sum(n.output.in_features for n in networks)
    turn = np.random.default_rng(1).normal(size=values)
    bare = ClassScorer(networks=networks, calibration=np.array([[9.0, 9.0], [0.0, 0.0]]))
    scorer = replace(bare, taste=Taste(slope=0.7, offset=-0.3, turn=turn))
    write_weights(tmp_path / "w.npz", to_weights(scorer, {"made_by": "a test"}))

    before, after = (score_classes(inputs, s) for s in (scorer, read_scorer(tmp_path / "w.npz")))

    np.testing.assert_array_equal(after.score, before.score)
    assert np.abs(after.score - score_classes(inputs, bare).score).max() > 0.01
