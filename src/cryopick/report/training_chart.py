"""The chart that shows how a training went, and what its scores tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cryopick.report.figures import ACCENT, STYLE, WIDE

__all__ = ["plot_training"]

_FAINT, _WARM = "#c9ced3", "#c8553d"
_BARS = 40  # from 0 to 1
_ABOVE: dict[str, Any] = {
    "bbox_to_anchor": (0, 1),
    "borderaxespad": 0.3,
    "columnspacing": 1.2,
    "handlelength": 1.4,
}


def plot_training(
    steps: Sequence[int],
    losses: Sequence[float],
    successes: Sequence[float],
    *,
    taken: int,
    labelled: NDArray[np.floating],
    others: NDArray[np.floating],
    threshold: float,
) -> Figure:
    """Plot loss and success over the steps, and the scores of what was held out.

    Parameters
    ----------
    steps, losses, successes
        (n,) at each report; success is recall times precision of the labels at the best threshold.
    taken
        Step whose model was taken.
    labelled, others
        (k,) and (m,) probabilities of the peaks held out: those at labelled particles, and all
        others, among which are particles that nobody has labelled.
    threshold
        Probability from which a peak is a pick.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDE / 96, 330 / 96), layout="constrained")
        panels = figure.subplot_mosaic(
            [["loss", "scores"], ["success", "scores"]], width_ratios=(1, 1.15)
        )
        for axes in panels.values():
            axes.grid(visible=True, axis="y")
        _draw_course(panels["loss"], steps, losses, taken)
        panels["loss"].set_ylim(0, 1.1 * max(losses))
        panels["loss"].set_ylabel("Loss")
        panels["loss"].tick_params(labelbottom=False)
        _draw_course(panels["success"], steps, successes, taken)
        panels["success"].set_ylim(0, 1.1 * max(*successes, 0.1))
        panels["success"].set_ylabel("Recall · precision")
        panels["success"].set_xlabel("Steps")
        panels["loss"].legend(loc="lower left", **_ABOVE)
        _draw_scores(panels["scores"], labelled, others, threshold)
        figure.align_ylabels([panels["loss"], panels["success"]])
    return figure


def _draw_course(axes: Axes, steps: Sequence[int], values: Sequence[float], taken: int) -> None:
    axes.plot(steps, values, color=ACCENT, marker="o", ms=4, lw=1.4)
    axes.axvline(taken, color=_WARM, lw=1.4, label=f"model taken, step {taken}")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))


def _draw_scores(
    axes: Axes, labelled: NDArray[np.floating], others: NDArray[np.floating], threshold: float
) -> None:
    """Bars beside each other, on a scale of roots: both a few and many can be seen."""
    edges = np.linspace(0, 1, _BARS + 1)
    n_others, n_labelled = np.histogram(others, edges)[0], np.histogram(labelled, edges)[0]
    width = edges[1]
    axes.bar(
        edges[:-1] + 0.29 * width,
        n_others,
        0.42 * width,
        color=_FAINT,
        label=f"other peaks ({len(others):,})",
    )
    axes.bar(
        edges[:-1] + 0.71 * width,
        n_labelled,
        0.42 * width,
        color=ACCENT,
        label=f"at labels ({len(labelled):,})",
    )
    axes.axvline(threshold, color=_WARM, lw=1.4, label=f"threshold {threshold:.2f}")
    axes.set_yscale("function", functions=(np.sqrt, np.square))
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    axes.set_xlabel("Probability of a particle, micrographs held out")
    axes.set_ylabel("Number (scale of square roots)")
    axes.legend(loc="lower left", ncols=3, **_ABOVE)
