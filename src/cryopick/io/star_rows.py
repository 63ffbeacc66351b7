"""The rows of a STAR loop: text to typed columns and back, in chunks.

Runs of spaces are squeezed and the rest is left to the CSV reader of Arrow, which refuses rows
of another length. Quoted values travel as one word, with control characters for what was quoted.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence, Set

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from cryopick.errors import OutputError

__all__ = [
    "RowError",
    "format_columns",
    "format_rows",
    "parse_rows",
    "parse_values",
    "split_line",
    "split_raw",
]

_CHUNK_BYTES = 1 << 22
_CHUNK_ROWS = 50_000
_TEXT_LABEL = re.compile(r"(Name(NoDW|Original)?|File\d?|Image)$")
# each begins with the character that is rare, so that the search skips from one to the next
_QUOTED = re.compile(rb"([\"'])(?<!\S.)(.*?)\1(?!\S)")
_COMMENT = re.compile(rb"#(?<!\S.)[^\n]*")
_MARK, _SPACE, _TAB, _HASH = b"\x1d", b"\x1c", b"\x1e", b"\x1f"  # quoted, and what was inside
_HIDDEN = {_MARK: "", _SPACE: " ", _TAB: "\t", _HASH: "#"}
_TEXT = pa.large_string()
_WIDTHS = [pa.null(), pa.int64(), pa.float64(), _TEXT]  # every type holds those before it
_NEEDS_QUOTES = r"^$|\s|^[\"'#]"


class RowError(Exception):
    """A row that breaks the rules; `place` is its first byte in the file."""

    def __init__(self, place: int, must: str, got: str, remedy: str) -> None:
        super().__init__(place, must, got, remedy)
        self.place, self.must, self.got, self.remedy = place, must, got, remedy


def split_line(line: bytes) -> list[str]:
    """Split one line into values; quotes are taken off."""
    return [_show(w.decode(errors="replace")) for w in split_raw(line)]


def split_raw(line: bytes) -> list[bytes]:
    """Split one line into values that still know whether they were quoted."""
    return _strip_comments(_hide_quotes(line)).split()


def parse_values(labels: Sequence[str], values: Sequence[bytes], *, text: Set[str]) -> pd.DataFrame:
    """Make a table of one row from pairs, given the values as `split_raw` makes them."""
    words = [value.decode(errors="replace") for value in values]
    columns = [
        _typed(pa.array([word], _TEXT), is_text=_is_text(label, text))
        for label, word in zip(labels, words, strict=True)
    ]
    table: pd.DataFrame = pa.table(columns, names=list(labels)).to_pandas()
    return table


def parse_rows(
    raw: bytes, start: int, end: int, labels: Sequence[str], *, text: Set[str]
) -> pd.DataFrame:
    """Parse the rows between two places of a file.

    Raises
    ------
    RowError
        If a row has more or fewer values than there are labels, or is not UTF-8.
    """
    kinds = [_TEXT if _is_text(label, text) else pa.null() for label in labels]
    chunks: list[pa.Table] | None = None
    while chunks is None:  # again from the start when a later row widens the type of a column
        chunks = _read_chunks(raw, start, end, labels, kinds)
    names = [str(n) for n in range(len(labels))]
    empty = pa.schema([(n, _TEXT) for n in names]).empty_table()
    table = pa.concat_tables(chunks) if chunks else empty
    rows: pd.DataFrame = table.rename_columns(list(labels)).to_pandas()
    return rows


def _read_chunks(
    raw: bytes, start: int, end: int, labels: Sequence[str], kinds: list[pa.DataType]
) -> list[pa.Table] | None:
    """Read all chunks with these types; None if they proved too narrow and were widened."""
    chunks: list[pa.Table] = []
    while start < end:
        stop = raw.find(b"\n", min(start + _CHUNK_BYTES, end) - 1, end)
        stop = end if stop < 0 else stop + 1
        chunk = _squeeze(raw[start:stop])
        if chunk.strip():
            try:
                table = _read_chunk(chunk, kinds, is_first=not chunks)
            except (pa.ArrowInvalid, ValueError) as error:
                raise _locate(raw, start, stop, labels, error) from error
            if chunks and table.schema != chunks[0].schema:
                return None
            chunks.append(table)
        start = stop
    return chunks


def _read_chunk(chunk: bytes, kinds: list[pa.DataType], *, is_first: bool) -> pa.Table:
    """Read rows with the given types; where they do not fit, widen `kinds` first."""
    if not kinds:
        raise ValueError("rows without labels")
    if not is_first:
        with contextlib.suppress(pa.ArrowInvalid):  # look closer below
            return _unhide_table(_read_typed(chunk, kinds), is_hidden=_MARK in chunk)
    words = _read_typed(chunk, [_TEXT] * len(kinds))
    columns = [
        _typed(w.combine_chunks(), is_text=k == _TEXT) for w, k in zip(words, kinds, strict=True)
    ]
    for n, column in enumerate(columns):
        kinds[n] = max(kinds[n], column.type, key=_WIDTHS.index)
    columns = [
        c if c.type == k else (_unhide(w.combine_chunks()) if k == _TEXT else c.cast(k))
        for c, w, k in zip(columns, words, kinds, strict=True)
    ]
    return pa.table(columns, names=words.column_names)


def _read_typed(chunk: bytes, kinds: Sequence[pa.DataType]) -> pa.Table:
    names = [str(n) for n in range(len(kinds))]
    return csv.read_csv(
        pa.BufferReader(chunk),
        read_options=csv.ReadOptions(
            column_names=names, block_size=len(chunk) + 1, use_threads=False
        ),
        parse_options=csv.ParseOptions(delimiter=" ", quote_char=False),
        convert_options=csv.ConvertOptions(
            column_types=dict(zip(names, kinds, strict=True)),
            null_values=[],
            strings_can_be_null=False,
        ),
    )


def _squeeze(chunk: bytes) -> bytes:
    """Leave one space between values and none at the ends of a line."""
    if b'"' in chunk or b"'" in chunk:
        chunk = _hide_quotes(chunk)
    if b"\t" in chunk:
        chunk = chunk.replace(b"\t", b" ")
    if b"#" in chunk:
        chunk = _strip_comments(chunk)
    if b"  " not in chunk and b" \n" not in chunk and b"\n " not in chunk:
        return chunk.strip(b" ")
    letters: NDArray[np.uint8] = np.frombuffer(chunk, np.uint8)
    is_kept = letters != ord(" ")
    is_kept[1:] |= letters[:-1] > ord(" ")  # the first space after a value
    letters = letters[is_kept]
    is_kept = np.ones(len(letters), bool)
    is_kept[:-1] = (letters[:-1] != ord(" ")) | (letters[1:] != ord("\n"))
    squeezed: bytes = letters[is_kept].tobytes()
    return squeezed.rstrip(b" ")


def _hide_quotes(chunk: bytes) -> bytes:
    def hide(match: re.Match[bytes]) -> bytes:
        inside = match.group(2).replace(b" ", _SPACE).replace(b"\t", _TAB).replace(b"#", _HASH)
        return _MARK + inside

    return _QUOTED.sub(hide, chunk)


def _show(value: str) -> str:
    for hidden, shown in _HIDDEN.items():
        value = value.replace(hidden.decode(), shown)
    return value


def _strip_comments(chunk: bytes) -> bytes:
    return _COMMENT.sub(b"", chunk)


def _is_text(label: str, text: Set[str]) -> bool:
    return label in text or _TEXT_LABEL.search(label) is not None


def _typed(words: pa.Array, *, is_text: bool) -> pa.Array:
    """Give a column of text its type: the first of int, float and text that all values have."""
    if is_text or not _looks_numeric(words):
        return _unhide(words)
    if pc.any(pc.starts_with(words, "+")).as_py():  # Arrow does not know the sign
        words = pc.replace_substring_regex(words, r"^\+", "")
    for kind in (pa.int64(), pa.float64()):
        with contextlib.suppress(pa.ArrowInvalid):
            return words.cast(kind)
    return _unhide(words)


def _looks_numeric(words: pa.Array) -> bool:
    if not len(words):
        return False
    try:
        float(words[0].as_py())
    except ValueError:
        return False
    return True


def _unhide(words: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring(words, _MARK.decode())).as_py():
        for hidden, shown in _HIDDEN.items():
            words = pc.replace_substring(words, hidden.decode(), shown)
    return words


def _unhide_table(table: pa.Table, *, is_hidden: bool) -> pa.Table:
    if not is_hidden:
        return table
    columns = [_unhide(c) if c.type == _TEXT else c for c in table.columns]
    return pa.table(columns, names=table.column_names)


def _locate(raw: bytes, start: int, stop: int, labels: Sequence[str], cause: Exception) -> RowError:
    """Find the row that a fast reader stumbled over."""
    mend = "Mend the line, or copy the file again if it may be cut short"
    while start < stop:
        end = raw.find(b"\n", start, stop)
        end = stop if end < 0 else end
        line = raw[start:end]
        try:
            line.decode()
        except UnicodeDecodeError as error:
            return RowError(start, "be UTF-8 text", f"byte {error.start + 1} of the line", mend)
        values = split_line(line)
        must = f"have {len(labels)} values"
        if values and len(values) > len(labels):
            extra = f"{len(values)}: {values[len(labels)]!r} in column {len(labels) + 1}"
            return RowError(start, must, extra, mend)
        if values and len(values) < len(labels):
            label = labels[len(values)]
            short = f"{len(values)}: none in column {len(values) + 1} ({label})"
            return RowError(start, must, short, mend)
        start = end + 1
    return RowError(start - 1, "be rows of values", str(cause).splitlines()[0], mend)


def format_columns(rows: pd.DataFrame, *, name: str) -> list[pa.Array]:
    """Turn every column into text, one value a row.

    Raises
    ------
    OutputError
        If a text cannot be written in one line.
    """
    return [
        _format_column(rows.iloc[:, n], str(label), name) for n, label in enumerate(rows.columns)
    ]


def format_rows(rows: pd.DataFrame, *, name: str) -> Iterator[memoryview]:
    """Format rows as lines, chunk by chunk, ready to be written.

    Raises
    ------
    OutputError
        If a text cannot be written in one line.
    """
    for start in range(0, len(rows) if len(rows.columns) else 0, _CHUNK_ROWS):
        columns = format_columns(rows.iloc[start : start + _CHUNK_ROWS], name=name)
        lines = pc.binary_join_element_wise(*columns, " ")
        lines = pc.binary_join_element_wise(lines, "", "\n")  # the line end of each
        ends = np.frombuffer(lines.buffers()[1], np.int32, len(lines) + 1)
        yield memoryview(lines.buffers()[2])[: int(ends[-1])]


def _format_column(column: pd.Series, label: str, name: str) -> pa.Array:
    kind = column.dtype.kind
    if kind == "b":
        return pa.array(column.to_numpy(np.int64)).cast(pa.string())
    if kind in "iu":
        return pa.array(column.to_numpy()).cast(pa.string())
    if kind == "f":
        return _format_floats(column.to_numpy())
    return _quote(_as_text(column), label, name)


def _as_text(column: pd.Series) -> pa.Array:
    try:
        words = pa.array(column, pa.string(), from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        words = pa.array(["" if v is None else str(v) for v in column], pa.string())
    words = words.combine_chunks() if isinstance(words, pa.ChunkedArray) else words
    return pc.fill_null(words, "")


def _format_floats(values: NDArray[np.floating]) -> pa.Array:
    """Write the fewest digits that come back unchanged; whole numbers keep a decimal point."""
    is_whole = bool(np.all(np.abs(values) < 2**53) and np.all(values == np.rint(values)))
    if is_whole:
        whole = pa.array(values.astype(np.int64)).cast(pa.string())
        return pc.binary_join_element_wise(whole, ".0", "")
    return pa.array(values).cast(pa.string())


def _quote(words: pa.Array, label: str, name: str) -> pa.Array:
    is_odd = pc.match_substring_regex(words, _NEEDS_QUOTES)
    if not _TEXT_LABEL.search(label) and _is_all_numeric(words):
        is_odd = pa.array(np.ones(len(words), bool))  # or they would come back as numbers
    if not pc.any(is_odd).as_py():
        return words
    quoted = [
        _quote_word(w, label, name) if odd else w
        for w, odd in zip(words.to_pylist(), is_odd.to_pylist(), strict=True)
    ]
    return pa.array(quoted, pa.string())


def _is_all_numeric(words: pa.Array) -> bool:
    try:
        words.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return len(words) > 0


def _quote_word(word: str, label: str, name: str) -> str:
    for quote in ('"', "'"):
        if "\n" not in word and f"{quote} " not in word + " ":
            return quote + word + quote
    raise OutputError(
        name,
        must="hold texts of one line without both kinds of quotes",
        got=f"{word!r} in {label}",
        remedy="Rename it",
    )
