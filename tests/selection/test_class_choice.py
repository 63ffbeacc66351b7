"""Choosing classes by score, by size and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cryopick.errors import ParameterError
from cryopick.selection.class_choice import (
    best_first,
    choose_by_score,
    choose_these,
    classes_of_numbers,
)
from cryopick.selection.select_classes_parameters import (
    SelectClassesParameters,
    parse_class_numbers,
)

SEEDS = range(20)


def run_of(seed: int, n: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties and without a value, and counts with empty classes."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(size=n).round(1 if seed % 2 else 6)
    count = np.arange(1.0, n + 1)  # all differ, so that every tie can be broken
    rng.shuffle(count)
    score[rng.integers(0, n, 3)] = np.nan
    empty = rng.integers(0, n, 3)
    score[empty], count[empty] = np.nan, 0
    return score, count


def choose(score, count, **parameters):
    return choose_by_score(score, count, SelectClassesParameters(**parameters))


def test_a_score_at_the_threshold_is_kept_and_every_class_has_its_word():
    score = np.array([0.5, 0.49, np.nan, 0.9, np.nan, np.nan])
    count = np.array([9.0, 8, 7, 6, 0, np.nan])

    choice = choose(score, count)

    assert choice.is_selected.tolist() == [True, False, False, True, False, False]
    words = ["score", "below the threshold", "not scored", "score", "empty", "empty"]
    assert list(choice.why) == words
    assert choice.threshold == 0.5


def test_two_thresholds_are_refused_and_the_one_in_force_is_told():
    for minimum in (0.3, 0.5):  # what is given counts, also where it is the default
        with pytest.raises(ParameterError, match=r"not come with --relative-threshold.*got 0\.\d"):
            SelectClassesParameters(relative_threshold=0.9, minimum_score=minimum)
        with pytest.raises(ParameterError, match="minimum_score must not come with --classes"):
            SelectClassesParameters(classes="1", minimum_score=minimum)

    assert (
        SelectClassesParameters().to_dict() == SelectClassesParameters(minimum_score=0.5).to_dict()
    )
    assert SelectClassesParameters(relative_threshold=0.9).to_dict()["minimum_score"] is None
    assert choose(np.array([0.4, 0.2]), np.ones(2), relative_threshold=0.9).threshold == 0.9 * 0.4


@pytest.mark.parametrize("seed", SEEDS)
def test_a_higher_threshold_never_keeps_more(seed):
    score, count = run_of(seed)

    for name in ("minimum_score", "relative_threshold"):
        kept = [
            choose(score, count, **{name: t}, minimum_classes=4).is_selected
            for t in np.linspace(0, 1, 23)
        ]
        for lower, higher in itertools.pairwise(kept):
            assert (lower >= higher).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_next_best_are_added_until_there_are_enough_and_no_more(seed):
    score, count = run_of(seed)
    can_be_kept = np.isfinite(score) & (count > 0)

    choice = choose(score, count, minimum_score=0.95, minimum_particles=150, minimum_classes=5)

    kept = choice.is_selected
    assert kept.sum() >= 5
    assert count[kept].sum() >= 150
    assert score[kept].min() >= score[can_be_kept & ~kept].max()
    added = np.array([w == "added to reach the number" for w in choice.why])
    last = [k for k in best_first(score, count) if added[k]][-1]
    assert kept.sum() - 1 < 5 or count[kept].sum() - count[last] < 150
    assert (score[added] < 0.95).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_the_classes_does_not_matter(seed):
    score, count = run_of(seed)
    shuffled = np.random.default_rng(seed).permutation(len(score))
    parameters = {"minimum_score": 0.8, "minimum_particles": 200}

    before = choose(score, count, **parameters)
    after = choose(score[shuffled], count[shuffled], **parameters)

    np.testing.assert_array_equal(before.is_selected[shuffled], after.is_selected)
    assert [before.why[k] for k in shuffled] == list(after.why)


def test_more_than_there_is_keeps_all_that_have_a_score():
    score, count = run_of(3)

    choice = choose(score, count, minimum_score=1, minimum_particles=10**6)

    np.testing.assert_array_equal(choice.is_selected, np.isfinite(score) & (count > 0))


def test_a_share_of_the_best_score_is_what_it_says():
    score, count = np.array([0.2, 0.4, 0.3, 0.19]), np.full(4, 5.0)

    choice = choose(score, count, relative_threshold=0.5)

    assert choice.is_selected.tolist() == [True, True, True, False]
    assert choice.threshold == pytest.approx(0.2)


def test_of_equal_scores_the_larger_class_is_the_better_one_then_the_first():
    score = np.array([0.3, 0.3, 0.3, np.nan, 0.4])
    count = np.array([5.0, 9, 9, 99, np.nan])

    assert best_first(score, count).tolist() == [4, 1, 2, 0, 3]


def test_a_choice_by_hand_keeps_all_of_it_but_empty_classes():
    score = np.array([0.1, 0.9, np.nan, np.nan])
    count = np.array([5.0, 5, 5, 0])

    choice = choose_these(np.array([True, False, True, True]), score, count)

    assert choice.is_selected.tolist() == [True, False, True, False]
    assert choice.why == ("chosen", "not chosen", "chosen", "empty")
    assert choice.threshold is None


def test_numbers_are_read_with_ranges():
    assert parse_class_numbers(" 12, 1,3-5,4") == (1, 3, 4, 5, 12)
    assert classes_of_numbers((1, 4), n_classes=4).tolist() == [True, False, False, True]


@pytest.mark.parametrize("text", ["", "0", "a", "3-1", "1,,2", "-3", "1.5", "1-", "1-9999999999"])
def test_what_is_no_list_of_numbers_is_refused(text):
    with pytest.raises(ParameterError, match="classes must be numbers from 1 and ranges"):
        SelectClassesParameters(classes=text)


def test_a_number_beyond_the_classes_is_refused():
    with pytest.raises(ParameterError, match=r"be from 1 to 4, the classes of the run; got 5\."):
        classes_of_numbers((1, 5), n_classes=4)


@pytest.mark.parametrize(
    "rule",
    [{"minimum_score": 0.6}, {"relative_threshold": 0.5}, {"minimum_particles": 5},
     {"minimum_classes": 2}],
)  # fmt: skip
def test_numbers_and_a_rule_on_scores_contradict_each_other(rule):
    with pytest.raises(ParameterError, match="must not come with --classes"):
        SelectClassesParameters(classes="1", **rule)
