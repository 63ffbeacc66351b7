"""The charts of scores: every peak is counted, on the right side, whatever its score."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.report.figures import figure_to_png
from cryopick.report.score_histogram import (
    FieldScores,
    count_scores,
    draw_judged_scores,
    draw_scores,
)
from cryopick.tables.pick_scores import LOG_ODDS, PROBABILITY, Z_SCORE


def fields(n_fields, per_field, *, threshold=4.0, seed=0):
    """Noise about 2 and particles about 7, cut at the threshold."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n_fields):
        is_noise = rng.random(per_field) < 0.6
        fom = np.where(is_noise, rng.normal(2, 0.7, per_field), rng.normal(7, 1, per_field))
        made.append(FieldScores(fom, (fom >= threshold).astype(int), threshold))
    return made


def bars(figure):
    """(left, right, height, colour) of each bar that is not empty."""
    found = [p for p in figure.axes[0].patches if p.get_height() and p.get_facecolor()[3] == 1]
    return [
        (p.get_x(), p.get_x() + p.get_width(), p.get_height(), p.get_facecolor()) for p in found
    ]


def threshold_lines(figure):
    return [line.get_xdata()[0] for line in figure.axes[0].lines if np.ptp(line.get_xdata()) == 0]


def test_more_scores_than_cells_are_all_counted_where_they_are():
    given = fields(40, 10_000)
    fom = np.concatenate([f.fom for f in given])

    counts = count_scores(iter(given), n_kinds=2)

    assert len(counts.cells) <= 2**16 < len(np.unique(fom))
    assert counts.totals.tolist() == [(fom < 4).sum(), (fom >= 4).sum()]
    assert (counts.n_fields, len(counts.thresholds)) == (40, 40)
    for edge in (1.5, 4.0, 7.3):
        below = counts.counts[counts.cells * counts.width < edge].sum()
        assert 0 <= below - (fom < edge).sum() <= (np.abs(fom - edge) < counts.width).sum()


def test_it_does_not_matter_how_peaks_are_shared_out_to_micrographs():
    (whole,) = fields(1, 150_000)
    parts = [
        FieldScores(fom, kind)
        for fom, kind in zip(
            np.array_split(whole.fom, 700), np.array_split(whole.kind, 700), strict=True
        )
    ]

    one, many = count_scores([whole], n_kinds=2), count_scores(parts, n_kinds=2)

    assert one.width == many.width
    np.testing.assert_array_equal(one.cells, many.cells)
    np.testing.assert_array_equal(one.counts, many.counts)


def test_bars_stand_for_all_peaks_and_none_is_on_the_wrong_side_of_the_threshold():
    given = fields(5, 400)
    fom = np.concatenate([f.fom for f in given])

    figure = draw_scores(count_scores(given, n_kinds=2), score=Z_SCORE)

    assert sum(height for *_, height, _ in bars(figure)) == len(fom)
    picked = {colour for left, _, _, colour in bars(figure) if left > 4.5}
    left_out = {colour for _, right, _, colour in bars(figure) if right < 3.5}
    assert len(picked) == len(left_out) == 1
    assert picked != left_out
    assert all(c in picked for left, _, _, c in bars(figure) if left > 4 - 1e-6)
    assert all(c in left_out for _, right, _, c in bars(figure) if right < 4 + 1e-6)
    assert threshold_lines(figure) == [4.0]


def test_words_count_peaks_picks_and_micrographs():
    figure = draw_scores(
        count_scores(
            [FieldScores(np.array([1.0, 2, 9]), np.array([0, 0, 1]), 3.0)] * 500, n_kinds=2
        ),
        score=LOG_ODDS,
    )
    axes = figure.axes[0]

    assert axes.get_title(loc="left") == (
        "1,500 peaks in 500 micrographs: 500 picked, 1,000 left out"
    )
    assert axes.get_xlabel() == LOG_ODDS.meaning
    assert "threshold 3" in axes.get_legend_handles_labels()[1]


def test_thresholds_that_differ_are_a_line_at_their_median_and_a_band():
    given = [f._replace(threshold=t) for f, t in zip(fields(3, 50), (3.0, 4.0, 6.0), strict=True)]

    figure = draw_scores(count_scores(given, n_kinds=2), score=Z_SCORE)

    (band,) = (p for p in figure.axes[0].patches if p.get_alpha())
    assert threshold_lines(figure) == [4.0]
    assert (band.get_x(), band.get_x() + band.get_width()) == (3.0, 6.0)
    assert "thresholds 3 to 6, median 4" in figure.axes[0].get_legend_handles_labels()[1]


def test_a_wild_score_is_counted_and_does_not_squeeze_the_others():
    fom = np.append(np.linspace(4, 6, 4000), [1e12, np.inf, np.nan])

    figure = draw_scores(
        count_scores([FieldScores(fom, np.ones(len(fom), int))], n_kinds=2), score=Z_SCORE
    )

    assert sum(height for *_, height, _ in bars(figure)) == 4001
    assert figure.axes[0].get_xlim()[1] < 10


def test_probabilities_are_shown_from_0_to_1():
    given = FieldScores(np.array([0.4, 0.45, 1.0]), np.array([0, 1, 1]), 0.43)

    figure = draw_scores(count_scores([given], n_kinds=2), score=PROBABILITY)

    low, high = figure.axes[0].get_xlim()
    assert -0.02 < low < 0
    assert 1 < high < 1.02
    assert sum(height for *_, height, _ in bars(figure)) == 3


def test_right_peaks_stand_upwards_and_wrong_ones_hang_down():
    kinds = np.array([0, 0, 0, 1, 2, 3, 3])  # wrong, wrong and picked, right, right and picked
    given = FieldScores(np.array([1, 1.5, 2, 6, 3, 7, 8]), kinds, 4.0)

    figure = draw_judged_scores(count_scores([given], n_kinds=4), score=Z_SCORE, n_ignored=2)

    heights = np.array([height for *_, height, _ in bars(figure)])
    assert (heights[heights > 0].sum(), heights[heights < 0].sum()) == (3, -4)
    assert len({colour for *_, colour in bars(figure)}) == 4
    assert figure.axes[0].get_title(loc="left") == (
        "9 peaks in 1 micrograph: 3 right, 4 wrong, 2 on ignored particles"
    )


@pytest.mark.parametrize("fom", [[], [3.0], [2.0, 2.0], [-5.0, np.nan], [1e-9, 2e-9]])
def test_charts_draw_any_scores(fom):
    given = [FieldScores(np.array(fom), np.zeros(len(fom), int), 1.0)]

    for figure in (
        draw_scores(count_scores(given, n_kinds=2), score=Z_SCORE),
        draw_scores(count_scores([], n_kinds=2), score=PROBABILITY),
        draw_judged_scores(count_scores(given, n_kinds=4), score=Z_SCORE),
    ):
        assert figure_to_png(figure).startswith(b"\x89PNG")


def test_the_same_peaks_make_the_same_file():
    first, second = (
        figure_to_png(draw_scores(count_scores(fields(3, 200), n_kinds=2), score=Z_SCORE))
        for _ in range(2)
    )

    assert first == second
