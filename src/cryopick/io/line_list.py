"""A list on disk that only grows: one line of JSON for each record, there or not there as a whole.

The file alone says what is known. A line that was being written when the program was killed does
not count, and is cut off before more is written after it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from cryopick.errors import FormatError
from cryopick.io.atomic import output_errors

__all__ = ["append_lines", "read_lines", "whole_lines"]

Record = TypeVar("Record")


def whole_lines(path: Path) -> list[bytes]:
    """Read all whole lines, and cut off what is behind them.

    Parameters
    ----------
    path
        Of the list; without a file it is empty.

    Raises
    ------
    OutputError
        If half a line cannot be cut off.
    """
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        with output_errors(path), path.open("r+b") as handle:
            handle.truncate(len(whole))
    return whole.splitlines()


def read_lines(path: Path, make: Callable[[Any], Record], *, name: str) -> list[Record]:
    """Read all whole records, and cut off what is behind them.

    Parameters
    ----------
    path
        Of the list; without a file it is empty.
    make
        Makes a record of what a line holds; KeyError, TypeError and ValueError say that it cannot.
    name
        What the records are, in the plural.

    Raises
    ------
    FormatError
        If a line is no record.
    OutputError
        If half a line cannot be cut off.
    """
    try:
        return [make(json.loads(line)) for line in whole_lines(path)]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            str(path),
            must=f"be a list of {name}",
            got="a line that is none",
            remedy="Begin again in another --out",
        ) from error


def append_lines(path: Path, records: Iterable[object]) -> None:
    """Write records behind those that are there; they are on the disk when this returns.

    Parameters
    ----------
    path
        Of the list.
    records
        Ready for JSON.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    with output_errors(path), path.open("ab") as handle:
        handle.writelines(json.dumps(one).encode() + b"\n" for one in records)
        handle.flush()
        os.fsync(handle.fileno())
