"""The picture of one CTF fit: spectrum and fit in two halves, and their averages along rings."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cryopick.report.figures import ACCENT, STYLE

__all__ = ["draw_ctf"]

_INK, _WARM, _FAINT = "#3a3f45", "#c8553d", "#9aa1a8"
_BLUR = 0.8  # px of the measured half, whose single pixels are mostly noise
_WIDTH, _HEIGHT = 1000, 360  # CSS px
_RESOLUTIONS = (30, 20, 15, 10, 8, 6, 5, 4, 3.5, 3, 2.5, 2)  # A, ticks of the axis
Values = NDArray[np.floating]


def draw_ctf(
    halves: Values,
    *,
    frequency: Values,
    measured: Values,
    model: Values,
    correlation: Values,
    max_resolution: float,
    title: str,
) -> Figure:
    """Draw one fit.

    Parameters
    ----------
    halves
        (side, side) spectrum on the left and fit on the right, 0 at zeros of the CTF, 1 at peaks,
        with the frequency step of the curves.
    frequency
        (R,) 1/A, of the curves.
    measured, model
        (R,) power over background less 1.
    correlation
        (R,) of the two near each ring.
    max_resolution
        A, drawn as a line and a circle.
    title
        Of the whole.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH / 96, _HEIGHT / 96), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(0.36, 0.64))
        _draw_halves(left, halves, 1 / max_resolution / float(frequency[1] - frequency[0]))
        _draw_curves(right, frequency, measured, model)
        twin = right.twinx()
        _draw_correlation(twin, frequency, correlation, 1 / max_resolution)
        right.set_zorder(twin.get_zorder() + 1)
        right.patch.set_visible(False)
        figure.suptitle(title, fontsize=9.5, color=_INK)
    return figure


def _draw_halves(axes: Axes, halves: Values, radius: float) -> None:
    side = halves.shape[0]
    shown = halves.copy()
    shown[:, : side // 2] = gaussian_filter(halves[:, : side // 2], _BLUR)
    axes.imshow(shown, cmap="gray", vmin=-0.4, vmax=1.4, interpolation="nearest")
    turn = np.linspace(0, 2 * np.pi, 181)
    centre = side // 2
    line: dict[str, Any] = {"color": _WARM, "lw": 0.8, "ls": (0, (4, 3))}
    axes.plot(centre + radius * np.cos(turn), centre + radius * np.sin(turn), **line)
    axes.set_xlim(-0.5, side - 0.5)
    axes.set_ylim(side - 0.5, -0.5)
    axes.set_axis_off()
    axes.text(0.02, 0.97, "measured", transform=axes.transAxes, va="top", color="white")
    axes.text(0.98, 0.97, "fitted", transform=axes.transAxes, va="top", ha="right", color="white")


def _draw_curves(axes: Axes, frequency: Values, measured: Values, model: Values) -> None:
    # both are on the scale of the fit's peaks, or the first ring would be all one sees
    scale = np.maximum(np.maximum.accumulate(model[::-1])[::-1], 0.03)
    axes.plot(frequency, measured / scale, color=_INK, lw=1, label="measured, along rings")
    axes.plot(frequency, model / scale, color=ACCENT, lw=1.6, label="fitted")
    axes.set_ylim(-0.6, 1.9)
    axes.set_xlim(frequency[0], frequency[-1])
    shown = [r for r in _RESOLUTIONS if frequency[0] <= 1 / r <= frequency[-1] * 1.001]
    axes.set_xticks([1 / r for r in shown], [f"{r:g}" for r in shown])
    axes.set_xlabel("Resolution (Å)")
    axes.set_ylabel("Power above background, over envelope")
    axes.legend(loc="upper left", ncols=2)


def _draw_correlation(axes: Axes, frequency: Values, correlation: Values, last: float) -> None:
    axes.plot(frequency, correlation, color=_WARM, lw=1, label="correlation")
    axes.axvline(last, color=_WARM, lw=1, ls=(0, (4, 3)))
    axes.set_ylim(-1.2, 1.3)
    axes.set_yticks([0, 0.5, 1])
    axes.spines["right"].set_visible(True)
    axes.set_ylabel("Correlation", color=_WARM)
    axes.grid(visible=False)
