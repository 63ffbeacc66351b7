"""Read and write STAR files, the text tables of RELION and Xmipp, at the speed of a disk.

A file is a sequence of named blocks, each with one table: a loop of rows, or pairs of a label
and a value. What cannot be trusted is refused with its line and column: rows that are shorter
or longer than the header, and files cut short.

A cut in the middle of the last value is not visible in the value itself. A complete file ends
with a line end, so a last line without one is accepted only where its last value is as whole as
the one above it: a number with as many decimals, or a name with the same suffix.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pandas as pd

from cryopick.errors import FormatError
from cryopick.io.atomic import writing
from cryopick.io.star_rows import (
    RowError,
    format_columns,
    format_rows,
    parse_rows,
    parse_values,
    split_line,
    split_raw,
)

__all__ = ["read_star", "read_star_labels", "write_star"]

_DECIMAL = re.compile(r"[+-]?\d+\.(\d+)")
_SUFFIXED = re.compile(r".*\.([A-Za-z]\w*)")


def read_star(path: Path, *, text: Collection[str] = ()) -> dict[str, pd.DataFrame]:
    """Read all tables of a STAR file.

    Parameters
    ----------
    path
        The file.
    text
        Labels whose values stay text even where all are numbers. Labels of names and files
        (``rlnMicrographName``, ``rlnMtfFileName``) always do.

    Returns
    -------
    dict of pandas.DataFrame
        By block name without ``data_``, in the order of the file; columns are labels without
        their underscore. A column is int64 where all its values are integers, else float64
        where all are numbers (``inf`` and ``nan`` included), else str. Pairs are one row.

    Raises
    ------
    FormatError
        If the file is missing, is no STAR file, is cut short, or a row has more or fewer
        values than its header; the message names line and column.
    """
    return _Reader(Path(path), text).read()


def read_star_labels(path: Path) -> dict[str, list[str]]:
    """Read only the headers of a STAR file, to see what it is.

    Returns
    -------
    dict of list of str
        Labels without their underscore by block name; the rows are not checked.

    Raises
    ------
    FormatError
        If the file is missing or is no STAR file.
    """
    return {block.name: block.labels for block, _ in _Reader(Path(path), ()).blocks()}


@dataclass
class _Block:
    name: str
    labels: list[str]
    start: int  # where the rows or, for pairs, the values begin
    values: list[bytes] | None = None  # of pairs


class _Reader:
    """One file being read; it exists to keep bytes, place and name together for messages."""

    def __init__(self, path: Path, text: Collection[str]) -> None:
        self._path = path
        self._text = frozenset(text)
        try:
            self._raw = path.read_bytes()
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            raise FormatError(
                str(path),
                must="be a readable file",
                got="no such file" if missing else str(error.strerror or error).lower(),
                remedy="Check the path",
            ) from error
        if b"\r" in self._raw:
            self._raw = self._raw.replace(b"\r\n", b"\n")
        hole = self._raw.find(b"\0")
        if hole >= 0:
            self._refuse(hole, "hold text only", "a zero byte", "Copy the file again")

    def read(self) -> dict[str, pd.DataFrame]:
        """Read all tables."""
        tables = {}
        for block, end in self.blocks():
            if block.values is not None:
                table = parse_values(block.labels, block.values, text=self._text)
            else:
                table = self._read_rows(block, end)
            tables[block.name] = table
        return tables

    def blocks(self) -> Iterator[tuple[_Block, int]]:
        """Yield the header of each block, and where the block ends."""
        names = set()
        place = self._first_block()
        while place < len(self._raw):
            block = self._read_header(place)
            if block.name in names:
                self._refuse(
                    place,
                    "begin a block with a new name",
                    f"a second data_{block.name}",
                    "Rename one of them",
                )
            names.add(block.name)
            place = block.start
            if block.values is None:
                place = self._next_block(block.start, is_single=len(block.labels) == 1)
            yield block, place

    def _first_block(self) -> int:
        place = 0
        while place < len(self._raw):
            line, after = self._line(place)
            if line.startswith(b"data_"):
                return place
            if line and not line.startswith(b"#"):
                break
            place = after
        shown = self._line(place)[0][:40].decode(errors="replace") or "nothing"
        self._refuse(place, "begin with a data_ block", shown, "Check that it is a STAR file")

    def _line(self, place: int) -> tuple[bytes, int]:
        end = self._raw.find(b"\n", place)
        end = len(self._raw) if end < 0 else end
        return self._raw[place:end].strip(), min(end + 1, len(self._raw))

    def _next_block(self, place: int, *, is_single: bool) -> int:
        """Find the next block header; in a table of one column it could also be a value."""
        place -= 1  # the line end before the first row
        while True:
            place = self._raw.find(b"\ndata_", place)
            if place < 0:
                return len(self._raw)
            line, after = self._line(place + 1)
            is_header = len(line.split(b"#")[0].split()) == 1
            before = self._raw.rfind(b"\n", 0, place) + 1
            previous = self._raw[before:place].strip()
            is_apart = not previous or previous.startswith(b"#")
            begins_table = self._line(after)[0].startswith((b"loop_", b"_"))  # as Xmipp writes
            if is_header and (is_apart or begins_table or not is_single):
                return place + 1
            place += 1

    def _read_header(self, place: int) -> _Block:
        line, place = self._header_line(place)
        name = line.split(b"#")[0].strip().removeprefix(b"data_").decode(errors="replace")
        block = _Block(name=name, labels=[], start=place)
        is_loop = False
        while place < len(self._raw):
            line, after = self._line(place)
            words = line.split(b" #")[0].split()
            if line.startswith(b"data_") or (is_loop and words and not _is_label(words)):
                break
            if words == [b"loop_"] and not is_loop and block.values is None:
                is_loop = True
                self._header_line(place)
            elif is_loop and words and _is_label(words):
                self._header_line(place)
                self._add_label(block, words[0], place)
            elif not is_loop and words and words[0].startswith(b"_"):
                self._add_pair(block, place)
            elif words and not line.startswith(b"#"):
                self._refuse(
                    place,
                    "be a label, loop_ or a data_ block",
                    line[:40].decode(errors="replace"),
                    "Keep one table in each block",
                )
            place = after
        block.start = place
        if not is_loop and block.values is None:
            block.values = []
        return block

    def _header_line(self, place: int) -> tuple[bytes, int]:
        line, after = self._line(place)
        if self._raw[after - 1 : after] != b"\n":
            self._refuse_cut(place)
        return line, after

    def _add_label(self, block: _Block, word: bytes, place: int) -> None:
        label = word[1:].decode(errors="replace")
        if label in block.labels:
            self._refuse(place, "name each column once", f"{label} twice", "Remove one of them")
        block.labels.append(label)

    def _add_pair(self, block: _Block, place: int) -> None:
        line, _ = self._header_line(place)
        words = split_raw(line)
        if len(words) != 2:
            self._refuse(
                place,
                "be one label and one value",
                f"{len(words)} words",
                'Put text with spaces in quotes; an empty text is ""',
            )
        self._add_label(block, words[0], place)
        block.values = [*(block.values or []), words[1]]

    def _read_rows(self, block: _Block, end: int) -> pd.DataFrame:
        try:
            rows = parse_rows(self._raw, block.start, end, block.labels, text=self._text)
        except RowError as error:
            self._refuse(error.place, error.must, error.got, error.remedy)
        if end == len(self._raw) and not self._raw.endswith(b"\n"):
            self._check_last_line(block.start)
        return rows

    def _check_last_line(self, start: int) -> None:
        last = self._raw.rfind(b"\n") + 1
        words = split_line(self._raw[last:])
        if not words:
            return
        above: list[str] = []
        end = last - 1
        while not above and end > start:
            begin = self._raw.rfind(b"\n", 0, end) + 1
            above = split_line(self._raw[begin:end]) if begin >= start else []
            end = begin - 1
        if not above or not _has_form(words[-1], above[-1]):
            self._refuse_cut(last)

    def _refuse_cut(self, place: int) -> NoReturn:
        last = split_line(self._raw[place:])
        self._refuse(
            place,
            "end with a line end, unless its last value looks as whole as the one above",
            f"{last[-1] if last else 'nothing'} at the end, column {max(len(last), 1)}",
            "Copy the file again, or add the line end if it is complete",
        )

    def _refuse(self, place: int, must: str, got: str, remedy: str) -> NoReturn:
        line = self._raw.count(b"\n", 0, place) + 1
        raise FormatError(f"{self._path}, line {line},", must=must, got=got, remedy=remedy)


def _is_label(words: list[bytes]) -> bool:
    return words[0].startswith(b"_") and len(words) == 1


def _has_form(value: str, above: str) -> bool:
    """Whether a value at the very end of a file looks whole beside the one above it."""
    ours, theirs = _DECIMAL.fullmatch(value), _DECIMAL.fullmatch(above)
    if ours and theirs:
        return len(ours.group(1)) >= len(theirs.group(1))
    ours, theirs = _SUFFIXED.fullmatch(value), _SUFFIXED.fullmatch(above)
    return bool(ours and theirs and ours.group(1) == theirs.group(1))


def write_star(
    path: Path,
    blocks: Mapping[str, pd.DataFrame],
    *,
    comment: str = "version 30001",
    as_pairs: Collection[str] = (),
) -> None:
    """Write tables as a STAR file, whole or not at all.

    Numbers are written with as many digits as they need to come back unchanged, NaN as ``nan``;
    text that is empty or holds spaces stands in quotes, as RELION writes and reads it.

    Parameters
    ----------
    path
        Where to.
    blocks
        Tables by block name without ``data_``; their index is not written.
    comment
        Written above each block; RELION 3.1 and later recognise their files by it.
    as_pairs
        Names of blocks of one row to write as pairs of label and value.

    Raises
    ------
    OutputError
        If the file cannot be written, or a text holds a line end or both kinds of quotes.
    """
    with writing(Path(path)) as handle:
        for name, rows in blocks.items():
            handle.write(f"\n# {comment}\n\ndata_{name}\n\n".encode())
            if name in as_pairs:
                for label, values in zip(rows, format_columns(rows, name=str(path)), strict=True):
                    handle.write(f"_{label:<40} {values[0].as_py()}\n".encode())
            else:
                handle.write(b"loop_\n")
                for number, label in enumerate(rows, 1):
                    handle.write(f"_{label} #{number}\n".encode())
                for chunk in format_rows(rows, name=str(path)):
                    handle.write(chunk)
            handle.write(b"\n")
