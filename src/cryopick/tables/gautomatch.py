"""Gautomatch's ``*_automatch.star``: RELION's columns, but classes are counted from 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.errors import FormatError
from cryopick.io.atomic import write_text
from cryopick.io.star import read_star
from cryopick.tables.model import Picks, require_columns

__all__ = ["read_gautomatch", "write_gautomatch"]

_COLUMNS = {
    "rlnCoordinateX": "x",
    "rlnCoordinateY": "y",
    "rlnAnglePsi": "psi",
    "rlnClassNumber": "class_number",
    "rlnAutopickFigureOfMerit": "fom",
}


def read_gautomatch(path: Path, *, micrograph: str) -> Picks:
    """Read the picks of one micrograph.

    Parameters
    ----------
    path
        STAR with one unnamed block.
    micrograph
        Name of the micrograph, which the file does not say.

    Returns
    -------
    Picks
        Centres; ``class_number`` counts from 1, the file's from 0.

    Raises
    ------
    FormatError
        If the file is missing or has no coordinates.
    """
    blocks = read_star(path)
    table = next((t for t in blocks.values() if "rlnCoordinateX" in t), None)
    if table is None or "rlnCoordinateY" not in table:
        raise FormatError(
            str(path),
            must="have the columns rlnCoordinateX and rlnCoordinateY",
            got=", ".join(n for t in blocks.values() for n in t.columns) or "none",
            remedy="Give an _automatch.star file of Gautomatch",
        )
    rows = table.rename(columns=_COLUMNS)
    for name in set(_COLUMNS.values()) & set(rows.columns):
        rows[name] = rows[name].astype(np.float64)
    if "class_number" in rows:
        rows["class_number"] = rows["class_number"].astype(np.int64) + 1
    rows.insert(0, "micrograph", micrograph)
    return Picks(rows=rows, source=path)


def write_gautomatch(path: Path, rows: pd.DataFrame) -> None:
    """Write the picks of one micrograph; what is missing is written as psi 0, class 0 and fom 0.

    Parameters
    ----------
    path
        Where to, usually ``<micrograph>_automatch.star``.
    rows
        x, y and maybe psi, class_number (from 1) and fom.
    """
    require_columns(rows, ("x", "y"), table="picks")
    table = pd.DataFrame({label: rows.get(name, 0.0) for label, name in _COLUMNS.items()})
    classes = rows["class_number"] - 1 if "class_number" in rows else 0
    # RELION marks "no class" with 0, which would become -1
    table["rlnClassNumber"] = np.maximum(np.broadcast_to(classes, len(rows)), 0).astype(np.int64)
    labels = [f"_{name} #{i}" for i, name in enumerate(table.columns, start=1)]
    lines = [
        f"{x:12.6f} {y:12.6f} {psi:12.6f} {number:12d} {fom:12.6f}"
        for x, y, psi, number, fom in table.itertuples(index=False)
    ]
    write_text(path, "\n".join(["", "data_", "", "loop_", *labels, *lines, ""]))
