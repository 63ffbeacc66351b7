"""How many of the images each generation of a stable classification has brought to a class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from cryopick.report.figures import ACCENT, STYLE, WIDE

__all__ = ["plot_accounted"]


def plot_accounted(shares: Sequence[float], names: Sequence[str]) -> Figure:
    """Draw a bar for each generation.

    Parameters
    ----------
    shares
        (n,) of all images that are in a class after each generation, 0 to 1.
    names
        (n,) of the generations.
    """
    places = np.arange(len(shares))
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDE / 96, 210 / 96), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=True, axis="y")
        axes.bar(places, [100 * s for s in shares], width=0.5, color=ACCENT)
        axes.set_xticks(places, names)
        axes.set_xlim(-0.6, max(len(shares), 6) - 0.4)
        axes.set_ylim(0, 100)
        axes.set_ylabel("Images in a class (%)")
        axes.set_xlabel("Main iteration, generation")
    return figure
