"""The chart of all scores that a picking job leaves beside its picks."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cryopick.io.atomic import output_errors, writing
from cryopick.io.png import read_png_comment
from cryopick.pipeline.growing import is_growing
from cryopick.tables.paths import micrograph_key
from cryopick.tables.pick_scores import PickScore
from cryopick.tables.relion import picks_of_file

if TYPE_CHECKING:
    from cryopick.pipeline.picking import PickedMicrograph
    from cryopick.report.score_histogram import FieldScores

__all__ = ["SCORE_CHART", "peaks_path", "scores_of_peaks", "write_score_chart"]

SCORE_CHART = "scores.png"


def write_score_chart(
    folder: Path, picked: Sequence[PickedMicrograph], identities: Sequence[str], *, score: PickScore
) -> None:
    """Draw the scores of all stored peaks, unless the chart that is there shows the same peaks.

    While the list of micrographs grows nothing is drawn.

    Parameters
    ----------
    folder
        Of the picking job.
    picked
        Micrographs that were not refused. Without any peak there is no chart.
    identities
        Of the inputs that the peaks of each were made from, in the same order.
    score
        What the scores mean.

    Raises
    ------
    OutputError
        If a chart of other peaks cannot be removed.
    """
    if is_growing():
        return
    chart = folder / SCORE_CHART
    shown = [score.meaning]
    shown += [f"{i} {m!r}" for i, m in zip(identities, picked, strict=True)]
    note = "peaks " + hashlib.sha256(json.dumps(shown).encode()).hexdigest()
    if read_png_comment(chart) == note:
        return
    with output_errors(chart):
        chart.unlink(missing_ok=True)
    if not any(m.n_peaks for m in picked):
        return
    with contextlib.suppress(Exception):  # no fault of drawing may cost the picks
        from cryopick.report.figures import figure_to_png
        from cryopick.report.score_histogram import count_scores, draw_scores

        counts = count_scores(_scores(folder, picked), n_kinds=2)
        content = figure_to_png(draw_scores(counts, score=score), comment=note)
        with writing(chart) as handle:
            handle.write(content)


def _scores(folder: Path, picked: Sequence[PickedMicrograph]) -> Iterator[FieldScores]:
    """Read the peaks of one micrograph after the other."""
    for one in picked:
        path = peaks_path(folder, one.micrograph)
        yield scores_of_peaks(picks_of_file(path, one.micrograph), one)


def peaks_path(folder: Path, micrograph: str) -> Path:
    """Name the file of all peaks of a micrograph in the folder of a picking job."""
    return folder / "peaks" / f"{micrograph_key(micrograph)}_peaks.star"


def scores_of_peaks(peaks: pd.DataFrame, picked: PickedMicrograph) -> FieldScores:
    """Tell picks (kind 1) from the other peaks (kind 0) of a micrograph.

    Parameters
    ----------
    peaks
        As its file holds them: best first.
    picked
        What became of it.
    """
    from cryopick.report.score_histogram import FieldScores

    fom = peaks["fom"].to_numpy(np.float64)
    is_pick = np.arange(len(fom)) < picked.n_picks
    return FieldScores(fom=fom, kind=is_pick.astype(np.int64), threshold=picked.threshold)
