"""What galleries of class averages have in common: rows of images with a bar under each."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cryopick.report.pictures import scale_bar_length

__all__ = ["FAINT", "GAP", "INK", "add_image", "add_scale_bar", "choose_columns"]

INK: Final = "#3a3f45"
FAINT: Final = "#6d747c"
GAP: Final = 0.09  # of an image's side, between columns
_TRACK = "#e3e6e9"
_PAGE = 12.0  # inches, width of a sheet of few classes
_ASPECT = 1.5  # of the sheet
_BACKGROUND = 0.3  # grey of density 0, from black 0 to white 1
_SHARE = 0.002  # of the pixels may be quite black, and quite white


def choose_columns(count: int, pitch: float, *, sides: tuple[float, float]) -> tuple[int, float]:
    """Arrange images on a sheet that is wider than high.

    Parameters
    ----------
    count
        Images.
    pitch
        From row to row, in sides of an image.
    sides
        Smallest and largest side of an image, inches.

    Returns
    -------
    tuple of int and float
        Images in a row, and the side of an image, inches.
    """
    columns = math.ceil(math.sqrt(max(count, 1) * _ASPECT * pitch / (1 + GAP)))
    columns = max(1, min(columns, count))
    rows = math.ceil(max(count, 1) / columns)
    columns = math.ceil(max(count, 1) / rows)  # rows as full as they can be
    side = _PAGE / (columns * (1 + GAP) - GAP)
    return columns, min(max(side, sides[0]), sides[1])


def add_image(
    axes: Axes,
    image: NDArray[np.float32],
    corner: tuple[float, float],
    *,
    share: float,
    colour: str,
) -> None:
    """Draw an image of side 1 with its upper left corner there, and a bar under it.

    Parameters
    ----------
    axes
        In sides of an image, y downwards.
    image
        (y, x); values that are not finite are drawn as 0.
    corner
        x and y.
    share
        Of the bar, 0 to 1, that has the colour.
    colour
        As matplotlib names it.
    """
    left, top = corner
    axes.imshow(
        _grey(image),
        cmap="gray",
        vmin=0,
        vmax=1,
        extent=(left, left + 1, top + 1, top),
        interpolation="bicubic",
        aspect="auto",
    )
    for length, of_bar in ((1.0, _TRACK), (share, colour)):
        axes.add_patch(Rectangle((left, top + 1.02), length, 0.025, fc=of_bar, lw=0))


def add_scale_bar(
    axes: Axes, box: float, side: float, *, corner: tuple[float, float] = (0.0, 0.0)
) -> None:
    """Draw a scale bar into an image.

    Parameters
    ----------
    axes
        As for `add_image`.
    box
        Width of the image, A.
    side
        Of the image, inches.
    corner
        Of the image.
    """
    left, top = corner
    length = scale_bar_length(2 * box)
    drawn = length / box
    axes.add_patch(Rectangle((left + 0.06, top + 0.92), drawn, 0.02, fc="white", lw=0))
    axes.text(
        left + 0.06 + drawn / 2,
        top + 0.905,
        f"{length / 10:g} nm",
        color="white",
        size=float(np.clip(72 * side * 0.09, 4.5, 8)),
        ha="center",
        va="bottom",
    )


def _grey(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grey levels 0..1: as much contrast as fits with density 0 at the same grey in all."""
    finite = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = np.quantile(finite, [_SHARE, 1 - _SHARE])
    slope = max(high / (1 - _BACKGROUND), -low / _BACKGROUND)
    if slope <= 0:
        return np.full(image.shape, _BACKGROUND, np.float32)
    return np.asarray((_BACKGROUND + finite / slope).clip(0, 1), np.float32)
