"""The calibration chart and its numbers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cryopick.errors import DataError, ParameterError, ShapeError
from cryopick.report.calibration_chart import calibration_bins, draw_calibration
from cryopick.report.figures import figure_to_png


def outcomes(seed, count=4000, *, truth=lambda p: p):
    """Give predictions, and events as likely as `truth` makes of them."""
    rng = np.random.default_rng(seed)
    predicted = rng.beta(0.7, 1.2, count)
    return predicted, (rng.random(count) < truth(predicted)).astype(float)


def deviations(table):
    return (table["observed"] - table["predicted"]) / table["error"]


def test_calibrated_predictions_lie_on_the_diagonal_within_their_errors():
    z = np.concatenate([deviations(calibration_bins(*outcomes(seed))) for seed in range(50)])

    assert len(z) == 500
    assert abs(z.mean()) < 0.15  # its own standard error is 0.045
    assert 0.9 < z.std() < 1.12  # 0.03
    assert (np.abs(z) < 2).mean() > 0.92


@pytest.mark.parametrize("is_share", [True, False])
def test_weighted_predictions_have_errors_of_the_right_size(is_share):
    tables = []
    for seed in range(100):
        predicted, observed = outcomes(seed)
        rng = np.random.default_rng(seed + 1000)
        if is_share:  # of 20 members
            observed = rng.binomial(20, predicted) / 20
        tables.append(calibration_bins(predicted, observed, rng.lognormal(0, 0.8, 4000)))

    z = np.array([deviations(table) for table in tables])

    assert np.abs(z.mean(axis=0)).max() < 0.4  # its own standard error is 0.1
    assert (z.std(axis=0) > 0.65).all()  # wide bins err on the safe side
    assert (z.std(axis=0) < 1.3).all()


def test_predictions_that_are_too_sure_leave_the_diagonal():
    table = calibration_bins(*outcomes(1, truth=lambda p: 0.25 + 0.5 * p))

    np.testing.assert_allclose(
        table["observed"], 0.25 + 0.5 * table["predicted"], atol=4 * table["error"].max()
    )
    assert deviations(table).iloc[0] > 8
    assert deviations(table).iloc[-1] < -8


def test_bins_hold_equal_weight_and_everything_once():
    predicted, observed = outcomes(2, 1000)
    weights = np.linspace(0.5, 2, 1000)

    plain = calibration_bins(predicted, observed, n_bins=8)
    weighted = calibration_bins(predicted, observed, weights, n_bins=8)

    assert plain["count"].tolist() == [125] * 8
    assert weighted["count"].sum() == 1000
    assert plain["predicted"].is_monotonic_increasing
    mean = np.average(plain["observed"], weights=plain["count"])
    assert mean == pytest.approx(observed.mean())


def test_whole_weights_move_the_means_as_repeated_rows_do():
    predicted, observed = outcomes(3, 60)
    times = np.random.default_rng(0).integers(0, 4, 60)

    weighted = calibration_bins(predicted, observed, times, n_bins=1)
    repeated = calibration_bins(np.repeat(predicted, times), np.repeat(observed, times), n_bins=1)

    np.testing.assert_allclose(
        weighted[["predicted", "observed"]], repeated[["predicted", "observed"]]
    )
    assert weighted["count"][0] == np.count_nonzero(times)
    assert weighted["error"][0] > repeated["error"][0]  # a repeated row tells nothing new


def test_the_error_of_equal_weights_is_that_of_a_mean():
    observed = np.array([0.1, 0.4, 0.2, 0.9])

    table = calibration_bins(np.full(4, 0.5), observed, np.full(4, 3.0))

    assert table["error"].tolist() == pytest.approx([observed.std(ddof=1) / 2])


def test_bins_of_equal_outcomes_are_not_taken_for_certain():
    few = calibration_bins([0.1] * 3, [0.0] * 3)
    many = calibration_bins([0.1] * 300, [0.0] * 300)

    assert few["error"][0] == pytest.approx(np.sqrt(0.2 * 0.8 / 6))
    assert 0 < many["error"][0] < 0.005


def test_equal_predictions_stay_in_one_bin():
    table = calibration_bins([0.2] * 70 + [0.8] * 30, [0, 1] * 50, n_bins=10)

    assert table["predicted"].tolist() == pytest.approx([0.2, 0.8])
    assert table["count"].tolist() == [70, 30]


def test_the_chart_shows_the_numbers_of_its_bins():
    predicted, observed = outcomes(4)
    table = calibration_bins(predicted, observed, n_bins=6)

    figure = draw_calibration(predicted, observed, n_bins=6, title="Scores")

    top, below = figure.axes
    drawn = top.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(drawn, table[["predicted", "observed"]])
    np.testing.assert_allclose(top.lines[0].get_xydata(), [[0, 0], [1, 1]])
    assert top.get_title(loc="left") == "Scores"
    assert sum(bar.get_height() for bar in below.patches) == len(predicted)
    with Image.open(io.BytesIO(figure_to_png(figure))) as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (([0.5], [1, 0]), ShapeError, "observed must have one axis"),
        (([[0.5]], [[1]]), ShapeError, "predicted must have one axis"),
        (([0.5], [np.nan]), DataError, "observed must be from 0 to 1; got nan"),
        (([1.5], [1]), DataError, "predicted must be from 0 to 1; got 1.5"),
        (([0.5], [1], [-1]), DataError, "weights must be finite and at least 0; got -1"),
        (([0.5], [1], [0]), DataError, "predicted must hold values that count"),
        (([], []), DataError, "predicted must hold values that count"),
    ],
)
def test_bad_values_are_refused(arguments, kind, message):
    with pytest.raises(kind, match=message):
        draw_calibration(*arguments)


def test_no_bins_are_refused():
    with pytest.raises(ParameterError, match="n_bins must be above 0"):
        calibration_bins([0.5], [1], n_bins=0)
