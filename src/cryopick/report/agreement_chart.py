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
_N_BARS = 20  # from 0 to 1, so that no bar lies on both sides of the middle
_PALE = 0.4  # opacity of classes on the wrong side

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
            axes.set_title(title, loc="left")
        first = all_axes[0]
        first.set_ylabel("Classes")
        first.yaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        first.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):,.0f}"))
    return figure


def _draw(axes: Axes, score: Floats, is_selected: NDArray[np.bool_], threshold: float) -> None:
    edges = np.linspace(0, 1, _N_BARS + 1)
    is_kept = score >= threshold
    for which, way, colour, name in (
        (is_selected, 1, ACCENT, "chosen"),
        (~is_selected, -1, _WARM, "not chosen"),
    ):
        is_wrong = which & (is_kept != is_selected)
        wrong = np.histogram(score[is_wrong], edges)[0]
        right = np.histogram(score[which & ~is_wrong], edges)[0]
        label = f"{name}: {(which & ~is_wrong).sum():,} of {which.sum():,} agree"
        step = 1 / _N_BARS
        middles, width = edges[:-1] + step / 2, 0.86 * step
        axes.bar(middles, way * right, width, color=colour, label=label)
        axes.bar(middles, way * wrong, width, bottom=way * right, color=colour, alpha=_PALE)
    axes.axhline(0, color=_INK, lw=0.8)
    axes.axvline(threshold, color=_INK, lw=0.9, ls=(0, (4, 3)))
    axes.grid(visible=True, axis="y")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Score")
    axes.margins(y=0.12)
    axes.legend(loc="upper center", ncols=2, columnspacing=1.2, handlelength=1.2)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))
