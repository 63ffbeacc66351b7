"""One picture of class averages in order: rows to be read like lines of text."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryopick.checks import require_shape
from cryopick.io.atomic import writing
from cryopick.report.class_tiles import FAINT, INK, choose_columns
from cryopick.report.figures import STYLE, figure_to_png
from cryopick.report.pictures import spread_contrast

__all__ = ["draw_order", "write_order"]

_SIDES = (0.6, 1.7)  # inches, smallest and largest side of an image
_GAP, _CAPTION = 0.06, 0.2  # of an image's side
_HEAD, _MARGIN = 0.5, 0.2  # inches
_DPI = 150


def draw_order(
    images: NDArray[np.floating], *, numbers: NDArray[np.int64], similarity: NDArray[np.floating]
) -> Figure:
    """Draw averages in the order given, each with a contrast of its own.

    Parameters
    ----------
    images
        (n, y, x), n at least 1.
    numbers
        (n,) shown below each on the left: where it was before.
    similarity
        (n,) shown on the right: correlation with the one before; not finite where there is none.

    Raises
    ------
    ShapeError
        If the axes are others than these.
    """
    require_shape(images, "n y x", name="images")
    n, y, x = images.shape
    require_shape(numbers, f"{n}", name="numbers")
    require_shape(similarity, f"{n}", name="similarity")
    pitch = 1 + _CAPTION
    columns, side = choose_columns(n, pitch, sides=_SIDES)
    rows = math.ceil(n / columns)
    width, height = columns * (1 + _GAP) - _GAP, rows * pitch
    sheet = np.full((math.ceil(height * y), math.ceil(width * x)), 255, np.uint8)
    corners = []
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        top, left = round(row * pitch * y), round(column * (1 + _GAP) * x)
        shown = spread_contrast(np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0))
        sheet[top : top + y, left : left + x] = shown
        corners.append((left, top))
    page = (max(width * side, 4.5) + 2 * _MARGIN, height * side + _HEAD + _MARGIN)
    with rc_context(STYLE):
        figure = Figure(figsize=page)
        left_edge, top_edge = _MARGIN / page[0], 1 - 0.5 * _MARGIN / page[1]
        words = f"{n:,} in order.  Below each: number, correlation with the one before"
        figure.text(left_edge, top_edge, "Class averages", size=12, weight="bold", va="top")
        figure.text(left_edge, top_edge - 0.23 / page[1], words, size=9, va="top", color=FAINT)
        axes = figure.add_axes(
            (left_edge, _MARGIN / page[1], width * side / page[0], height * side / page[1])
        )
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="bilinear")
        axes.set_axis_off()
        size = float(np.clip(72 * side * 0.1, 4.5, 9))
        for (left, top), number, value in zip(corners, numbers, similarity, strict=True):
            under = top + y * (1 + 0.7 * _CAPTION)
            axes.text(left, under, f"{number}", size=size, weight="bold", color=INK)
            if np.isfinite(value):
                axes.text(left + x, under, f"{value:.2f}", size=size, ha="right", color=FAINT)
    return figure


def write_order(
    path: Path,
    images: NDArray[np.floating],
    *,
    numbers: NDArray[np.int64],
    similarity: NDArray[np.floating],
) -> None:
    """Write the picture as a PNG file; parameters as for `draw_order`.

    Raises
    ------
    ShapeError
        If the axes are others than these.
    OutputError
        If the file cannot be written.
    """
    figure = draw_order(images, numbers=numbers, similarity=similarity)
    with writing(path) as file:
        file.write(figure_to_png(figure, dpi=_DPI))
