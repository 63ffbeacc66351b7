"""Scores of picks in tomograms: one to one, in A, each error seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import ParameterError
from cryopick.tables.tomograms import TomogramPicks, tomogram_table
from cryopick.tomogram.evaluate import evaluate_tomogram_picks, match_positions

TOMOGRAMS = tomogram_table([("a", (100, 100, 100), 10.0), ("b", (50, 60, 70), 5.0)])


def table(tomograms: list[str], places: object, **columns: object) -> TomogramPicks:
    rows = pd.DataFrame(np.reshape(np.array(places, float), (-1, 3)), columns=["x", "y", "z"])
    rows.insert(0, "tomogram", tomograms)
    return TomogramPicks(rows=rows.assign(**columns), tomograms=TOMOGRAMS)


def spread_truth(count: int = 60) -> TomogramPicks:
    """Particles on a grid 150 A apart, of three species."""
    steps = np.stack(np.meshgrid(*[np.arange(6) * 150.0 + 80] * 3), -1).reshape(-1, 3)[:count]
    return table(["a"] * count, steps, species=np.resize(["one", "two", "three"], count))


def test_truth_itself_scores_one() -> None:
    truth = spread_truth()

    scores = evaluate_tomogram_picks(truth, truth, distance=100)

    assert (scores.precision, scores.recall, scores.f1, scores.f4) == (1, 1, 1, 1)
    assert scores.localisation_error == 0
    assert scores.recall_of_species == {"one": 1, "three": 1, "two": 1}


def test_a_second_pick_on_a_particle_is_an_error_that_any_match_does_not_see() -> None:
    truth = spread_truth()
    twice = truth.rows.iloc[:20].assign(x=lambda rows: rows["x"] + 30)
    picks = TomogramPicks(rows=pd.concat([truth.rows, twice]), tomograms=TOMOGRAMS)

    scores = evaluate_tomogram_picks(picks, truth, distance=100)

    assert scores.n_matched == 60
    assert scores.precision == pytest.approx(60 / 80)
    assert scores.any_match_precision == 1
    assert scores.f1 == pytest.approx(2 * 60 / (80 + 60))


def test_the_best_pick_claims_the_particle() -> None:
    picks = np.array([[0.0, 0, 0], [5, 0, 0]])

    claimed = match_positions(picks, np.array([1.0, 2.0]), np.zeros((1, 3)), radius=10)

    assert claimed.tolist() == [-1, 0]


def test_matches_reach_as_far_as_the_distance_in_angstrom_whatever_the_voxel() -> None:
    truth = table(["a", "b"], [[200, 200, 200], [100, 100, 100]])
    inside = table(["a", "b"], [[200, 260, 280], [100, 160, 180]])

    near = evaluate_tomogram_picks(inside, truth, distance=100.1)
    far = evaluate_tomogram_picks(inside, truth, distance=99.9)

    assert (near.n_matched, far.n_matched) == (2, 0)
    assert near.localisation_error == pytest.approx(100)
    assert near.localisation_error_voxels == pytest.approx((10 + 20) / 2)
    assert near.bias == pytest.approx((0, 60, 80))
    assert far.localisation_error is None


def test_picks_of_one_tomogram_match_no_particle_of_another() -> None:
    truth = table(["a"], [[100, 100, 100]])
    picks = table(["b"], [[100, 100, 100]])

    assert evaluate_tomogram_picks(picks, truth, distance=100).n_matched == 0


def test_thresholds_find_the_best_f1_and_a_perfect_order_has_average_precision_one() -> None:
    truth = spread_truth(30)
    wrong = truth.rows.assign(tomogram="b", x=300.0, y=280.0, z=240.0)
    picks = pd.concat([truth.rows.assign(score=2.0), wrong.assign(score=1.0)])

    scores = evaluate_tomogram_picks(
        TomogramPicks(rows=picks, tomograms=TOMOGRAMS), truth, distance=50
    )

    assert scores.f1 == pytest.approx(2 * 30 / 90)
    assert scores.best_f1 == 1
    assert scores.average_precision == 1


def test_recall_of_random_picks_is_the_share_of_the_volume_near_particles() -> None:
    truth = table(["a"] * 2, [[250, 250, 250], [750, 750, 750]])
    draw = np.random.default_rng(0)
    picks = table(["a"] * 50, draw.uniform(0, 1000, (50, 3)))

    chance = [
        evaluate_tomogram_picks(picks, truth, distance=150, seed=seed).random_recall
        for seed in range(60)
    ]

    volume = 4 / 3 * np.pi * 150**3 / 1000**3
    assert np.mean(chance) == pytest.approx(1 - (1 - volume) ** 50, abs=0.12)


def test_kinds_may_have_any_numbers() -> None:
    truth = spread_truth(30)
    kinds = truth.rows["species"].map({"one": 3, "two": 1, "three": 2}).to_numpy().copy()
    kinds[:3] = 9
    picks = TomogramPicks(rows=truth.rows.assign(kind=kinds), tomograms=TOMOGRAMS)

    scores = evaluate_tomogram_picks(picks, truth, distance=50)

    assert scores.kind_accuracy == pytest.approx(27 / 30)


@pytest.mark.parametrize("count", [0, 5])
def test_no_picks_or_no_truth_score_nothing(count: int) -> None:
    empty, some = spread_truth(0), spread_truth(count)

    without_picks = evaluate_tomogram_picks(empty, some, distance=50)
    without_truth = evaluate_tomogram_picks(some, empty, distance=50)

    assert (without_picks.f1, without_picks.recall) == (0, 0)
    assert (without_truth.f1, without_truth.n_picks) == (0, count)


def test_a_distance_of_zero_is_refused() -> None:
    with pytest.raises(ParameterError, match="distance must be above 0 A"):
        evaluate_tomogram_picks(spread_truth(), spread_truth(), distance=0)
