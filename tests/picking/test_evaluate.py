from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import ParameterError, ShapeError, TableError
from cryopick.picking.evaluate import evaluate_picks, match_picks


def table(positions, *, micrograph="a.mrc", fom=None):
    rows = pd.DataFrame(np.reshape(positions, (-1, 2)), columns=["x", "y"], dtype=float)
    rows.insert(0, "micrograph", micrograph)
    if fom is not None:
        rows["fom"] = fom
    return rows


def scattered(rng, n, size=1000):
    return rng.uniform(0, size, (n, 2))


def score(picks, truth, **changes):
    options = {"pixel_sizes": {"a.mrc": 2.0}, "diameter": 100.0} | changes
    return evaluate_picks(picks, truth, **options)


def test_the_truth_itself_scores_one():
    truth = scattered(np.random.default_rng(1), 50)

    total = score(table(truth, fom=np.arange(50)), table(truth)).total

    assert total.precision == total.recall == total.f1 == total.average_precision == 1
    assert total.centring_error == 0


def test_a_second_pick_on_one_particle_is_an_error():
    picks = table([[10, 10], [11, 10]], fom=[2.0, 1.0])

    total = score(picks, table([[10, 10]])).total

    assert (total.n_matched, total.precision, total.recall) == (1, 0.5, 1.0)
    assert total.average_precision == 1.0  # the right pick comes first
    assert (total.best_f1, total.best_threshold) == (1.0, 2.0)


def test_the_better_score_claims_the_particle_between_two_picks():
    distances = match_picks(
        np.array([[0.0, 0.0], [3.0, 0.0]]),
        np.array([1.0, 2.0]),
        np.array([[2.0, 0.0]]),
        radius=5.0,
    )

    np.testing.assert_array_equal(distances, [np.nan, 1.0])


def test_tolerance_is_a_part_of_the_diameter_in_angstrom():
    truth = table([[100, 100]])
    inside, outside = table([[114.9, 100]]), table([[115.1, 100]])  # 0.3 * 100 A / 2 A/px = 15 px

    assert score(inside, truth).total.n_matched == 1
    assert score(outside, truth).total.n_matched == 0


def test_centring_error_is_in_angstrom_of_each_micrograph():
    truth = pd.concat([table([[10, 10]]), table([[10, 10]], micrograph="b.mrc")])
    picks = pd.concat([table([[12, 10]]), table([[10, 14]], micrograph="b.mrc")])

    total = score(picks, truth, pixel_sizes={"a.mrc": 2.0, "b.mrc": 3.0}).total

    assert total.centring_error == pytest.approx((2 * 2 + 4 * 3) / 2)


def test_picks_on_an_empty_micrograph_are_false_and_unlisted_micrographs_do_not_count():
    picks = pd.concat([table([[10, 10]]), table([[1, 1]] * 9, micrograph="elsewhere.mrc")])

    evaluation = score(picks, table([]))

    assert evaluation.total.n_picks == 1
    assert evaluation.total.precision == evaluation.total.f1 == 0
    assert list(evaluation.micrographs) == ["a.mrc"]


def test_no_picks_score_zero_without_a_threshold():
    total = score(table([], fom=[]), table([[1, 1]])).total

    assert (total.f1, total.recall, total.average_precision) == (0, 0, 0)
    assert total.best_threshold is total.centring_error is None
    json.dumps(total.to_dict(), allow_nan=False)


def test_equal_scores_cannot_be_parted_by_a_threshold():
    picks = table([[0, 0], [500, 500], [600, 600]], fom=[1.0, 1.0, 1.0])

    total = score(picks, table([[0, 0]])).total

    assert total.best_f1 == total.f1 == pytest.approx(0.5)


def test_average_precision_is_the_share_of_truth_weighted_by_precision():
    truth = [[0, 0], [200, 0], [400, 0], [600, 0]]
    picks = table([[0, 0], [900, 900], [200, 0]], fom=[3, 2, 1])

    total = score(picks, table(truth)).total

    assert total.average_precision == pytest.approx((1 / 1 + 2 / 3) / 4)


def test_scores_do_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(3)
    truth = table(scattered(rng, 80))
    picks = table(scattered(rng, 300), fom=rng.normal(size=300))

    forwards = score(picks, truth).total
    shuffled = score(picks.sample(frac=1, random_state=1), truth.iloc[::-1]).total

    assert forwards.to_dict() == pytest.approx(shuffled.to_dict())


def test_a_pick_of_an_ignored_particle_is_neither_right_nor_wrong():
    picks = table([[0, 0], [100, 0], [300, 0]], fom=[1, 3, 2])  # right, on an ignored one, wrong

    total = score(picks, table([[0, 0]]), ignored=table([[100, 0]])).total

    assert (total.n_picks, total.n_truth, total.n_matched, total.n_ignored) == (3, 1, 1, 1)
    assert (total.precision, total.recall) == (1 / 2, 1)
    assert total.average_precision == 1 / 2
    assert (total.best_f1, total.best_threshold) == (pytest.approx(2 / 3), 1)


def test_the_curve_has_no_row_for_an_ignored_pick():
    picks = table([[0, 0], [100, 0], [300, 0]], fom=[1, 3, 2])

    curve = score(picks, table([[0, 0]]), ignored=table([[100, 0]])).curve

    assert curve[["threshold", "precision", "recall"]].to_numpy().tolist() == [
        [2, 0, 0],
        [1, 1 / 2, 1],
    ]
    assert curve["is_right"].tolist() == [False, True]


def test_ignored_reaches_half_a_diameter_on_the_same_micrograph():
    ignored = table([[100, 100]])
    inside, outside = table([[124.9, 100]]), table([[125.1, 100]])  # 100 A / 2 / 2 A/px = 25 px
    elsewhere = table([[100, 100]], micrograph="b.mrc")

    assert score(inside, table([]), ignored=ignored).total.n_ignored == 1
    assert score(outside, table([]), ignored=ignored).total.n_ignored == 0
    assert score(inside, table([]), ignored=elsewhere).total.n_ignored == 0


def test_a_true_particle_comes_before_an_ignored_one_that_is_nearer():
    picks = table([[12, 0]])  # 12 px from the true one, on the ignored one

    total = score(picks, table([[0, 0]]), ignored=table([[12, 0]])).total

    assert (total.n_matched, total.n_ignored, total.precision) == (1, 0, 1)


def test_a_second_pick_of_a_true_particle_is_wrong_unless_it_lies_on_an_ignored_one():
    picks, truth = table([[0, 0], [1, 0]], fom=[2, 1]), table([[0, 0]])

    assert score(picks, truth, ignored=table([[27, 0]])).total.precision == 1 / 2
    assert score(picks, truth, ignored=table([[26, 0]])).total.precision == 1


def test_picks_that_are_all_ignored_score_as_none():
    ignored = table([[0, 0]])

    total = score(table([[0, 0], [1, 1]], fom=[2, 1]), table([[500, 0]]), ignored=ignored).total

    assert (total.n_picks, total.n_ignored) == (2, 2)
    assert (total.precision, total.recall, total.f1, total.average_precision) == (0, 0, 0, 0)
    assert total.best_threshold is None


def test_ignored_picks_are_summed_over_micrographs():
    both = pd.concat([table([[0, 0]]), table([[0, 0], [9, 9]], micrograph="b.mrc")])

    found = score(both, table([]), ignored=both, pixel_sizes={"a.mrc": 2.0, "b.mrc": 2.0})

    assert [s.n_ignored for s in found.micrographs.values()] == [1, 2]
    assert found.total.n_ignored == 3


def test_without_ignored_picks_scores_are_those_without_an_ignored_table():
    rng = np.random.default_rng(5)
    truth = table(scattered(rng, 60))
    picks = table(scattered(rng, 200), fom=rng.normal(size=200))

    assert score(picks, truth).total == score(picks, truth, ignored=table([[9e5, 0]])).total


def test_bad_input_is_refused_with_the_name_of_the_column():
    with pytest.raises(TableError, match="micrograph"):
        score(pd.DataFrame({"x": [1.0], "y": [1.0]}), table([]))
    with pytest.raises(TableError, match="ignored must"):
        score(table([]), table([]), ignored=pd.DataFrame({"x": [1.0], "y": [1.0]}))
    with pytest.raises(ParameterError, match="diameter must be above 0 A"):
        score(table([]), table([]), diameter=0.0)
    with pytest.raises(ShapeError, match="picks_xy"):
        match_picks(np.zeros((2, 3)), np.zeros(2), np.zeros((1, 2)), radius=1.0)


@pytest.mark.data
def test_scores_equal_those_of_the_acceptance_script(test_data, tmp_path):
    starfile = pytest.importorskip("starfile")
    script = test_data.parent / "tools" / "score_picks.py"
    if not script.is_file():
        pytest.skip("no score_picks.py beside the test data")
    rng = np.random.default_rng(11)
    names = [f"field_{i}.mrc" for i in range(4)]
    truth = {n: scattered(rng, 60) for n in names}
    picks = {}
    for name in names[:3]:  # the last field was never picked
        good = truth[name][:45] + rng.normal(0, 8, (45, 2))
        picks[name] = table(
            np.concatenate([good, scattered(rng, 90)]), micrograph=name, fom=rng.normal(size=135)
        )
        starfile.write(
            picks[name].rename(
                columns={
                    "x": "rlnCoordinateX",
                    "y": "rlnCoordinateY",
                    "fom": "rlnAutopickFigureOfMerit",
                }
            )[["rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"]],
            tmp_path / f"{name[:-4]}_autopick.star",
            float_format="%.12g",
        )
    (tmp_path / "truth.json").write_text(
        json.dumps(
            {
                "diameter": 150.0,
                "apix": 2.5,
                "micrographs": {n: {"particles": xy.tolist()} for n, xy in truth.items()},
            }
        )
    )

    run = subprocess.run(
        [sys.executable, script, tmp_path / "truth.json", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = json.loads(run.stdout)
    ours = evaluate_picks(
        pd.concat(picks.values()),
        pd.concat(table(xy, micrograph=n) for n, xy in truth.items()),
        pixel_sizes=dict.fromkeys(names, 2.5),
        diameter=150.0,
    ).total

    assert (ours.n_picks, ours.n_truth) == (theirs["picks"], theirs["truth"])
    assert ours.precision == pytest.approx(theirs["precision"], abs=5e-5)
    assert ours.recall == pytest.approx(theirs["recall"], abs=5e-5)
    assert ours.f1 == pytest.approx(theirs["f1"], abs=5e-5)
    assert ours.best_f1 == pytest.approx(theirs["best_f1"], abs=5e-5)
    assert ours.best_threshold == pytest.approx(theirs["best_threshold"], rel=1e-9)
    assert ours.average_precision == pytest.approx(theirs["ap"], abs=5e-5)
    assert ours.centring_error / 2.5 == pytest.approx(theirs["centring_err_px"], abs=5e-3)
