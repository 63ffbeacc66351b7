"""Whole pictures for `cryopick show`: a micrograph with its picks, a gallery, slices, histograms.

Functions take arrays and tables and return a matplotlib Figure in the style of
`cryopick.report.figures`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from cryopick.report.figures import STYLE, plot_values, score_colours
from cryopick.report.pictures import Picture, scale_bar_length, spread_contrast, tile_images

__all__ = ["draw_gallery", "draw_histograms", "draw_micrograph", "draw_slices"]

_SIDE = 10.0  # inches, of the longest side of a picture
_HALO = [withStroke(linewidth=3.0, foreground="#ffffff70")]  # or dark circles drown in dark fields
_SHADOW = [withStroke(linewidth=2.5, foreground="#000000a0")]


def draw_micrograph(
    picture: Picture,
    *,
    picks: pd.DataFrame | None = None,
    default_diameter: float,
    score_limits: tuple[float | None, float | None] = (None, None),
    score_name: str = "Score",
    title: str = "",
) -> Figure:
    """Draw a micrograph, its picks as circles coloured by score, and a scale bar.

    Parameters
    ----------
    picture
        From `picture_of_micrograph`.
    picks
        x, y (px of the micrograph), and fom and diameter (A) where known.
    default_diameter
        Of circles of picks without one: A, or px where the pixel size is unknown.
    score_limits
        Scores at both ends of the colours; the lowest, and that of the best fiftieth, if None.
    score_name
        What the scores mean, for the scale of colours.
    title
        Above the picture.
    """
    height, width = picture.pixels.shape
    scale = _SIDE / max(height, width)
    has_scores = picks is not None and "fom" in picks and len(picks) > 0
    with rc_context(STYLE):
        figure = Figure(
            figsize=(width * scale + (1.0 if has_scores else 0.2), height * scale + 0.5),
            layout="constrained",
        )
        axes = figure.add_subplot()
        axes.imshow(picture.pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()
        if title:
            axes.set_title(title, loc="left", fontsize=10)
        if picks is not None and len(picks):
            _add_circles(figure, axes, picture, picks, default_diameter, score_limits, score_name)
        _add_scale_bar(axes, picture)
    return figure


def draw_gallery(
    images: NDArray[np.floating],
    *,
    labels: Sequence[str],
    columns: int = 0,
    pixel_size: float | None = None,
    low_pass: float = 0.0,
    title: str = "",
) -> Figure:
    """Draw images in rows with a label in the corner of each.

    Parameters
    ----------
    images
        (n, y, x); n at least 1.
    labels
        (n,) short texts; an empty one is left out.
    columns
        In a row; 0 makes the sheet nearly square.
    pixel_size, low_pass
        A/px, and the resolution to which images are filtered, A; without either they are not.
    title
        Above the sheet.
    """
    count, height, width = images.shape
    columns = min(columns or math.ceil(math.sqrt(count * height / width)), count)
    gap = max(1, round(max(height, width) / 40))
    sheet = tile_images(images, columns=columns, gap=gap, pixel_size=pixel_size, low_pass=low_pass)
    scale = _SIDE / max(sheet.shape)
    size = float(np.clip(72 * scale * width * 0.11, 5, 11))
    with rc_context(STYLE):
        figure = Figure(
            figsize=(sheet.shape[1] * scale, sheet.shape[0] * scale + 0.4), layout="constrained"
        )
        axes = figure.add_subplot()
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()
        if title:
            axes.set_title(title, loc="left", fontsize=10)
        for index, label in enumerate(labels):
            axes.text(
                index % columns * (width + gap) + 0.04 * width,
                index // columns * (height + gap) + 0.04 * height,
                label,
                color="white",
                fontsize=size,
                va="top",
                path_effects=_SHADOW,
            )
    return figure


def draw_slices(volume: NDArray[np.floating], *, title: str = "") -> Figure:
    """Draw the three central slices of a volume.

    Parameters
    ----------
    volume
        (z, y, x).
    title
        Above the slices.
    """
    depth, height, width = volume.shape
    slices = {
        "x, y": volume[depth // 2],
        "x, z": volume[:, height // 2],
        "y, z": volume[:, :, width // 2],
    }
    with rc_context(STYLE):
        figure = Figure(figsize=(_SIDE, _SIDE / 3 + 0.5), layout="constrained")
        for axes, (name, image) in zip(figure.subplots(1, 3), slices.items(), strict=True):
            axes.imshow(spread_contrast(image), cmap="gray", vmin=0, vmax=255)
            axes.set_axis_off()
            axes.set_title(f"middle slice {name}", fontsize=9)
        if title:
            figure.suptitle(title, fontsize=10)
    return figure


def draw_histograms(columns: Mapping[str, NDArray[Any]], *, title: str = "") -> Figure:
    """Draw a histogram of each column.

    Parameters
    ----------
    columns
        Name to values; at least one.
    title
        Above the charts.
    """
    across = min(3, len(columns))
    down = math.ceil(len(columns) / across)
    with rc_context(STYLE):
        figure = Figure(figsize=(3.6 * across + 0.8, 2.6 * down + 0.3), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False).ravel()
        for axes, (name, values) in zip(grid, columns.items(), strict=False):
            plot_values(axes, values, name=name, counted="Rows")
        for axes in grid[len(columns) :]:
            axes.set_axis_off()
        if title:
            figure.suptitle(title, fontsize=10)
    return figure


def _add_circles(
    figure: Figure,
    axes: Axes,
    picture: Picture,
    picks: pd.DataFrame,
    default_diameter: float,
    score_limits: tuple[float | None, float | None],
    score_name: str,
) -> None:
    sizes = np.full(len(picks), default_diameter)
    if "diameter" in picks:
        found = picks["diameter"].to_numpy(np.float64)
        sizes = np.where(found > 0, found, sizes)
    drawn = sizes / picture.pixel_size if picture.pixel_size else sizes * picture.scale
    positions = picks[["x", "y"]].to_numpy(np.float64) * picture.scale
    circles = EllipseCollection(
        list(drawn),
        list(drawn),
        np.zeros(len(drawn)),
        units="x",
        offsets=positions,
        offset_transform=axes.transData,
        facecolors="none",
        linewidths=1.6,
        path_effects=_HALO,
    )
    if "fom" in picks:
        fom = picks["fom"].to_numpy(np.float64)
        low, high = _ends(fom, score_limits)
        circles.set_edgecolor(score_colours(fom, low=low, high=high))
        beyond = (bool((fom < low).any()), bool((fom > high).any()))
        _add_colour_bar(figure, axes, (low, high), beyond=beyond, name=score_name)
    else:
        circles.set_edgecolor(score_colours([1.0], low=0, high=1)[0])
    axes.add_collection(circles, autolim=False)


def _ends(
    fom: NDArray[np.float64], limits: tuple[float | None, float | None]
) -> tuple[float, float]:
    finite = fom[np.isfinite(fom)]
    found = np.quantile(finite, [0, 0.98]) if len(finite) else (0.0, 1.0)
    low, high = (
        float(own) if given is None else given for own, given in zip(found, limits, strict=True)
    )
    return low, max(low, high)


def _add_colour_bar(
    figure: Figure,
    axes: Axes,
    limits: tuple[float, float],
    *,
    beyond: tuple[bool, bool],
    name: str,
) -> None:
    """Draw the scale of colours; it is pointed at an end that scores lie beyond."""
    from matplotlib.cm import ScalarMappable

    low, high = limits
    steps = score_colours(np.linspace(0, 1, 64), low=0, high=1)
    colours = LinearSegmentedColormap.from_list("score", steps)
    scale = Normalize(low, high if high > low else low + 1)
    bar = figure.colorbar(
        ScalarMappable(scale, colours),
        ax=axes,
        shrink=0.5,
        aspect=32,
        pad=0.015,
        extend={(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[beyond],
        extendfrac=0.03,
    )
    bar.set_label(name)
    bar.outline.set_visible(False)


def _add_scale_bar(axes: Axes, picture: Picture) -> None:
    if not picture.pixel_size:
        return
    height, width = picture.pixels.shape
    length = scale_bar_length(width * picture.pixel_size)
    drawn = length / picture.pixel_size
    left, top = 0.02 * width, 0.972 * height
    bar = Rectangle((left, top), drawn, 0.008 * height, fc="white", ec="#00000080", lw=0.8)
    axes.add_patch(bar)
    axes.text(
        left + drawn / 2,
        top - 0.008 * height,
        f"{length / 10:g} nm",
        color="white",
        ha="center",
        va="bottom",
        path_effects=_SHADOW,
    )
