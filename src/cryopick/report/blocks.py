"""The blocks a report is built of: charts, pictures, micrographs with picks, tables, commands."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryopick.io.png import encode_png, encode_webp
from cryopick.report.figures import figure_to_svg, score_colours
from cryopick.report.page import Html
from cryopick.report.pictures import Picture, scale_bar_length

__all__ = [
    "Command",
    "Field",
    "chart_block",
    "command_block",
    "field_blocks",
    "grid_block",
    "image_block",
    "table_block",
]

_NOTHING = "\u2013"  # an en dash
_MOST_CIRCLES = 1500  # a field; the best are drawn


@dataclass(frozen=True, kw_only=True)
class Field:
    """A micrograph as the report shows it."""

    name: str
    picture: Picture
    picks: pd.DataFrame  # x, y (px of the micrograph), and fom, diameter (A) where known
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A step that was run."""

    name: str
    command: str  # the line that was typed
    outcome: str  # one sentence
    parameters: Mapping[str, Any]
    units: Mapping[str, str] = field(default_factory=dict)  # of parameters that have one


def chart_block(figure: Figure, *, caption: str, label: str) -> Html:
    """Put a chart on the page.

    Parameters
    ----------
    figure
        From `cryopick.report.figures`.
    caption
        What it shows and how to read it.
    label
        A few words for readers who cannot see it.
    """
    return _figure(figure_to_svg(figure, label=label), caption)


def image_block(
    pixels: NDArray[np.uint8], *, caption: str, label: str, is_sharp: bool = False
) -> Html:
    """Put pixels on the page as wide as the column.

    Parameters
    ----------
    pixels
        (y, x) or (y, x, 3).
    caption, label
        As in `chart_block`.
    is_sharp
        Show each pixel as a square, for small images.
    """
    kind, content = (
        ("png", encode_png(pixels)) if is_sharp else ("webp", encode_webp(pixels, quality=85))
    )
    style = "pixels" if is_sharp else "sheet"
    source = f"data:image/{kind};base64,{b64encode(content).decode()}"
    height, width = pixels.shape[:2]
    return _figure(
        f'<img class="{style}" src="{source}" width="{width}" height="{height}" '
        f'alt="{escape(label)}">',
        caption,
    )


def grid_block(blocks: Sequence[Html], *, columns: int = 2) -> Html:
    """Set blocks side by side, 2 or 3 in a row."""
    return Html(f'<div class="{"row" if columns == 2 else "thirds"}">{"".join(blocks)}</div>')


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
    figures = [_field(f, limits=limits, default_diameter=default_diameter) for f in fields]
    return [_field_tools(limits), grid_block(figures)]


def table_block(rows: pd.DataFrame, *, most: int = 50) -> Html:
    """Write a table; of more than `most` rows the first are shown and the rest counted."""
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in rows.dtypes]
    marks = [' class="number"' if n else "" for n in numeric]
    head = "".join(
        f"<th{mark}>{escape(str(c))}</th>" for c, mark in zip(rows.columns, marks, strict=True)
    )
    lines = []
    for row in rows.head(most).itertuples(index=False):
        cells = (f"<td{m}>{escape(_text(v))}</td>" for v, m in zip(row, marks, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    if len(rows) > most:
        lines.append(f'<tr><td colspan="{len(marks)}">and {len(rows) - most:,} more</td></tr>')
    return Html(f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>")


def command_block(command: Command) -> Html:
    """Write a step with the line that ran it and every parameter."""
    pairs = "".join(
        f"<div><dt>{escape(n.replace('_', ' '))}</dt>"
        f"<dd>{escape(_with_unit(v, command.units.get(n, '')))}</dd></div>"
        for n, v in command.parameters.items()
    )
    line = f"<pre>{escape(command.command)}</pre>" if command.command else ""
    outcome = f"<p>{escape(command.outcome)}</p>" if command.outcome else ""
    listed = f'<dl class="parameters">{pairs}</dl>' if pairs else ""
    return Html(
        f'<div class="command"><h3>{escape(command.name)}</h3>{line}{outcome}{listed}</div>'
    )


def _figure(content: str, caption: str, *, kind: str = "", name: str = "") -> Html:
    style = f' class="{kind}"' if kind else ""
    bold = f"<b>{escape(name)}</b> " if name else ""
    return Html(
        f"<figure{style}>{content}<figcaption>{bold}{escape(caption)}</figcaption></figure>"
    )


def _field_tools(limits: tuple[float, float]) -> Html:
    steps = ", ".join(score_colours(np.linspace(0, 1, 9), low=0, high=1))
    return Html(
        '<div class="tools"><label><input class="toggle" type="checkbox" checked> show picks'
        f'</label><span class="key">score {limits[0]:.3g}'
        f'<i style="background: linear-gradient(90deg, {steps})"></i>{limits[1]:.3g} and above'
        "</span></div>"
    )


def _field(field: Field, *, limits: tuple[float, float], default_diameter: float) -> Html:
    height, width = field.picture.pixels.shape
    content = b64encode(encode_webp(field.picture.pixels, quality=72)).decode()
    svg = (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(field.name)}">'
        f'<image width="{width}" height="{height}" href="data:image/webp;base64,{content}"/>'
        f"{_circles(field, limits=limits, default_diameter=default_diameter)}"
        f"{_scale_bar(field.picture)}</svg>"
    )
    return _figure(svg, field.note, kind="field", name=field.name)


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


def _with_unit(value: object, unit: str) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{_text(value)} {unit.replace('A', 'Å')}" if unit and is_number else _text(value)


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return _NOTHING
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.5g}"
    if isinstance(value, int | np.integer):
        return f"{value:,}" if abs(int(value)) >= 10000 else str(value)
    if isinstance(value, tuple | list):
        return ", ".join(_text(v) for v in value) or _NOTHING
    return str(value) or _NOTHING
