"""Read tables of an mmCIF file: loops and single rows, quoted and multi-line values."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

__all__ = ["read_mmcif"]

_TOKEN = re.compile(r"""'(.*?)'(?=\s|$)|"(.*?)"(?=\s|$)|(\S+)""")
_STOPS = ("_", "loop_", "data_", "#")

Table = dict[str, list[str]]


def read_mmcif(lines: Sequence[str], categories: Collection[str]) -> dict[str, Table]:
    """Read some tables.

    Parameters
    ----------
    lines
        Of the file.
    categories
        Names of the tables wanted, with their underscore.

    Returns
    -------
    dict
        For each table there is: the values of its columns, by name without the table's.

    Raises
    ------
    ValueError
        If a table's values do not fill its rows.

    Examples
    --------
    >>> read_mmcif(["loop_", "_a.x", "_a.y", "1 'b c'", "2 d"], ["_a"])
    {'_a': {'x': ['1', '2'], 'y': ['b c', 'd']}}
    """
    found: dict[str, Table] = {}
    place = 0
    while place < len(lines):
        line = lines[place].strip()
        if line == "loop_":
            place = _read_loop(lines, place + 1, categories, found)
        elif line.startswith("_"):
            place = _read_pair(lines, place, categories, found)
        elif lines[place].startswith(";"):
            _, place = _text_block(lines, place)
        else:
            place += 1
    return found


def _read_loop(
    lines: Sequence[str], place: int, categories: Collection[str], found: dict[str, Table]
) -> int:
    labels: list[str] = []
    while place < len(lines) and lines[place].strip().startswith("_"):
        labels.append(lines[place].strip())
        place += 1
    first = place
    while place < len(lines) and not lines[place].startswith(_STOPS):
        place = _text_block(lines, place)[1] if lines[place].startswith(";") else place + 1
    category = labels[0].partition(".")[0] if labels else ""
    if category in categories:
        columns: list[list[str]] = [[] for _ in labels]
        values = _rows(lines[first:place], len(labels))
        for row in values:
            for column, value in zip(columns, row, strict=True):
                column.append(value)
        names = [label.partition(".")[2] for label in labels]
        found[category] = dict(zip(names, columns, strict=True))
    return place


def _read_pair(
    lines: Sequence[str], place: int, categories: Collection[str], found: dict[str, Table]
) -> int:
    label, _, rest = lines[place].strip().partition(" ")
    category, _, name = label.partition(".")
    place += 1
    if rest.strip():
        value = next(_tokens(rest))
    elif place < len(lines) and lines[place].startswith(";"):
        value, place = _text_block(lines, place)
    elif place < len(lines):
        value = next(_tokens(lines[place]), "")
        place += 1
    else:
        value = ""
    if category in categories:
        found.setdefault(category, {})[name] = [value]
    return place


def _rows(lines: Sequence[str], width: int) -> Iterator[list[str]]:
    """Rows of a loop: mostly one to a line, but values may run on."""
    row: list[str] = []
    place = 0
    while place < len(lines):
        line = lines[place]
        if line.startswith(";"):
            text, place = _text_block(lines, place)
            row.append(text)
        else:
            is_plain = "'" not in line and '"' not in line
            row.extend(line.split() if is_plain else _tokens(line))
            place += 1
        if len(row) == width:
            yield row
            row = []
        elif len(row) > width:
            raise ValueError(f"{len(row)} values in a row of {width}: {line.strip()[:40]}")
    if row:
        raise ValueError(f"{len(row)} of {width} values in the last row")


def _tokens(line: str) -> Iterator[str]:
    for match in _TOKEN.finditer(line):
        yield next(g for g in match.groups() if g is not None)


def _text_block(lines: Sequence[str], place: int) -> tuple[str, int]:
    """Text between two lines that begin with a semicolon, and the line after it."""
    parts = [lines[place][1:]]
    place += 1
    while place < len(lines) and not lines[place].startswith(";"):
        parts.append(lines[place])
        place += 1
    return "".join(p.strip() for p in parts), place + 1
