"""The time line of a stream: how many particles, how sharp, how steady, round by round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from cryopick.report.figures import ACCENT, STYLE, WIDE

__all__ = ["plot_stream"]

_WARM = "#c8553d"


def plot_stream(
    particles: Sequence[int],
    *,
    junk: Sequence[int],
    resolutions: Sequence[float],
    drifts: Sequence[float | None],
    changed: Sequence[float | None],
) -> Figure:
    """Plot what each round has found.

    Parameters
    ----------
    particles, junk
        (n,) in all, and those that are junk, after each round.
    resolutions
        (n,) A, of the alignment.
    drifts
        (n,) 1 - correlation of the references with those of the round before, mean of all; None
        where there is nothing to compare with.
    changed
        (n,) share of the earlier particles that changed class.
    """
    rounds = np.arange(1, len(particles) + 1)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDE / 96, 270 / 96), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        _draw(left, rounds, particles, ACCENT, "all")
        _draw(left, rounds, junk, _WARM, "junk")
        left.set_title("Particles", loc="left")
        left.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        _draw(middle, rounds, resolutions, ACCENT, "")
        middle.set_title("Finest detail aligned (Å)", loc="left")
        _draw(right, rounds, _percent(changed), ACCENT, "changed class")
        _draw(right, rounds, _percent(drifts), _WARM, "drift of averages")
        right.set_title("Unrest (%)", loc="left")
        for axes in (left, middle, right):
            axes.set_xlabel("Round")
            axes.set_xlim(0.7, max(len(rounds), 2) + 0.3)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(visible=True, axis="y")
            axes.set_ylim(bottom=0)
        left.legend(loc="best")
        right.legend(loc="best")
    return figure


def _percent(shares: Sequence[float | None]) -> list[float]:
    return [np.nan if s is None else 100 * s for s in shares]


def _draw(axes: Axes, rounds: np.ndarray, values: Sequence[float], color: str, label: str) -> None:
    axes.plot(rounds, values, color=color, marker="o", ms=4, lw=1.4, label=label or None)
