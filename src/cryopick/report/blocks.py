"""The blocks a report is built of: charts, pictures, tables, commands."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryopick.io.png import encode_png, encode_webp
from cryopick.report.figures import figure_to_svg
from cryopick.report.page import Html

__all__ = [
    "Command",
    "chart_block",
    "command_block",
    "figure_block",
    "grid_block",
    "image_block",
    "table_block",
    "text_block",
]

_NOTHING = "\u2013"  # an en dash


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
    return figure_block(figure_to_svg(figure, label=label), caption)


def image_block(
    pixels: NDArray[np.uint8],
    *,
    caption: str,
    label: str,
    is_sharp: bool = False,
    is_wide: bool = False,
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
    is_wide
        Let it be moved sideways on a narrow screen, as it holds words.
    """
    kind, content = (
        ("png", encode_png(pixels)) if is_sharp else ("webp", encode_webp(pixels, quality=85))
    )
    style = ("pixels" if is_sharp else "sheet") + (" wide" if is_wide else "")
    source = f"data:image/{kind};base64,{b64encode(content).decode()}"
    height, width = pixels.shape[:2]
    return figure_block(
        f'<img class="{style}" src="{source}" width="{width}" height="{height}" '
        f'alt="{escape(label)}">',
        caption,
    )


def grid_block(blocks: Sequence[Html], *, columns: int = 2) -> Html:
    """Set blocks side by side, 2 or 3 in a row."""
    return Html(f'<div class="{"row" if columns == 2 else "thirds"}">{"".join(blocks)}</div>')


def table_block(
    rows: pd.DataFrame, *, most: int = 50, right: Collection[str] = (), is_wide: bool = False
) -> Html:
    """Write a table; of more than `most` rows the first are shown and the rest counted.

    Parameters
    ----------
    rows
        The table; columns of numbers are set to the right.
    most
        Rows that are shown.
    right
        Columns of text that are set to the right, too.
    is_wide
        Let it be moved sideways on a narrow screen, rather than break its lines often.
    """
    numeric = [c in right or pd.api.types.is_numeric_dtype(rows[c]) for c in rows.columns]
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
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    if is_wide:
        return Html(f'<div class="scroll"><table class="steps">{body}</table></div>')
    return Html(f"<table>{body}</table>")


def text_block(text: str) -> Html:
    """Write a paragraph of plain text."""
    return Html(f'<p class="text">{escape(text)}</p>')


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


def figure_block(content: str, caption: str, *, kind: str = "", name: str = "") -> Html:
    """Put markup on the page, with a caption in plain text.

    Parameters
    ----------
    content
        Markup whose every text has been escaped.
    caption
        Below it.
    kind
        Class that the style sheet knows.
    name
        In bold before the caption.
    """
    style = f' class="{kind}"' if kind else ""
    bold = f"<b>{escape(name)}</b> " if name else ""
    return Html(
        f"<figure{style}>{content}<figcaption>{bold}{escape(caption)}</figcaption></figure>"
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
