"""The chart that shows how a diameter was estimated."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from cryopick.report.figures import ACCENT, STYLE, WIDE, new_axes

__all__ = ["plot_diameter_estimate"]

_TICKS = np.array([50, 60, 70, 80, 100, 120, 150, 200, 250, 300, 400, 500, 600, 800, 1000])


def plot_diameter_estimate(
    candidates: NDArray[np.floating],
    gains: NDArray[np.floating],
    *,
    diameter: float,
    limits: tuple[float, float],
    is_part: NDArray[np.bool_],
) -> Figure:
    """Plot what each diameter explains, with the estimate and the range that is picked.

    Parameters
    ----------
    candidates
        (k,) A.
    gains
        (k,) gain of log-likelihood.
    diameter
        The estimate, A.
    limits
        Smallest and largest diameter that is picked, A.
    is_part
        (k,) which picks are parts of larger particles; they do not count.
    """
    figure, axes = new_axes(width=WIDE, height=270)
    with rc_context(STYLE):
        low, high = limits
        axes.axvspan(low, high, color=ACCENT, alpha=0.12, lw=0, label="range picked")
        axes.axvline(diameter, color=ACCENT, lw=1.2, label=f"{diameter:.0f} Å, estimate")
        axes.plot(candidates, gains, color=ACCENT, marker="o", ms=4, lw=1.4, label="tried")
        if is_part.any():
            axes.plot(
                candidates[is_part],
                gains[is_part],
                color="white",
                markeredgecolor=ACCENT,
                marker="o",
                ms=4,
                lw=0,
                label="parts of larger ones",
            )
        axes.set_title("How well particles of each diameter explain the micrographs", loc="left")
        axes.legend(loc="best")
        axes.set_xscale("log")
        is_shown = (candidates.min() <= _TICKS) & (candidates.max() >= _TICKS)
        axes.set_xticks(_TICKS[is_shown])
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(bottom=0)
        axes.set_xlabel("Diameter of the ball or shell that fits best (Å)")
        axes.set_ylabel("Gain (log-likelihood)")
    return figure
