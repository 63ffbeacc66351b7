"""The chart that shows how many particles are kept for how many non-particles."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryopick.report.figures import ACCENT, HALF, STYLE

__all__ = ["draw_roc"]

_FAINT = "#c9ced3"


def draw_roc(
    false_share: NDArray[np.float64], true_share: NDArray[np.float64], *, area: float, title: str
) -> Figure:
    """Draw a receiver operating characteristic.

    Parameters
    ----------
    false_share, true_share
        (n,) shares of non-particles and of particles that are kept, ascending from 0 to 1.
    area
        Under the curve.
    title
        Above the chart.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(HALF / 96, HALF / 96), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=_FAINT, lw=1.0, label="by chance")
        axes.step(
            false_share, true_share, color=ACCENT, lw=1.6, where="post", label=f"area {area:.3f}"
        )
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.set_aspect("equal")
        axes.grid(visible=True)
        axes.set_title(title, loc="left")
        axes.set_xlabel("Share of non-particles kept")
        axes.set_ylabel("Share of particles kept")
        axes.legend(loc="lower right")
    return figure
