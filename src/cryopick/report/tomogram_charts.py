"""Slices of a tomogram with its picks, and charts of sizes, scores and kinds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from cryopick.report.figures import STYLE, WIDE, new_axes

__all__ = ["KIND_COLOURS", "draw_sections", "plot_by_kind", "plot_features"]

KIND_COLOURS = ("#21728c", "#c8553d", "#e0a030", "#6a4c93", "#4f8f4f", "#8b929a")
_PLANES = {"z": ("x", "y"), "y": ("x", "z"), "x": ("z", "y")}  # across, and down
_AXES = {"z": 0, "y": 1, "x": 2}


def draw_sections(
    pictures: dict[str, NDArray[np.float32]],
    sections: NDArray[np.floating],
    places: NDArray[np.float64],
    kinds: NDArray[np.int64],
    *,
    radius: float,
    depth: int,
) -> Figure:
    """Draw slices in three directions with the picks near them.

    Parameters
    ----------
    pictures
        By the axis they are cut along, z, y and x: (rows, columns) grey levels.
    sections
        (3,) first section of each slice, along z, y, x.
    places
        (n, 3): z, y, x in voxels.
    kinds
        (n,) from 1; they set the colour.
    radius
        Of the circles, voxels; a pick this far from the slice is drawn as a point.
    depth
        Sections in a slice.
    """
    tall, wide = pictures["z"].shape
    thick = pictures["y"].shape[0]
    scale = WIDE / 96 / (wide + thick)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDE / 96, scale * (tall + thick) + 0.3), layout="constrained")
        grid = figure.add_gridspec(
            2, 2, width_ratios=(wide, thick), height_ratios=(tall, thick), wspace=0.02, hspace=0.02
        )
        cells = {"z": grid[0, 0], "x": grid[0, 1], "y": grid[1, 0]}
        for name, cell in cells.items():
            axes = figure.add_subplot(cell)
            picture = pictures[name].T if name == "x" else pictures[name]
            low, high = np.percentile(picture, (1, 99))
            axes.imshow(picture, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect="equal")
            across, down = (_AXES[a] for a in _PLANES[name])
            middle = float(sections[_AXES[name]]) + depth / 2
            away = np.abs(places[:, _AXES[name]] - middle)
            for place, kind, distance in zip(places, kinds, away, strict=True):
                if distance < radius:
                    size = max(float(np.sqrt(radius**2 - distance**2)), 1.0)
                    colour = KIND_COLOURS[(int(kind) - 1) % len(KIND_COLOURS)]
                    spot = (place[across], place[down])
                    axes.add_patch(Circle(spot, size, fill=False, ec=colour, lw=1.2))
            axes.set(xticks=[], yticks=[], title=f"{name} = {middle:.0f}")
            axes.title.set_fontsize(8.5)
    return figure


def plot_by_kind(
    values: NDArray[np.floating], kinds: NDArray[np.int64], *, name: str, threshold: float | None
) -> Figure:
    """Draw a histogram of a value, the kinds on top of each other.

    Parameters
    ----------
    values
        (n,).
    kinds
        (n,) from 1.
    name
        Of the value, with its unit.
    threshold
        A line; None draws none.
    """
    figure, axes = new_axes(width=425, height=230)
    groups = [values[kinds == k] for k in range(1, int(kinds.max(initial=0)) + 1)]
    if groups:
        edges = np.histogram_bin_edges(values, bins=30)
        colours = [KIND_COLOURS[n % len(KIND_COLOURS)] for n in range(len(groups))]
        labels = [f"kind {n + 1}" for n in range(len(groups))]
        axes.hist(groups, bins=edges.tolist(), stacked=True, color=colours, label=labels)
        axes.legend()
    if threshold is not None:
        axes.axvline(threshold, color="#3a3f45", lw=1, ls="--")
    axes.set(xlabel=name, ylabel="picks")
    return figure


def plot_features(
    features: NDArray[np.float64], kinds: NDArray[np.int64], criterion: Sequence[float]
) -> Figure:
    """Draw the two main directions of the features, coloured by kind.

    Parameters
    ----------
    features
        (n, m).
    kinds
        (n,) from 1.
    criterion
        BIC of 1, 2, ... kinds, named in the title.
    """
    figure, axes = new_axes(width=425, height=320)
    if len(features) > 2:
        spread = features.std(0)
        scaled = (features - features.mean(0)) / np.where(spread > 0, spread, 1)
        u, s, _ = np.linalg.svd(scaled, full_matrices=False)
        points = (u * s)[:, :2]
        if points.shape[1] == 2:
            colours = [KIND_COLOURS[(int(k) - 1) % len(KIND_COLOURS)] for k in kinds]
            axes.scatter(points[:, 0], points[:, 1], s=9, c=colours, linewidths=0)
    axes.set(xlabel="first direction of the features", ylabel="second")
    if len(criterion) > 1:
        best = int(np.argmin(criterion)) + 1
        axes.set_title(f"BIC is lowest for {best} of 1 to {len(criterion)} kinds", fontsize=8.5)
    return figure
