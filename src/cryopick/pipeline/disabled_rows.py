"""Particles that somebody has set aside: records that are only ever added to.

A record names rows of a table and says what their images were called, so that it does not come
to mean others when the table is made anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.io.atomic import make_folder
from cryopick.io.line_list import append_lines
from cryopick.pipeline.project_decisions import user_name
from cryopick.pipeline.project_layout import now
from cryopick.pipeline.select_rows import parse_rows, write_rows

__all__ = ["read_disabled", "set_disabled"]


def read_disabled(path: Path, images: pd.Series) -> NDArray[np.bool_]:
    """Tell which rows of a table are set aside.

    Parameters
    ----------
    path
        Of the records; there may be none.
    images
        (n,) names of the images of the table.

    Returns
    -------
    numpy.ndarray
        (n,); records of other images than the rows have now do not count.
    """
    found = np.zeros(len(images), bool)
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        try:
            said = json.loads(line)
            rows = parse_rows(said["rows"], len(images))
        except (ValueError, KeyError, TypeError):
            continue
        if said.get("mark") == _mark(images, rows):
            found[rows] = bool(said.get("disabled"))
    return found


def set_disabled(
    path: Path, images: pd.Series, rows: NDArray[np.bool_], *, is_disabled: bool
) -> None:
    """Record that rows are set aside, or taken back.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    make_folder(path.parent, option="folder")
    record = {
        "when": now(),
        "who": user_name(),
        "rows": write_rows(rows),
        "mark": _mark(images, rows),
        "disabled": is_disabled,
    }
    append_lines(path, [record])


def _mark(images: pd.Series, rows: NDArray[np.bool_]) -> str:
    names = "\n".join(map(str, images[rows]))
    return hashlib.sha256(names.encode()).hexdigest()[:16]
