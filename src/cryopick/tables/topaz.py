"""Topaz's coordinate table: one text file for many micrographs, named without their suffix.

Positions are whole pixels of the image that Topaz saw, which most people down-sample first:
those of the micrograph are them times the factor of down-sampling.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.errors import FormatError
from cryopick.io.atomic import write_text
from cryopick.tables.eman import whole_pixels
from cryopick.tables.model import Picks, require_columns
from cryopick.tables.names import bare_name

__all__ = ["read_topaz", "write_topaz"]

_COLUMNS = {"image_name": "micrograph", "x_coord": "x", "y_coord": "y", "score": "fom"}


def read_topaz(path: Path, *, scale: float = 1.0) -> Picks:
    """Read a table of ``topaz extract``.

    Parameters
    ----------
    path
        Tab-separated with a header: image_name, x_coord, y_coord and maybe score.
    scale
        Pixels of the micrograph per pixel of the image that Topaz saw.

    Returns
    -------
    Picks
        Micrographs as Topaz names them, without suffix.

    Raises
    ------
    FormatError
        If the file is missing or lacks a column.
    """
    try:
        table = pd.read_csv(path, sep="\t", dtype={"image_name": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise FormatError(
            str(path),
            must="be a table of Topaz",
            got="no such file" if missing else str(error).splitlines()[0],
            remedy="Check the path",
        ) from error
    absent = [name for name in ("image_name", "x_coord", "y_coord") if name not in table]
    if absent:
        raise FormatError(
            str(path),
            must=f"have a column {absent[0]}",
            got=", ".join(map(str, table.columns))[:80],
            remedy="Give a tab-separated table of topaz extract",
        )
    rows = table.rename(columns=_COLUMNS)
    rows["x"] = rows["x"].astype(np.float64) * scale
    rows["y"] = rows["y"].astype(np.float64) * scale
    if "fom" in rows:
        rows["fom"] = rows["fom"].astype(np.float64)
    return Picks(rows=rows, source=path)


def write_topaz(path: Path, rows: pd.DataFrame, *, scale: float = 1.0) -> None:
    """Write a table that Topaz reads; positions are rounded to its whole pixels.

    Parameters
    ----------
    path
        Where to.
    rows
        micrograph, x, y and maybe fom.
    scale
        Pixels of the micrograph per pixel of the image that Topaz will see.
    """
    require_columns(rows, ("micrograph", "x", "y"), table="picks")
    table = pd.DataFrame(
        {
            "image_name": [bare_name(name) for name in rows["micrograph"]],
            "x_coord": whole_pixels(rows["x"].to_numpy() / scale),
            "y_coord": whole_pixels(rows["y"].to_numpy() / scale),
        }
    )
    if "fom" in rows:
        table["score"] = rows["fom"].to_numpy()
    write_text(path, table.to_csv(sep="\t", index=False, float_format="%.7g"))
