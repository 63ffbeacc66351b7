"""Micrographs with a circle around each pick: one picking, or two of the same fields."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

import numpy as np
import pandas as pd

from cryopick.io.png import encode_webp
from cryopick.report.blocks import figure_block, grid_block
from cryopick.report.figures import score_colours
from cryopick.report.page import Html
from cryopick.report.pictures import Picture, scale_bar_length

__all__ = ["Field", "FieldScale", "field_blocks", "field_pair_blocks"]

_MOST_CIRCLES = 1500  # a field; the best are drawn


@dataclass(frozen=True, kw_only=True)
class Field:
    """A micrograph as the report shows it."""

    name: str
    picture: Picture
    picks: pd.DataFrame  # x, y (px of the micrograph), and fom, diameter (A) where known
    note: str = ""


class FieldScale(NamedTuple):
    """What the colours of the circles of one picking mean."""

    limits: tuple[float, float]  # scores at the two ends of the colours
    name: str = "score"


def field_blocks(
    fields: Sequence[Field], *, limits: tuple[float, float], default_diameter: float
) -> list[Html]:
    """Show micrographs with a circle around each pick, coloured by its score.

    The circles are drawn as lines over the picture: they stay sharp when enlarged, tell score
    and diameter under the pointer, and can be switched off.

    Parameters
    ----------
    fields
        Micrographs.
    limits
        Scores at the two ends of the colours.
    default_diameter
        Of circles of picks that have none detected, A.
    """
    if not fields:
        return []
    scale = FieldScale(limits)
    figures = [_field(f, scale, default_diameter) for f in fields]
    return [_field_tools([scale]), grid_block(figures)]


def field_pair_blocks(
    pairs: Sequence[tuple[Field, Field]],
    *,
    scales: tuple[FieldScale, FieldScale],
    default_diameter: float,
) -> list[Html]:
    """Show the same micrographs with the picks of two pickings, side by side.

    Parameters
    ----------
    pairs
        Each micrograph twice, with one picture: the second only refers to that of the first, so
        that the page holds it once.
    scales
        Of the first picking and of the second.
    default_diameter
        Of circles of picks that have none detected, A.
    """
    if not pairs:
        return []
    figures = []
    for number, (one, other) in enumerate(pairs, start=1):
        anchor = f"field-{number}"
        figures.append(_field(one, scales[0], default_diameter, anchor=anchor))
        figures.append(_field(other, scales[1], default_diameter, anchor=anchor, is_again=True))
    return [_field_tools(scales), grid_block(figures)]


def _field_tools(scales: Sequence[FieldScale]) -> Html:
    steps = ", ".join(score_colours(np.linspace(0, 1, 9), low=0, high=1))
    keys = "".join(
        f'<span class="key">{escape(name)} {low:.3g}'
        f'<i style="background: linear-gradient(90deg, {steps})"></i>{high:.3g} and above</span>'
        for (low, high), name in scales
    )
    return Html(
        '<div class="tools"><label><input class="toggle" type="checkbox" checked> show picks'
        f"</label>{keys}</div>"
    )


def _field(
    field: Field,
    scale: FieldScale,
    default_diameter: float,
    *,
    anchor: str = "",
    is_again: bool = False,
) -> Html:
    height, width = field.picture.pixels.shape
    if is_again:
        image = f'<use href="#{anchor}"/>'
    else:
        content = b64encode(encode_webp(field.picture.pixels, quality=72)).decode()
        named = f'id="{anchor}" ' if anchor else ""
        image = (
            f'<image {named}width="{width}" height="{height}" '
            f'href="data:image/webp;base64,{content}"/>'
        )
    circles = _circles(field, limits=scale.limits, default_diameter=default_diameter)
    svg = (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(field.name)}">'
        f"{image}{circles}{_scale_bar(field.picture)}</svg>"
    )
    return figure_block(svg, field.note, kind="field", name=field.name)


def _circles(field: Field, *, limits: tuple[float, float], default_diameter: float) -> str:
    picture, picks = field.picture, field.picks
    if "fom" in picks:
        picks = picks.nlargest(_MOST_CIRCLES, "fom")
    picks = picks.head(_MOST_CIRCLES)
    low, high = limits
    fom = picks["fom"] if "fom" in picks else np.full(len(picks), high)
    diameters = picks["diameter"] if "diameter" in picks else np.full(len(picks), default_diameter)
    stroke = max(picture.pixels.shape) / 400  # as thick in a small picture as in a large one
    circles = []
    for x, y, score, diameter, colour in zip(
        picks["x"], picks["y"], fom, diameters, score_colours(fom, low=low, high=high), strict=True
    ):
        size = diameter if diameter > 0 else default_diameter
        radius = size / 2 / picture.pixel_size if picture.pixel_size else size / 2 * picture.scale
        circles.append(
            f'<circle cx="{x * picture.scale + 0.5:.1f}" cy="{y * picture.scale + 0.5:.1f}" '
            f'r="{radius:.1f}" stroke="{colour}">'
            f"<title>score {score:.3g}, {size:.0f} Å</title></circle>"
        )
    return f'<g class="picks" stroke-width="{stroke:.2f}">{"".join(circles)}</g>'


def _scale_bar(picture: Picture) -> str:
    if not picture.pixel_size:
        return ""
    height, width = picture.pixels.shape
    length = scale_bar_length(width * picture.pixel_size)
    drawn = length / picture.pixel_size
    unit = max(height, width) / 800
    left, top = 16 * unit, height - 22 * unit
    return (
        f'<g><rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{drawn:.1f}" '
        f'height="{6 * unit:.1f}"/><text x="{left + drawn / 2:.1f}" y="{top - 8 * unit:.1f}" '
        f'style="font-size: {24 * unit:.1f}px">{length / 10:g} nm</text></g>'
    )
