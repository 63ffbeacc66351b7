"""The chart of the scores of right and wrong peaks, where the truth is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.errors import FormatError, ParameterError
from cryopick.io.atomic import writing
from cryopick.io.star import read_star
from cryopick.picking.evaluate import Evaluation
from cryopick.report.figures import figure_to_png
from cryopick.report.score_histogram import FieldScores, count_scores, draw_judged_scores
from cryopick.tables.pick_scores import PickScore

__all__ = ["read_thresholds", "write_judged_scores"]


def write_judged_scores(
    path: Path,
    peaks: Evaluation,
    *,
    picks: pd.DataFrame,
    thresholds: Mapping[str, float],
    score: PickScore,
) -> None:
    """Draw how often each score is that of a right peak, and how often that of a wrong one.

    Parameters
    ----------
    path
        The PNG file to write.
    peaks
        What became of all stored peaks, or of the picks where no other peaks are stored.
    picks
        micrograph and fom of the peaks that were picked, under the names of `peaks`.
    thresholds
        By micrograph, where known.
    score
        What the scores mean.

    Raises
    ------
    ParameterError
        If the picks have no scores.
    OutputError
        If the file cannot be written.
    """
    if "fom" not in picks:
        raise ParameterError(
            "plot_scores",
            must="come with picks that have scores",
            got="none",
            remedy="Leave out --plot-scores",
        )
    lowest = {str(name): float(f) for name, f in picks.groupby("micrograph")["fom"].min().items()}
    fields = _fields(peaks, lowest, thresholds)
    figure = draw_judged_scores(
        count_scores(fields, n_kinds=4), score=score, n_ignored=peaks.total.n_ignored
    )
    content = figure_to_png(figure)
    with writing(path) as handle:
        handle.write(content)


def _fields(
    peaks: Evaluation, lowest: Mapping[str, float], thresholds: Mapping[str, float]
) -> Iterator[FieldScores]:
    """Give the peaks of each micrograph, and whether they were right (2) and picked (1)."""
    curve = peaks.curve.sort_values("micrograph", kind="stable")
    ends = np.cumsum(np.bincount(curve["micrograph"], minlength=len(peaks.micrographs)))
    for name, rows in zip(peaks.micrographs, np.split(np.arange(len(curve)), ends), strict=False):
        fom = curve["threshold"].to_numpy(np.float64)[rows]
        is_right = curve["is_right"].to_numpy(bool)[rows]
        is_pick = fom >= lowest.get(name, np.inf)
        yield FieldScores(fom, 2 * is_right + is_pick, thresholds.get(name))


def read_thresholds(folder: Path) -> dict[str, float]:
    """Read the threshold of each micrograph of a picking job; empty where nothing says it."""
    try:
        tables = read_star(folder / "summary.star")
    except FormatError:
        return {}
    rows = next(iter(tables.values()))
    if not {"rlnMicrographName", "cryopickThreshold"} <= set(rows.columns):
        return {}
    pairs = zip(rows["rlnMicrographName"], rows["cryopickThreshold"], strict=True)
    return {str(name): float(threshold) for name, threshold in pairs}
