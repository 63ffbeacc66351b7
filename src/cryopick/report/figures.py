"""Charts in one style: each function takes values and returns a matplotlib Figure.

Figures are made without pyplot, so nothing global is kept and any thread may draw. Sizes are
in CSS pixels: a chart is as wide as its column in the report (`WIDE` or `HALF`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

__all__ = [
    "ACCENT",
    "HALF",
    "STYLE",
    "WIDE",
    "figure_to_png",
    "figure_to_svg",
    "new_axes",
    "plot_defocus",
    "plot_diameters",
    "plot_histogram",
    "plot_picks_per_micrograph",
    "plot_picks_versus",
    "plot_precision_recall",
    "plot_values",
    "score_colours",
]

WIDE, HALF = 880, 425
ACCENT = "#21728c"  # the blue-green in the middle of the score colours
_INK, _FAINT, _WARM = "#3a3f45", "#c9ced3", "#c8553d"
_MANY = 500  # points beyond this are drawn as pixels, or the page grows with the data set
_PACKING = 4  # of PNG files, 0 to 9: half the time of 6, the usual one, for a tenth more bytes
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#8b929a",
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": "#e8ebee",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "cryopick",
}
Values = NDArray[np.floating] | Sequence[float] | pd.Series


def new_axes(*, width: int, height: int) -> tuple[Figure, Axes]:
    """Make an empty chart in the house style.

    Parameters
    ----------
    width, height
        Of the figure, CSS px (96 to the inch).
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(width / 96, height / 96), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=True, axis="y")
    return figure, axes


def figure_to_svg(figure: Figure, *, label: str) -> str:
    """Draw a figure as an ``<svg>`` element to be put into a page, whose font it takes.

    Parameters
    ----------
    figure
        A chart.
    label
        What it shows, for readers who cannot see it.
    """
    from html import escape

    buffer = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="svg", dpi=192, metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="\w+?_\d+">', "<g>", text)  # the same in each chart of a page
    text = re.sub(r"font-family: [^;\"]*; ", "", text)
    kind = "chart wide" if figure.get_figwidth() * 96 > 1.5 * HALF else "chart"
    return text.replace("<svg", f'<svg class="{kind}" role="img" aria-label="{escape(label)}"', 1)


def figure_to_png(figure: Figure, *, dpi: int = 192, comment: str = "") -> bytes:
    """Draw a figure as a PNG file.

    Parameters
    ----------
    figure
        A chart.
    dpi
        Pixels to the inch.
    comment
        Stored in the file, for programs; empty stores none.
    """
    buffer = io.BytesIO()
    packing = {"compress_level": _PACKING}
    with rc_context(STYLE):
        figure.savefig(
            buffer,
            format="png",
            dpi=dpi,
            facecolor="white",
            metadata={"Comment": comment} if comment else None,
            pil_kwargs=packing,
        )
    return buffer.getvalue()


def score_colours(scores: Values, *, low: float, high: float) -> list[str]:
    """Colour scores from blue-green (`low`) over green to yellow (`high`), as #rrggbb.

    The dark end of viridis, invisible on a micrograph, is left out.
    """
    span = high - low
    place = (np.asarray(scores, np.float64) - low) / span if span > 0 else np.ones(len(scores))
    colours = colormaps["viridis"](0.35 + 0.65 * np.clip(np.nan_to_num(place), 0, 1))
    return ["#" + "".join(f"{round(255 * c):02x}" for c in rgba[:3]) for rgba in colours]


def plot_picks_per_micrograph(counts: Values) -> Figure:
    """Plot how many picks each micrograph gave, in the order of the table.

    Parameters
    ----------
    counts
        (n,) picks of each micrograph.
    """
    heights = np.asarray(counts, np.float64)
    figure, axes = new_axes(width=WIDE, height=230)
    place = np.arange(1, len(heights) + 1)
    with rc_context(STYLE):
        if len(heights) <= 120:
            axes.bar(place, heights, width=0.78, color=ACCENT)
        else:
            _points(axes, place, heights)
            axes.plot(*_running_median(heights), color=_WARM, lw=1.4, label="running median")
        if len(heights):
            middle = float(np.median(heights))
            axes.axhline(middle, color=_INK, lw=0.9, ls=(0, (4, 3)), label=f"median {middle:g}")
            axes.legend(loc="upper right", ncols=2, bbox_to_anchor=(1, 1.16), borderaxespad=0)
    axes.set_xlim(0.4, max(len(heights), 1) + 0.6)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(_whole_numbers(10))
    axes.yaxis.set_major_locator(_whole_numbers(5))
    _label(axes, "Micrograph, in the order of the table", "Picks")
    return figure


def plot_picks_versus(values: Values, counts: Values, *, name: str) -> Figure:
    """Plot picks of each micrograph against another of its values, such as its defocus."""
    figure, axes = new_axes(width=HALF, height=240)
    with rc_context(STYLE):
        _points(axes, np.asarray(values, np.float64), np.asarray(counts, np.float64))
    axes.set_ylim(0, 1.08 * max([1.0, *counts]))
    axes.yaxis.set_major_locator(_whole_numbers(5))
    _label(axes, name, "Picks")
    return figure


def plot_defocus(defocus: Values) -> Figure:
    """Plot the distribution of the micrographs' mean defocus, given in A, as micrometres."""
    return plot_histogram(np.asarray(defocus) / 1e4, name="Defocus (µm)", counted="Micrographs")


def plot_diameters(diameters: Values, *, limits: tuple[float, float] | None = None) -> Figure:
    """Plot the distribution of the diameters detected, A.

    Parameters
    ----------
    diameters
        (n,) A.
    limits
        Smallest and largest diameter that was searched for, A.
    """
    figure = plot_histogram(
        diameters, name="Detected diameter (Å)", counted="Picks", width=WIDE, height=200
    )
    if limits:
        axes = figure.axes[0]
        for limit in limits:
            axes.axvline(limit, color=_WARM, lw=1.2, ls=(0, (4, 3)))
    return figure


def plot_histogram(
    values: Values, *, name: str, counted: str = "Rows", width: int = HALF, height: int = 240
) -> Figure:
    """Plot the distribution of any column.

    Parameters
    ----------
    values
        (n,); values that are not finite are left out.
    name
        For the axis, with the unit.
    counted
        What is counted.
    width, height
        CSS px.
    """
    figure, axes = new_axes(width=width, height=height)
    plot_values(axes, values, name=name, counted=counted)
    return figure


def plot_values(axes: Axes, values: Values, *, name: str, counted: str) -> None:
    """Plot a distribution as `plot_histogram` does, into axes that are there."""
    finite = _finite(values)
    edges = _edges(finite, count=min(60, max(8, round(2 * len(finite) ** 0.5))))
    with rc_context(STYLE):
        axes.hist(_inside(finite, edges), edges, color=ACCENT, rwidth=0.94)
    axes.grid(visible=True, axis="y")
    axes.yaxis.set_major_locator(_whole_numbers(5))
    _label(axes, name, counted)


def plot_precision_recall(
    precision: Values, recall: Values, *, average_precision: float, shipped: tuple[float, float]
) -> Figure:
    """Plot precision against recall over all thresholds.

    Parameters
    ----------
    precision, recall
        (n,) of the peaks, best score first.
    average_precision
        Area under the curve.
    shipped
        Recall and precision of the picks as they were cut.
    """
    figure, axes = new_axes(width=HALF, height=360)
    with rc_context(STYLE):
        axes.plot(recall, precision, color=ACCENT, lw=1.8, label=f"AP {average_precision:.3f}")
        f1 = 2 * shipped[0] * shipped[1] / max(sum(shipped), 1e-9)
        axes.plot(*shipped, "o", color=_WARM, ms=6, label=f"picks as cut, F1 {f1:.3f}")
        axes.grid(visible=True, axis="x")
        axes.legend(loc="lower left")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.01)
    _label(axes, "Recall: share of true particles found", "Precision: share of picks that are true")
    return figure


def _finite(values: Values) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    finite: NDArray[np.float64] = array[np.isfinite(array)]
    return finite


def _edges(values: NDArray[np.float64], *, count: int) -> list[float]:
    """Bins over the values, unless a few wild ones would squeeze the rest."""
    if not len(values):
        return [float(e) for e in np.linspace(0, 1, count + 1)]
    low, high = np.quantile(values, [0.0005, 0.9995])
    margin = 0.5 * (high - low)
    low, high = max(values.min(), low - margin), min(values.max(), high + margin)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return [float(e) for e in np.linspace(low, high, count + 1)]


def _inside(values: NDArray[np.float64], edges: list[float]) -> NDArray[np.float64]:
    """Count what lies beyond the bins in the first and the last one."""
    return np.clip(values, edges[0], edges[-1])


def _whole_numbers(most: int) -> MaxNLocator:
    return MaxNLocator(nbins=most, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def _points(axes: Axes, x: NDArray[Any], y: NDArray[np.float64]) -> None:
    is_many = len(x) > _MANY
    axes.plot(
        x,
        y,
        ls="",
        marker="o",
        ms=2.2 if is_many else 4,
        mew=0,
        color=ACCENT,
        alpha=0.35 if is_many else 0.75,
        rasterized=is_many,
    )


def _running_median(values: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Medians of 60 stretches of the series, at their middles."""
    parts = np.array_split(np.arange(len(values)), 60)
    middles = np.array([p.mean() + 1 for p in parts])
    return middles, np.array([np.median(values[p]) for p in parts])


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
