"""The chart that shows how scores of classes agree with what a person has chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from cryopick.report.figures import ACCENT, HALF, STYLE, WIDE

__all__ = ["draw_agreement"]

_INK, _WARM = "#3a3f45", "#c8553d"
_PALE_ACCENT, _PALE_WARM = "#a6c7d1", "#e9bbb1"
_N_BARS = 20  # an even number, so that no bar lies on both sides of the middle
_EDGES = np.linspace(0, 1, _N_BARS + 1)

Floats = NDArray[np.float64]


def draw_agreement(
    panels: Sequence[tuple[str, Floats]],
    is_selected: NDArray[np.bool_],
    *,
    threshold: float = 0.5,
) -> Figure:
    """Draw the scores of classes: those that were chosen upwards, the others downwards.

    Classes on the wrong side of the threshold are pale.

    Parameters
    ----------
    panels
        One or two: title, and scores (n,) from 0 to 1.
    is_selected
        (n,) which classes were chosen.
    threshold
        On the score: classes from there on are kept.
    """
    width = WIDE if len(panels) > 1 else HALF
    with rc_context(STYLE):
        figure = Figure(figsize=(width / 96, 310 / 96), layout="constrained")
        all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, score) in zip(all_axes, panels, strict=True):
            _draw(axes, score, is_selected, threshold)
            axes.set_title(title, loc="left", fontsize=10)
        _set_heights(all_axes[0], [score for _, score in panels], is_selected)
    return figure


def _set_heights(axes: Axes, scores: Sequence[Floats], is_selected: NDArray[np.bool_]) -> None:
    up, down = (
        max(int(np.histogram(score[which], _EDGES)[0].max()) for score in scores)
        for which in (is_selected, ~is_selected)
    )
    whole = max(up + down, 1)
    axes.set_ylim(-down - 0.04 * whole, up + 0.16 * whole)  # room for the legend
    axes.set_ylabel("Classes")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):,.0f}"))


def _draw(axes: Axes, score: Floats, is_selected: NDArray[np.bool_], threshold: float) -> None:
    is_kept = score >= threshold
    middles, width = _EDGES[:-1] + 0.5 / _N_BARS, 0.86 / _N_BARS
    for which, way, colour, pale, name in (
        (is_selected, 1, ACCENT, _PALE_ACCENT, "chosen"),
        (~is_selected, -1, _WARM, _PALE_WARM, "not chosen"),
    ):
        is_right = which & (is_kept == is_selected)
        right = way * np.histogram(score[is_right], _EDGES)[0]
        wrong = way * np.histogram(score[which & ~is_right], _EDGES)[0]
        label = f"{name}: {is_right.sum():,} of {which.sum():,} agree"
        axes.bar(middles, right, width, color=colour, label=label)
        axes.bar(middles, wrong, width, bottom=right, color=pale)
    axes.axhline(0, color=_INK, lw=0.8)
    axes.axvline(threshold, color=_INK, lw=0.9, ls=(0, (4, 3)))
    axes.grid(visible=True, axis="y")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Score")
    axes.legend(loc="upper center", ncols=2, columnspacing=1.2, handlelength=1.2)
