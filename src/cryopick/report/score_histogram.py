"""The charts of the scores of peaks: what was picked and what was not, and what of it is right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from cryopick.report.figures import ACCENT, STYLE, WIDE
from cryopick.tables.pick_scores import PickScore

__all__ = ["FieldScores", "ScoreCounts", "count_scores", "draw_judged_scores", "draw_scores"]

_INK, _FAINT, _WARM = "#3a3f45", "#c9ced3", "#c8553d"
_PALE_ACCENT, _PALE_WARM = "#a6cbd6", "#edc2b8"
_FINEST = 2.0**-20  # width of a cell, before there are too many
_MOST_CELLS = 2**16
_BATCH = 2**17  # scores that are counted at once
_BARS = (24, 80)  # at least and at most
_TICK_GAP = 0.13  # of the height of the chart

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class FieldScores(NamedTuple):
    """The peaks of one micrograph."""

    fom: NDArray[np.floating]  # (n,)
    kind: NDArray[np.integer]  # (n,) what each peak counts as, from 0
    threshold: float | None = None  # of its picks; None where none is known


class ScoreCounts(NamedTuple):
    """How often each score occurs, in cells much narrower than a bar."""

    cells: Floats  # (k,) ascending; a cell holds scores from cell * width up to the next one
    width: float
    counts: Counts  # (k, number of kinds)
    thresholds: Floats  # (m,) of the micrographs that have one
    n_fields: int

    @property
    def totals(self) -> Counts:
        """(number of kinds,) peaks of each kind."""
        return np.asarray(self.counts.sum(axis=0))


def count_scores(fields: Iterable[FieldScores], *, n_kinds: int) -> ScoreCounts:
    """Count the scores of many micrographs without keeping them.

    At most 65536 cells are kept: where there would be more, their width is doubled. So memory does
    not grow with the number of peaks, and no range need be known before.

    Parameters
    ----------
    fields
        One entry per micrograph, taken one after the other. Scores that are not finite are left
        out.
    n_kinds
        Kinds of peaks, at least 1.
    """
    held = ScoreCounts(
        np.zeros(0), _FINEST, np.zeros((0, n_kinds), np.int64), np.zeros(0), n_fields=0
    )
    thresholds: list[float] = []
    n_fields = 0
    for batch in _batches(fields):
        n_fields += len(batch)
        thresholds += [f.threshold for f in batch if f.threshold is not None]
        fom = np.concatenate([np.asarray(f.fom, np.float64) for f in batch])
        kind = np.concatenate([np.asarray(f.kind, np.int64) for f in batch])
        held = _added(held, fom[np.isfinite(fom)], kind[np.isfinite(fom)])
    return held._replace(thresholds=np.array(thresholds, np.float64), n_fields=n_fields)


def draw_scores(counts: ScoreCounts, *, score: PickScore) -> Figure:
    """Draw the scores of all peaks, the picks in colour, with the threshold.

    Parameters
    ----------
    counts
        Of two kinds: 0 for peaks that were left out, 1 for picks.
    score
        What the scores mean.
    """
    n_left, n_picked = (int(n) for n in counts.totals)
    with rc_context(STYLE):
        figure, axes = _new_chart(
            f"{_counted(n_left + n_picked, 'peak')} in "
            f"{_counted(counts.n_fields, 'micrograph')}: {n_picked:,} picked, {n_left:,} left out",
            height=290,
        )
        edges = _edges(counts, score)
        left, picked = _bars(counts, edges).T
        _stack(axes, edges, [(picked, ACCENT, "picked"), (left, _FAINT, "left out")])
        _draw_threshold(axes, counts, colour=_WARM)
        _finish(axes, edges, score)
    return figure


def draw_judged_scores(counts: ScoreCounts, *, score: PickScore, n_ignored: int = 0) -> Figure:
    """Draw the scores of peaks whose truth is known: right ones upwards, wrong ones downwards.

    Parameters
    ----------
    counts
        Of four kinds: 0 wrong and left out, 1 wrong and picked, 2 right and left out, 3 right and
        picked.
    score
        What the scores mean.
    n_ignored
        Peaks that are neither right nor wrong, and are not in `counts`.
    """
    n_wrong, n_right = (int(counts.totals[k : k + 2].sum()) for k in (0, 2))
    ignored = f", {n_ignored:,} on ignored particles" if n_ignored else ""
    with rc_context(STYLE):
        figure, axes = _new_chart(
            f"{_counted(n_right + n_wrong + n_ignored, 'peak')} in "
            f"{_counted(counts.n_fields, 'micrograph')}: {n_right:,} right, {n_wrong:,} wrong"
            f"{ignored}",
            height=340,
        )
        edges = _edges(counts, score)
        wrong_left, wrong, right_left, right = _bars(counts, edges).T
        above = [(right, ACCENT, "right"), (right_left, _PALE_ACCENT, "right, left out")]
        below = [(-wrong, _WARM, "wrong"), (-wrong_left, _PALE_WARM, "wrong, left out")]
        _stack(axes, edges, above)
        _stack(axes, edges, below)
        axes.axhline(0, color=_INK, lw=0.8)
        _draw_threshold(axes, counts, colour=_INK)
        _finish(axes, edges, score)
    return figure


def _batches(fields: Iterable[FieldScores]) -> Iterator[list[FieldScores]]:
    batch: list[FieldScores] = []
    n_waiting = 0
    for field in fields:
        batch.append(field)
        n_waiting += len(field.fom)
        if n_waiting >= _BATCH:
            yield batch
            batch, n_waiting = [], 0
    if batch:
        yield batch


def _added(held: ScoreCounts, fom: Floats, kind: Counts) -> ScoreCounts:
    """Add scores to what was counted before, in cells so wide that there are not too many."""
    ones = np.eye(held.counts.shape[1], dtype=np.int64)[kind]
    counts = np.concatenate([held.counts, ones])
    cells, width = np.concatenate([held.cells, np.floor(fom / held.width)]), held.width
    unique, place = np.unique(cells, return_inverse=True)
    while len(unique) > _MOST_CELLS:
        cells, width = np.floor(cells / 2), 2 * width
        unique, place = np.unique(cells, return_inverse=True)
    total = np.stack([np.bincount(place, c, minlength=len(unique)) for c in counts.T], axis=1)
    return held._replace(cells=unique, width=width, counts=total.astype(np.int64))


def _edges(counts: ScoreCounts, score: PickScore) -> Floats:
    """Bars over all scores, unless a few wild ones would squeeze the rest.

    One of them begins at the threshold, so that picks and others do not share it.
    """
    n_bars = int(np.clip(3 * np.sqrt(counts.totals.sum()), *_BARS))
    if score.limits is not None:
        return np.linspace(*score.limits, n_bars + 1)
    values = (counts.cells + 0.5) * counts.width
    if not len(values):
        return np.linspace(0, 1, n_bars + 1)
    share = np.cumsum(counts.counts.sum(axis=1)) / counts.counts.sum()
    low, high = values[np.searchsorted(share, [0.0005, 0.9995]).clip(max=len(values) - 1)]
    margin = 0.5 * (high - low)
    low, high = max(values[0], low - margin), min(values[-1], high + margin)
    if high - low < counts.width:
        low, high = low - 0.5, high + 0.5
    width = (high - low) / n_bars
    start = np.median(counts.thresholds) if len(counts.thresholds) else low
    first = start - np.ceil((start - low) / width) * width
    return np.asarray(first + width * np.arange(np.ceil((high - first) / width) + 1))


def _bars(counts: ScoreCounts, edges: Floats) -> Floats:
    """(bars, kinds) peaks in each bar; what lies beyond is in the first and the last one."""
    values = np.clip((counts.cells + 0.5) * counts.width, edges[0], edges[-1])
    columns = [np.histogram(values, edges, weights=c)[0] for c in counts.counts.T]
    return np.stack(columns, axis=1).astype(np.float64)


def _new_chart(title: str, *, height: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDE / 96, height / 96), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=True, axis="y")
    axes.set_title(title, loc="left", pad=24)  # the legend stands between
    return figure, axes


def _stack(axes: Axes, edges: Floats, series: list[tuple[Floats, str, str]]) -> None:
    """Draw bars one upon the other, the first at the axis."""
    width = edges[1] - edges[0]
    bottom = np.zeros(len(edges) - 1)
    for heights, colour, name in series:
        axes.bar(edges[:-1] + width / 2, heights, width, bottom, color=colour, label=name)
        bottom = bottom + heights


def _draw_threshold(axes: Axes, counts: ScoreCounts, *, colour: str) -> None:
    """Draw the threshold; where micrographs have their own, the median and the range of all."""
    if not len(counts.thresholds):
        return
    low, middle, high = np.quantile(counts.thresholds, [0, 0.5, 1])
    label = f"threshold {middle:.3g}"
    if high - low > 0.01 * abs(counts.thresholds).max():
        label = f"thresholds {low:.3g} to {high:.3g}, median {middle:.3g}"
        axes.axvspan(low, high, color=colour, alpha=0.12, lw=0, zorder=0.5)
    axes.axvline(middle, color=colour, lw=1.4, label=label)


def _finish(axes: Axes, edges: Floats, score: PickScore) -> None:
    """Set the axes: on a scale of roots, both a few and many can be seen."""
    low, high = (float(v) for v in axes.dataLim.intervaly)
    axes.set_yscale("function", functions=(_signed_root, _signed_square))
    axes.set_ylim(1.08 * min(low, 0.0), 1.08 * max(high, 1.0))
    below, above = (_root_ticks(end, max(high, -low)) for end in (-low, high))
    axes.set_yticks([*(-t for t in reversed(below)), 0.0, *above])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):,.0f}"))
    margin = 0.006 * (edges[-1] - edges[0])
    axes.set_xlim(edges[0] - margin, edges[-1] + margin)
    axes.set_xlabel(score.meaning)
    axes.set_ylabel("Peaks (scale of square roots)")
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=5,
        borderaxespad=0.3,
        borderpad=0,
        columnspacing=1.4,
        handlelength=1.4,
    )


def _root_ticks(top: float, highest: float) -> list[float]:
    """Choose round numbers up to `top` that are apart where the scale is one of roots."""
    round_numbers = [d * 10.0**e for e in range(12) for d in (1, 2, 5)]
    ticks: list[float] = []
    for value in reversed([v for v in round_numbers if v <= top]):
        gap = (ticks[-1] ** 0.5 if ticks else np.inf) - value**0.5
        if min(gap, value**0.5) >= _TICK_GAP * highest**0.5:
            ticks.append(value)
    return ticks[::-1]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _signed_root(values: Floats) -> Floats:
    return np.asarray(np.sign(values) * np.sqrt(np.abs(values)))


def _signed_square(values: Floats) -> Floats:
    return np.asarray(np.sign(values) * np.square(values))
