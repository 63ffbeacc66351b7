"""What people have added to picks and taken away: records that are only ever added to.

A set of picks has one file of them. An edit names positions, not rows, so it holds whatever the
threshold; an undo is a record as well, so nothing is ever lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import ParameterError, ProjectError
from cryopick.io.atomic import make_folder, output_errors
from cryopick.pipeline.project_decisions import user_name
from cryopick.pipeline.project_layout import now
from cryopick.tables.paths import micrograph_key

__all__ = [
    "ADDED_FOM",
    "PickEdit",
    "add_edit",
    "apply_edits",
    "read_edits",
    "redo",
    "standing",
    "undo",
]

ADDED_FOM = -999.0  # as RELION writes it for what no picker has scored
_MOST = 100_000  # positions in one edit
_FARTHEST = 1_000_000.0  # px

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class PickEdit:
    """One record."""

    number: int  # from 1, in the file
    micrograph: str
    when: str
    who: str
    add: Points = ()  # x, y; px
    remove: Points = ()
    undoes: int | None = None  # number of an edit, or of an undo that this takes back


def read_edits(path: Path) -> list[PickEdit]:
    """Read all records of a set, oldest first; a line that was cut off by a kill is left out."""
    try:
        lines = Path(path).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            values = json.loads(line)
            for name in ("add", "remove"):
                values[name] = tuple((float(x), float(y)) for x, y in values[name])
            found.append(PickEdit(**values))
    return found


def standing(edits: Sequence[PickEdit], micrograph: str) -> list[PickEdit]:
    """Give the records of a field that have not been taken back, oldest first."""
    key = micrograph_key(micrograph)
    dead: set[int | None] = set()
    kept = []
    for one in reversed([e for e in edits if micrograph_key(e.micrograph) == key]):
        if one.number in dead:
            continue
        if one.undoes is not None:
            dead.add(one.undoes)
        kept.append(one)
    return kept[::-1]


def add_edit(
    path: Path,
    micrograph: str,
    *,
    add: Sequence[Sequence[float]] = (),
    remove: Sequence[Sequence[float]] = (),
    base: int | None = None,
) -> PickEdit:
    """Record that a person has added picks to a field or taken some away.

    Parameters
    ----------
    path
        File of the records of the set.
    micrograph
        Name of the field.
    add, remove
        Positions, px.
    base
        Number of the last record of this field that the person has seen.

    Raises
    ------
    ParameterError
        If a position is none, or there is nothing to record.
    ProjectError
        If somebody has edited the field since `base`.
    OutputError
        If it cannot be written.
    """
    added, removed = _points("add", add), _points("remove", remove)
    if not added and not removed:
        raise ParameterError(
            "an edit", must="add or remove a pick", got="neither", remedy="Name a position"
        )
    return _append(path, micrograph, add=added, remove=removed, base=base)


def undo(path: Path, micrograph: str) -> PickEdit:
    """Take back the last edit of a field that stands.

    Raises
    ------
    ProjectError
        If there is none.
    OutputError
        If it cannot be written.
    """
    stand = [e for e in standing(read_edits(path), micrograph) if e.undoes is None]
    if not stand:
        raise _nothing("an edit to take back")
    return _append(path, micrograph, undoes=stand[-1].number)


def redo(path: Path, micrograph: str) -> PickEdit:
    """Take back the last undo of a field, if nothing was edited since.

    Raises
    ------
    ProjectError
        If there is none.
    OutputError
        If it cannot be written.
    """
    edits = read_edits(path)
    undone = {e.number: e for e in edits}
    for one in reversed(standing(edits, micrograph)):
        if one.undoes is None:
            break
        taken_back = undone.get(one.undoes)
        if taken_back is not None and taken_back.undoes is None:
            return _append(path, micrograph, undoes=one.number)
    raise _nothing("an undo to take back")


def apply_edits(
    picks: pd.DataFrame, edits: Sequence[PickEdit], *, reach: float
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Make of the picks of a field what people have made of them.

    Parameters
    ----------
    picks
        x, y in px and any other column.
    edits
        Those of the field that stand.
    reach
        px: a position takes away the nearest pick within it.

    Returns
    -------
    tuple
        The picks, added ones last with `ADDED_FOM`; and for each 0 if a picker found it, 1 if a
        person added it.
    """
    rows, origin = picks.reset_index(drop=True), np.zeros(len(picks), np.int64)
    for edit in edits:
        for x, y in edit.remove:
            distance = np.hypot(rows["x"].to_numpy() - x, rows["y"].to_numpy() - y)
            if len(rows) and distance.min() <= reach:
                nearest = int(distance.argmin())
                rows = rows.drop(index=nearest).reset_index(drop=True)
                origin = np.delete(origin, nearest)
        if edit.add:
            new = pd.DataFrame(list(edit.add), columns=["x", "y"], dtype=float)
            for name in rows.columns.difference(["x", "y"]):
                new[name] = _filled(rows[name], str(name), len(new))
            rows = pd.concat([rows, new[rows.columns]], ignore_index=True) if len(rows) else new
            origin = np.concatenate([origin, np.ones(len(new), np.int64)])
    return rows, origin


def _filled(column: pd.Series, name: str, n: int) -> pd.Series:
    """Give what an added pick has in a column: no score, the diameter of the others."""
    if name == "fom":
        value: object = ADDED_FOM
    elif name == "diameter" and len(column):
        value = float(column.median())
    elif pd.api.types.is_numeric_dtype(column):
        value = 0
    else:
        value = column.iloc[0] if len(column) else ""
    return pd.Series([value] * n, dtype=column.dtype if len(column) else None)


def _append(
    path: Path,
    micrograph: str,
    *,
    add: Points = (),
    remove: Points = (),
    undoes: int | None = None,
    base: int | None = None,
) -> PickEdit:
    make_folder(path.parent, option="folder")
    with output_errors(path), path.open("a+b") as handle:
        with contextlib.suppress(OSError):  # some network disks have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        edits = read_edits(path)
        key = micrograph_key(micrograph)
        seen = max((e.number for e in edits if micrograph_key(e.micrograph) == key), default=0)
        if base is not None and base != seen:
            raise ProjectError(
                f"the picks of {micrograph}",
                must="be as they were seen when they are edited",
                got=f"edit {seen}, after {base}",
                remedy="Look at them again",
            )
        handle.seek(0)
        text = handle.read()
        record = PickEdit(
            number=text.count(b"\n") + (bool(text) and not text.endswith(b"\n")) + 1,
            micrograph=micrograph,
            when=now(),
            who=user_name(),
            add=add,
            remove=remove,
            undoes=undoes,
        )
        line = json.dumps(asdict(record), allow_nan=False).encode() + b"\n"
        handle.write((b"" if not text or text.endswith(b"\n") else b"\n") + line)
        handle.flush()
        os.fsync(handle.fileno())
    return record


def _points(name: str, given: Sequence[Sequence[float]]) -> Points:
    try:
        points = tuple((float(x), float(y)) for x, y in given)
        is_right = len(points) <= _MOST and all(
            abs(v) <= _FARTHEST for point in points for v in point
        )
    except (TypeError, ValueError):
        is_right = False
    if not is_right:
        raise ParameterError(
            name,
            must=f"be at most {_MOST:,} positions x, y in px",
            got="something else",
            remedy="Write pairs of numbers",
        )
    return tuple((round(x, 3), round(y, 3)) for x, y in points)


def _nothing(what: str) -> ProjectError:
    return ProjectError(
        "the edits of this field", must=f"hold {what}", got="none", remedy="There is nothing to do"
    )
