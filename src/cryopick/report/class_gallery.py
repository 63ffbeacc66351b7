"""One picture of all class averages: largest first, with number, size and resolution of each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from cryopick.checks import require_shape
from cryopick.errors import ShapeError
from cryopick.io.atomic import writing
from cryopick.report.class_tiles import FAINT, GAP, INK, add_image, add_scale_bar, choose_columns
from cryopick.report.figures import ACCENT, STYLE, figure_to_png

__all__ = ["ClassGallery", "arrange_classes", "draw_class_gallery", "write_class_gallery"]

_SIDES = (0.72, 1.7)  # inches, smallest and largest side of an image: captions stay readable
_CAPTION, _LINE = 0.25, 0.13  # of an image's side: below a row, and for a second line of text
_HEAD = 0.52  # inches above the images
_DPI = 192


@dataclass(frozen=True, kw_only=True)
class ClassGallery:
    """Classes in the order in which they are shown."""

    images: NDArray[np.float32]  # (shown, y, x)
    numbers: NDArray[np.int64]  # (shown,) of the classes, as files count them
    counts: NDArray[np.int64]  # (shown,) particles
    resolutions: NDArray[np.float64] | None  # (shown,) A; not finite where unknown
    n_empty: int  # classes left out, as they have no particle


def arrange_classes(
    images: NDArray[np.floating],
    *,
    counts: ArrayLike,
    resolutions: ArrayLike | None = None,
    numbers: ArrayLike | None = None,
) -> ClassGallery:
    """Sort classes by size, the largest first, and leave the empty ones out.

    Parameters
    ----------
    images
        (k, y, x).
    counts
        (k,) particles; a class with 0 is empty.
    resolutions
        (k,) A; None where they are not known at all.
    numbers
        (k,) of the classes; None counts from 1.

    Raises
    ------
    ShapeError
        If the arrays differ in length.
    """
    require_shape(images, "k y x", name="images")
    size = np.asarray(counts, np.int64)
    number = np.arange(1, len(images) + 1) if numbers is None else np.asarray(numbers, np.int64)
    detail = None if resolutions is None else np.asarray(resolutions, np.float64)
    for name, values in (("counts", size), ("numbers", number), ("resolutions", detail)):
        if values is not None and values.shape != (len(images),):
            raise ShapeError(
                name,
                must=f"have one value for each of the {len(images)} classes",
                got=f"shape {values.shape}",
                remedy="Give one for each image",
            )
    order = np.argsort(-size, kind="stable")
    order = order[size[order] > 0]
    return ClassGallery(
        images=np.asarray(images, np.float32)[order],
        numbers=number[order],
        counts=size[order],
        resolutions=None if detail is None else detail[order],
        n_empty=len(images) - len(order),
    )


def draw_class_gallery(
    gallery: ClassGallery,
    *,
    pixel_size: float | None = None,
    title: str = "Class averages",
    note: str = "",
) -> Figure:
    """Draw class averages in rows; a bar under each shows its size against the largest.

    Parameters
    ----------
    gallery
        From `arrange_classes`.
    pixel_size
        A/px, for a scale bar in the first image; None draws none.
    title
        Above the sheet, before the numbers of classes and particles.
    note
        A sentence after these numbers.

    Returns
    -------
    matplotlib.figure.Figure
        About 12 inches wide, more for more than a hundred classes. Each image has a contrast of its
        own, in which density 0 is the same dark grey.
    """
    count = len(gallery.images)
    pitch = 1 + _CAPTION + (_LINE if gallery.resolutions is not None else 0)
    columns, side = choose_columns(count, pitch, sides=_SIDES)
    width = columns * (1 + GAP) - GAP
    height = max(1, math.ceil(count / columns)) * pitch - 0.07
    margin = 0.2
    page = (max(width * side, 4.5) + 2 * margin, height * side * (count > 0) + _HEAD + margin)
    with rc_context(STYLE):
        figure = Figure(figsize=page)
        _add_head(figure, gallery, (title, note), margin, page)
        if count:
            box = (margin / page[0], margin / page[1])
            axes = figure.add_axes((*box, width * side / page[0], height * side / page[1]))
            axes.set(xlim=(0, width), ylim=(height, 0))
            axes.set_axis_off()
            for place in range(count):
                row, column = divmod(place, columns)
                _add_class(axes, gallery, place, (column * (1 + GAP), row * pitch), side)
            if pixel_size:
                add_scale_bar(axes, gallery.images.shape[2] * pixel_size, side)
    return figure


def write_class_gallery(
    path: Path,
    images: NDArray[np.floating],
    *,
    counts: ArrayLike,
    resolutions: ArrayLike | None = None,
    numbers: ArrayLike | None = None,
    pixel_size: float | None = None,
    title: str = "Class averages",
    note: str = "",
) -> None:
    """Write the gallery as a PNG file; parameters as for the two functions above.

    Raises
    ------
    ShapeError
        If the arrays differ in length.
    OutputError
        If the file cannot be written.
    """
    gallery = arrange_classes(images, counts=counts, resolutions=resolutions, numbers=numbers)
    figure = draw_class_gallery(gallery, pixel_size=pixel_size, title=title, note=note)
    with writing(path) as file:
        file.write(figure_to_png(figure, dpi=_DPI))


def _add_head(
    figure: Figure,
    gallery: ClassGallery,
    words: tuple[str, str],
    margin: float,
    page: tuple[float, float],
) -> None:
    title, note = words
    shown, particles = len(gallery.images), int(gallery.counts.sum())
    classes = f"{shown:,} class{'' if shown == 1 else 'es'}"
    text = f"{classes}, {particles:,} particle{'' if particles == 1 else 's'}"
    if gallery.n_empty:
        text += f"; {gallery.n_empty:,} empty class{'' if gallery.n_empty == 1 else 'es'} left out"
    if note:
        text += f"; {note.rstrip('.')}"
    if shown:
        known = gallery.resolutions is not None
        text += ".  Below each: number, particles" + (", resolution" if known else "")
    left, top = margin / page[0], 1 - 0.5 * margin / page[1]
    figure.text(left, top, title, size=12, weight="bold", va="top", color=INK)
    figure.text(left, top - 0.23 / page[1], text, size=9, va="top", color=FAINT)


def _add_class(
    axes: Axes, gallery: ClassGallery, place: int, corner: tuple[float, float], side: float
) -> None:
    left, top = corner
    share = float(gallery.counts[place]) / float(gallery.counts[0])
    add_image(axes, gallery.images[place], corner, share=share, colour=ACCENT)
    size = float(np.clip(72 * side * 0.105, 5.5, 9))
    em = size / (72 * side)
    first, second = top + 1.08 + 0.8 * em, top + 1.08 + 2.1 * em
    axes.text(left, first, f"{gallery.numbers[place]}", size=size, weight="bold", va="baseline")
    count = f"{gallery.counts[place]:,}"
    axes.text(left + 1, first, count, size=size, va="baseline", ha="right", color=INK)
    if gallery.resolutions is not None:
        known = bool(np.isfinite(gallery.resolutions[place]))
        text = f"{gallery.resolutions[place]:.1f} Å" if known else "unknown"
        axes.text(left + 1, second, text, size=size, va="baseline", ha="right", color=FAINT)
