"""Positions in tomograms as CSV and as Dynamo's table.

A CSV table is in A from the centre of the first voxel, as inside cryopick. Dynamo counts voxels
from there, from 1 or from 0: its sources disagree, so the user says which.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.errors import FormatError, TableError
from cryopick.io.atomic import write_text
from cryopick.tables.tomograms import TomogramPicks, tomogram_name, tomogram_of

__all__ = [
    "read_csv_positions",
    "read_dynamo",
    "unreadable",
    "write_csv_positions",
    "write_dynamo",
]

_AXES = ("x", "y", "z")
_EULER = ("rot", "tilt", "psi")
_DYNAMO_COLUMNS = 35
_TAG, _ALIGNED, _SHIFT, _SCORE, _TOMOGRAM, _CLASS, _PLACE = 0, 1, 3, 9, 19, 21, 23


def write_csv_positions(path: Path, picks: TomogramPicks) -> None:
    """Write all columns of all picks, with a header."""
    first = ["tomogram", *_AXES]
    rest = [c for c in picks.rows.columns if c not in first]
    write_text(path, picks.rows[[*first, *rest]].to_csv(index=False))


def read_csv_positions(path: Path, *, tomograms: pd.DataFrame) -> TomogramPicks:
    """Read a table with the columns tomogram, x, y, z (A) and any others.

    Raises
    ------
    FormatError
        If the file is missing or is no such table.
    """
    try:
        rows = pd.read_csv(path, dtype={"tomogram": str}, keep_default_na=False, na_values=["nan"])
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return TomogramPicks(rows=rows, tomograms=tomograms, source=path)


def write_dynamo(path: Path, picks: TomogramPicks, *, base: int) -> None:
    """Write Dynamo's table, and beside it the list of tomograms (suffix ``.doc``).

    Parameters
    ----------
    path
        Where to.
    picks
        Orientations are not written: particles are to be aligned.
    base
        What the first voxel is called, 0 or 1.
    """
    names = list(dict.fromkeys(picks.tomograms["tomogram"]))
    table = np.zeros((len(picks), _DYNAMO_COLUMNS))
    table[:, _TAG] = np.arange(1, len(picks) + 1)
    table[:, _ALIGNED] = 1
    for column, name in ((_SCORE, "score"), (_CLASS, "kind")):
        if name in picks.rows:
            table[:, column] = picks.rows[name].to_numpy(np.float64)
    table[:, _TOMOGRAM] = [names.index(n) + 1 for n in picks.rows["tomogram"]]
    table[:, _PLACE : _PLACE + 3] = picks.in_voxels()[:, ::-1] + base
    lines = [" ".join(f"{v:.10g}" for v in row) + "\n" for row in table]
    write_text(path.with_suffix(".doc"), "".join(f"{i} {n}\n" for i, n in enumerate(names, 1)))
    write_text(path, "".join(lines))


def read_dynamo(path: Path, *, tomograms: pd.DataFrame, base: int) -> TomogramPicks:
    """Read Dynamo's table; numbers of tomograms are looked up in its ``.doc``.

    Parameters
    ----------
    path
        The table. Without a list beside it, tomogram i is the i-th of `tomograms`.
    tomograms
        All that may be named (`tomogram_table`).
    base
        What the first voxel is called, 0 or 1.

    Returns
    -------
    TomogramPicks
        Positions with Dynamo's shifts added; orientations are left out.

    Raises
    ------
    FormatError
        If the file is no table of Dynamo.
    TableError
        If a tomogram is not known.
    """
    try:
        words = [line.split() for line in path.read_text().splitlines()]
        table = np.array([w for w in words if w] or np.zeros((0, _DYNAMO_COLUMNS)), float)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if table.shape[1] < _PLACE + 3:
        raise FormatError(
            str(path),
            must=f"have at least {_PLACE + 3} columns",
            got=table.shape[1],
            remedy="Give a table of Dynamo",
        )
    names = _dynamo_names(path, tomograms)
    numbers = table[:, _TOMOGRAM].astype(int)
    unknown = sorted(set(numbers) - set(names))
    if unknown:
        raise TableError(
            f"tomogram {unknown[0]} of {path}",
            must=f"be listed in {path.with_suffix('.doc').name}",
            got=f"{len(names)} tomograms",
            remedy="Put the list beside the table",
        )
    rows = pd.DataFrame({"tomogram": [names[n] for n in numbers]})
    sizes = [tomogram_of(n, tomograms, source=str(path))["voxel_size"] for n in rows["tomogram"]]
    places = table[:, _PLACE : _PLACE + 3] + table[:, _SHIFT : _SHIFT + 3] - base
    rows[list(_AXES)] = places * np.array(sizes, float).reshape(-1, 1)
    rows["score"] = table[:, _SCORE]
    rows["kind"] = table[:, _CLASS].astype(int)
    return TomogramPicks(rows=rows, tomograms=tomograms, source=path)


def _dynamo_names(path: Path, tomograms: pd.DataFrame) -> dict[int, str]:
    listed = path.with_suffix(".doc")
    if not listed.exists():
        return dict(enumerate(tomograms["tomogram"], 1))
    words = [line.split(maxsplit=1) for line in listed.read_text().splitlines() if line.strip()]
    return {int(number): tomogram_name(name.strip()) for number, name in words}


def unreadable(path: Path, error: Exception) -> FormatError:
    """Make the refusal of a file that is no such table."""
    missing = isinstance(error, FileNotFoundError)
    reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
    return FormatError(
        str(path),
        must="be a readable file of positions",
        got="no such file" if missing else reason[:100],
        remedy="Check the path and the format",
    )
