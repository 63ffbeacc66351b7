"""Whether the images that tables name are in their stacks, told from headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from cryopick.errors import CryopickError
from cryopick.io.mrc import read_mrc_header
from cryopick.tables.paths import resolve_path

__all__ = ["find_absent_images"]

_IMAGE = re.compile(rb"(?<!\S)(\d+)@(\S+)")  # as RELION names an image in a stack


def find_absent_images(tables: Iterable[Path]) -> Iterator[str]:
    """Look for images that stacks do not have, by the headers of the stacks.

    Parameters
    ----------
    tables
        STAR files that are there. They are only searched for names such as ``000012@a.mrcs``,
        which is quick, whatever else they hold.

    Yields
    ------
    str
        A sentence for each table that names an image beyond the end of its stack. A stack that is
        missing or broken is told of where its job is looked at.
    """
    counts: dict[Path, int] = {}
    for table in tables:
        for name, last in _last_images(table).items():
            stack = resolve_path(name, table)
            if stack not in counts:
                counts[stack] = _count(stack)
            if 0 <= counts[stack] < last:
                yield f"{table} names image {last} of {stack}, which holds {counts[stack]}."
                break


def _last_images(table: Path) -> dict[str, int]:
    """Find the highest number of an image of each stack that a table names."""
    last: dict[bytes, int] = {}
    with table.open("rb") as lines:
        for line in lines:
            for number, name in _IMAGE.findall(line):
                last[name] = max(last.get(name, 0), int(number))
    return {name.decode(errors="surrogateescape"): number for name, number in last.items()}


def _count(stack: Path) -> int:
    """Count the images of a stack; -1 where it cannot be read."""
    try:
        return read_mrc_header(stack).shape[0]
    except CryopickError:
        return -1
