"""The bytes of a Scipion set: a small SQLite file with Properties, Classes and Objects.

``Classes`` names the column of every attribute, so the order of columns means nothing; an empty
set that Scipion wrote has no ``Properties`` at all.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from cryopick.errors import FormatError
from cryopick.io.atomic import aside_path, commit_file, output_errors

__all__ = ["ScipionItems", "ScipionSet", "read_item_class", "read_scipion_set", "write_scipion_set"]

_TYPES = {"Integer": "INTEGER", "Boolean": "INTEGER", "Float": "REAL"}
_FIXED = ("id", "enabled", "label", "comment", "creation")


@dataclass(frozen=True, kw_only=True)
class ScipionSet:
    """One set as it is stored."""

    item_class: str  # for example "Coordinate"
    properties: dict[str, str]
    rows: pd.DataFrame  # id, enabled, and one column per dotted attribute
    classes: dict[str, str] = field(default_factory=dict)  # class of each attribute


def read_scipion_set(path: Path) -> ScipionSet:
    """Read a set of items.

    Parameters
    ----------
    path
        A ``.sqlite`` file of a Scipion protocol.

    Returns
    -------
    ScipionSet
        Rows in the order of their id, disabled ones included.

    Raises
    ------
    FormatError
        If the file is missing, is no SQLite file or holds no Scipion set.
    """
    with _reading(Path(path)) as connection:
        return _read(connection)


def read_item_class(path: Path) -> str:
    """Class of the items of a set, for example ``Particle``; empty if an empty set has none.

    Raises
    ------
    FormatError
        If the file is missing, is no SQLite file or holds no Scipion set.
    """
    with _reading(Path(path)) as connection:
        if "Classes" not in _tables(connection):
            return _read(connection).item_class
        found = connection.execute("SELECT class_name FROM Classes WHERE label_property='self'")
        return str((found.fetchone() or [""])[0])


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise FormatError(
            str(path), must="be a Scipion set", got="no such file", remedy="Check the path"
        )
    try:
        # read-only, so that a set which Scipion has open is neither locked nor changed
        address = f"file:{quote(str(path.resolve()))}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise FormatError(
            str(path),
            must="be a Scipion set (.sqlite)",
            got=str(error),
            remedy="Give the .sqlite file of a set of coordinates or particles",
        ) from error


def _tables(connection: sqlite3.Connection) -> set[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
    return {name for (name,) in found}


def _read(connection: sqlite3.Connection) -> ScipionSet:
    tables = _tables(connection)
    properties: dict[str, str] = {}
    if "Properties" in tables:
        properties = dict(connection.execute("SELECT key, value FROM Properties"))
    if "Classes" not in tables or "Objects" not in tables:
        if tables - {"Properties", "sqlite_sequence"}:
            raise sqlite3.DatabaseError("no table Classes or Objects")
        item = properties.get("self", "").removeprefix("SetOf").removesuffix("s")
        return ScipionSet(
            item_class=item,
            properties=properties,
            rows=pd.DataFrame({name: [] for name in ("id", "enabled")}),
        )
    listed = connection.execute(
        "SELECT label_property, column_name, class_name FROM Classes ORDER BY id"
    ).fetchall()
    item_class = next((c for label, _, c in listed if label == "self"), "")
    attributes = [(label, column, c) for label, column, c in listed if label != "self"]
    cursor = connection.execute("SELECT * FROM Objects ORDER BY id")
    names = [d[0] for d in cursor.description]
    stored = pd.DataFrame.from_records(cursor.fetchall(), columns=names)
    rows = stored.loc[:, [n for n in ("id", "enabled") if n in names]].copy()
    if "enabled" not in rows:
        rows["enabled"] = 1
    found = {label: stored[column] for label, column, _ in attributes if column in names}
    rows = pd.concat([rows, pd.DataFrame(found, index=rows.index)], axis=1)
    return ScipionSet(
        item_class=item_class,
        properties=properties,
        rows=rows,
        classes={label: c for label, _, c in attributes},
    )


@dataclass(frozen=True, kw_only=True)
class ScipionItems:
    """Items of one class, column by column.

    Attributes
    ----------
    item_class
        For example ``Coordinate``.
    attributes
        Dotted name and class of each attribute in the order of their columns; a nested object
        comes before its own attributes.
    values
        `count` values per attribute; a nested object has none.
    numbers
        Ids of the items; None counts from 1.
    """

    item_class: str
    attributes: Sequence[tuple[str, str]]
    values: Mapping[str, Sequence[Any]]
    count: int
    numbers: Sequence[int] | None = None


def write_scipion_set(
    path: Path,
    *,
    set_class: str,
    items: ScipionItems,
    properties: Mapping[str, object],
    nested: Mapping[str, ScipionItems] | None = None,
) -> None:
    """Write a set of items, whole or not at all.

    Parameters
    ----------
    path
        The ``.sqlite`` file; an old one is replaced.
    set_class
        For example ``SetOfCoordinates``.
    items
        Of the set.
    properties
        Attributes of the set itself.
    nested
        Sets that are items themselves, as classes are, by the prefix of their tables.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    aside = aside_path(path)
    own = {
        "self": set_class,
        "_size": items.count,
        "_streamState": 2,
        "_mapperPath": f"{path.name}, ",
    }
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(aside)) as connection, connection:
                connection.execute("PRAGMA user_version = 1")
                connection.execute(
                    "CREATE TABLE Properties (key TEXT UNIQUE, value TEXT DEFAULT NULL)"
                )
                connection.executemany(
                    "INSERT INTO Properties VALUES (?, ?)",
                    [(key, str(value)) for key, value in {**own, **properties}.items()],
                )
                for prefix, content in {"": items, **(nested or {})}.items():
                    _create(connection, content, prefix)
                    _insert(connection, content, prefix)
            commit_file(aside, path)
        except sqlite3.OperationalError as error:
            raise OSError(28 if "full" in str(error) else 13, str(error)) from error
        finally:
            aside.unlink(missing_ok=True)


def _create(connection: sqlite3.Connection, items: ScipionItems, prefix: str) -> None:
    connection.execute(
        f"CREATE TABLE {prefix}Classes (id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " label_property TEXT UNIQUE, column_name TEXT UNIQUE, class_name TEXT DEFAULT NULL)"
    )
    named = [("self", items.item_class), *items.attributes]
    connection.executemany(
        f"INSERT INTO {prefix}Classes (label_property, column_name, class_name) VALUES (?, ?, ?)",
        [(label, f"c{i:02d}", kind) for i, (label, kind) in enumerate(named)],
    )
    columns = "".join(
        f", c{i:02d} {_TYPES.get(kind, 'TEXT')} DEFAULT NULL"
        for i, (_, kind) in enumerate(items.attributes, start=1)
    )
    connection.execute(
        f"CREATE TABLE {prefix}Objects (id INTEGER PRIMARY KEY, enabled INTEGER DEFAULT 1,"
        f" label TEXT DEFAULT NULL, comment TEXT DEFAULT NULL, creation DATE{columns})"
    )


def _insert(connection: sqlite3.Connection, items: ScipionItems, prefix: str) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    nothing: list[Any] = [None] * items.count
    columns = [items.values.get(label, nothing) for label, _ in items.attributes]
    places = ", ".join("?" * (len(_FIXED) + len(items.attributes)))
    numbers = items.numbers or range(1, items.count + 1)
    values = zip(numbers, _transposed(columns, items.count), strict=True)
    rows = ((number, 1, "", "", now, *row) for number, row in values)
    connection.executemany(f"INSERT INTO {prefix}Objects VALUES ({places})", rows)


def _transposed(columns: Sequence[Sequence[Any]], n_items: int) -> Iterator[tuple[Any, ...]]:
    return zip(*columns, strict=True) if columns else iter([()] * n_items)
