"""One picture of all class averages with their scores: what is selected, and what is not."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
from cryopick.selection.class_choice import EMPTY, ClassChoice, best_first
from cryopick.selection.class_scores import ClassScores, Reason
from cryopick.selection.score_words import show_score, show_threshold

__all__ = ["ScoreGallery", "arrange_scores", "draw_score_gallery", "write_score_gallery"]

_OUT = "#c8553d"  # what is not selected
_SIDES = (1.15, 1.7)  # inches, smallest and largest side of an image: reasons stay readable
_HEAD, _MARGIN, _SECTION = 0.68, 0.2, 0.38  # inches: above all, around, above a section
_NARROWEST = 7.6  # inches, so that there is room for the head
_REASONS, _LINES = 2, 2  # of a class, and lines of each
_LETTER, _LEADING = 0.6, 1.3  # mean width of a letter, and height of a line, in font sizes
_REASON_SIZE = 0.82  # of the letters of reasons against those of numbers
_DPI = 192


@dataclass(frozen=True, kw_only=True)
class ScoreGallery:
    """Classes in the order in which they are shown: the best score first."""

    images: NDArray[np.float32]  # (shown, y, x)
    numbers: NDArray[np.int64]  # (shown,) of the classes, from 1
    scores: NDArray[np.float64]  # (shown,) NaN where there is none
    counts: NDArray[np.float64]  # (shown,) particles; NaN where unknown
    resolutions: NDArray[np.float64]  # (shown,) A; not finite where unknown
    reasons: tuple[tuple[Reason, ...], ...]  # (shown)
    is_selected: NDArray[np.bool_]  # (shown,)
    threshold: float | None  # None: the classes were chosen before
    is_by_hand: bool  # a person has chosen
    n_empty: int  # classes left out, as they have no particle
    n_unclassed: int  # particles of the run that are in no class


def arrange_scores(
    images: NDArray[np.floating],
    scores: ClassScores,
    choice: ClassChoice,
    *,
    counts: ArrayLike,
    resolutions: ArrayLike | None = None,
    n_unclassed: int = 0,
) -> ScoreGallery:
    """Sort classes by score and leave the empty ones out.

    Parameters
    ----------
    images
        (k, y, x).
    scores, choice
        Of the k classes.
    counts
        (k,) particles; NaN where unknown.
    resolutions
        (k,) A; None where they are not known at all.
    n_unclassed
        Particles of the run that are in no class.

    Raises
    ------
    ShapeError
        If the arrays differ in length.
    """
    require_shape(images, "k y x", name="images")
    count = len(images)
    size = np.asarray(counts, np.float64)
    detail = np.full(count, np.nan) if resolutions is None else np.asarray(resolutions, np.float64)
    values = {"counts": size, "resolutions": detail, "scores": scores.score}
    for name, found in {**values, "choice": choice.is_selected}.items():
        if found.shape != (count,):
            raise ShapeError(
                name,
                must=f"have one value for each of the {count} classes",
                got=f"shape {found.shape}",
                remedy="Give one for each image",
            )
    order = best_first(scores.score, size)
    order = order[[choice.why[k] != EMPTY for k in order]]
    return ScoreGallery(
        images=np.asarray(images, np.float32)[order],
        numbers=order + 1,
        scores=scores.score[order],
        counts=size[order],
        resolutions=detail[order],
        reasons=tuple(scores.reasons[k] for k in order),
        is_selected=choice.is_selected[order],
        threshold=choice.threshold,
        is_by_hand=choice.is_by_hand,
        n_empty=count - len(order),
        n_unclassed=n_unclassed,
    )


class _Sheet(NamedTuple):
    """Measures of a sheet; lengths are in sides of an image unless they say otherwise."""

    columns: int
    side: float  # inches
    size: float  # points, of the letters
    caption: float  # below the image of the tallest caption

    @property
    def em(self) -> float:
        """Height of a letter."""
        return self.size / (72 * self.side)

    @property
    def width(self) -> float:
        """Of a row."""
        return self.columns * (1 + GAP) - GAP

    @property
    def pitch(self) -> float:
        """From row to row."""
        return 1.0 + self.caption


def draw_score_gallery(
    gallery: ScoreGallery, *, pixel_size: float | None = None, title: str = "Scores of classes"
) -> Figure:
    """Draw the selected classes above the others; a bar under each shows its score.

    Parameters
    ----------
    gallery
        From `arrange_scores`.
    pixel_size
        A/px, for a scale bar in the first image; None draws none.
    title
        Above the sheet, before the numbers of classes and particles.

    Returns
    -------
    matplotlib.figure.Figure
        About 12 inches wide, more for more than sixty classes.
    """
    parts = _sections(gallery)
    sheet = _measure(gallery)
    heading = _SECTION / sheet.side
    rows = [math.ceil(len(places) / sheet.columns) for _, _, places in parts]
    height = sum(heading + n * sheet.pitch for n in rows)
    page = (
        max(sheet.width * sheet.side, _NARROWEST) + 2 * _MARGIN,
        height * sheet.side + _HEAD + _MARGIN,
    )
    with rc_context(STYLE):
        figure = Figure(figsize=page)
        _add_head(figure, gallery, title, page)
        if not parts:
            return figure
        box = (_MARGIN / page[0], _MARGIN / page[1])
        extent = (1 - 2 * box[0], height * sheet.side / page[1])
        axes = figure.add_axes((*box, *extent))
        axes.set(xlim=(0, (page[0] - 2 * _MARGIN) / sheet.side), ylim=(height, 0))
        axes.set_axis_off()
        top = 0.0
        for (words, colour, places), n in zip(parts, rows, strict=True):
            _add_heading(axes, words, colour, top, sheet)
            _add_section(axes, gallery, places, colour, top + heading, sheet)
            top += heading + n * sheet.pitch
        if pixel_size:
            box_width = gallery.images.shape[2] * pixel_size
            add_scale_bar(axes, box_width, sheet.side, corner=(0.0, heading))
    return figure


def write_score_gallery(
    path: Path,
    images: NDArray[np.floating],
    scores: ClassScores,
    choice: ClassChoice,
    *,
    counts: ArrayLike,
    resolutions: ArrayLike | None = None,
    n_unclassed: int = 0,
    pixel_size: float | None = None,
    title: str = "Scores of classes",
) -> None:
    """Write the gallery as a PNG file; parameters as for the two functions above.

    Raises
    ------
    ShapeError
        If the arrays differ in length.
    OutputError
        If the file cannot be written.
    """
    gallery = arrange_scores(
        images, scores, choice, counts=counts, resolutions=resolutions, n_unclassed=n_unclassed
    )
    figure = draw_score_gallery(gallery, pixel_size=pixel_size, title=title)
    with writing(path) as file:
        file.write(figure_to_png(figure, dpi=_DPI))


def _sections(gallery: ScoreGallery) -> list[tuple[str, str, NDArray[np.int64]]]:
    """Heading, colour and places of what is selected and of what is not."""
    found = []
    for flag, name, colour in ((True, "Selected", ACCENT), (False, "Not selected", _OUT)):
        places = np.flatnonzero(gallery.is_selected == flag)
        if len(places):
            words = f"{name}: {_number(len(places), 'class', 'classes')}"
            counts = gallery.counts[places]
            if np.isfinite(counts).all():
                words += f", {_number(int(counts.sum()), 'particle', 'particles')}"
            found.append((words, colour, places))
    return found


def _number(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _measure(gallery: ScoreGallery) -> _Sheet:
    """Columns and sizes; the height of a caption depends on both, so it is guessed first."""
    columns, side = choose_columns(len(gallery.images), 1.7, sides=_SIDES)
    sheet = _Sheet(columns, side, float(np.clip(72 * side * 0.09, 6.5, 8.5)), 0.0)
    longest = max((len(_reason_lines(r, sheet)) for r in gallery.reasons), default=0)
    lines = 1 + _has_details(gallery) + _REASON_SIZE * longest
    return sheet._replace(caption=0.08 + (lines + 0.6) * _LEADING * sheet.em)


def _has_details(gallery: ScoreGallery) -> bool:
    return bool(np.isfinite(gallery.counts).any() or np.isfinite(gallery.resolutions).any())


def _reason_lines(reasons: Sequence[Reason], sheet: _Sheet) -> list[str]:
    """Cut the strongest reasons to the width of an image."""
    width = max(int(1 / (_LETTER * _REASON_SIZE * sheet.em)), 8)
    lines: list[str] = []
    for reason in reasons[:_REASONS]:
        sign = "+" if reason.effect >= 0 else "\N{MINUS SIGN}"
        lines += textwrap.wrap(
            f"{sign} {reason.text}",
            width,
            max_lines=_LINES,
            placeholder=" …",
            subsequent_indent="  ",
        )
    return lines


def _add_head(figure: Figure, gallery: ScoreGallery, title: str, page: tuple[float, float]) -> None:
    kept, total = int(gallery.is_selected.sum()), len(gallery.images)
    text = f"{kept:,} of {_number(total, 'class', 'classes')}"
    if np.isfinite(gallery.counts).all() and total:
        particles = int(gallery.counts[gallery.is_selected].sum())
        classed, none = int(gallery.counts.sum()), gallery.n_unclassed
        text += f" with {particles:,} of {_number(classed + none, 'particle', 'particles')}"
        text += f" ({classed:,} in classes, {none:,} in none)" if none else ""
    text += " selected"
    if gallery.threshold is None:
        text += " by hand" if gallery.is_by_hand else " before, by score"
    else:
        text += f", threshold {show_threshold(gallery.threshold)}"
    if gallery.n_empty:
        text += f"; {_number(gallery.n_empty, 'empty class', 'empty classes')} left out"
    is_bare = total > 0 and np.isnan(gallery.counts).all()
    caption = "Judged from the pictures alone. " if is_bare else ""
    caption += "Below each: score, class number"
    if _has_details(gallery):
        caption += "; particles, resolution"
    caption += "; what raised (+) or lowered (\N{MINUS SIGN}) the score most."
    left, top = _MARGIN / page[0], 1 - 0.5 * _MARGIN / page[1]
    figure.text(left, top, title, size=12, weight="bold", va="top", color=INK)
    for n, words in enumerate((f"{text}.", caption)):
        figure.text(left, top - (0.23 + 0.17 * n) / page[1], words, size=9, va="top", color=FAINT)


def _add_heading(axes: Axes, words: str, colour: str, top: float, sheet: _Sheet) -> None:
    inch = 1 / sheet.side
    axes.plot([0, sheet.width], [top + 0.04 * inch] * 2, color=colour, lw=1.5, clip_on=False)
    axes.text(0, top + 0.11 * inch, words, size=10, weight="bold", va="top", color=colour)


def _add_section(
    axes: Axes,
    gallery: ScoreGallery,
    places: NDArray[np.int64],
    colour: str,
    top: float,
    sheet: _Sheet,
) -> None:
    for n, place in enumerate(places):
        row, column = divmod(n, sheet.columns)
        corner = (column * (1 + GAP), top + row * sheet.pitch)
        share = float(np.clip(np.nan_to_num(gallery.scores[place]), 0, 1))
        add_image(axes, gallery.images[place], corner, share=share, colour=colour)
        _add_caption(axes, gallery, int(place), corner, colour, sheet)


def _add_caption(
    axes: Axes,
    gallery: ScoreGallery,
    place: int,
    corner: tuple[float, float],
    colour: str,
    sheet: _Sheet,
) -> None:
    left, top = corner
    line = _LEADING * sheet.em
    y = top + 1.08 + 0.8 * sheet.em
    score = gallery.scores[place]
    words = show_score(score, gallery.threshold) if np.isfinite(score) else "no score"
    axes.text(left, y, words, size=sheet.size, weight="bold", va="baseline", color=colour)
    number = f"class {gallery.numbers[place]}"
    axes.text(left + 1, y, number, size=sheet.size, va="baseline", ha="right", color=INK)
    if _has_details(gallery):
        y += line
        count, resolution = gallery.counts[place], gallery.resolutions[place]
        if np.isfinite(count):
            axes.text(left, y, f"{int(count):,}", size=sheet.size, va="baseline", color=INK)
        text = f"{resolution:.1f} Å" if np.isfinite(resolution) else "-"
        axes.text(left + 1, y, text, size=sheet.size, va="baseline", ha="right", color=INK)
    for text in _reason_lines(gallery.reasons[place], sheet):
        y += _REASON_SIZE * line
        small = _REASON_SIZE * sheet.size
        axes.text(left, y, text, size=small, va="baseline", color=FAINT)
