"""crYOLO's coordinate files: ``.cbox`` and ``.box`` give corners of boxes in fractions of px.

A corner is the centre less half the width, without rounding. A ``.cbox`` keeps every box down to
a low confidence, so that a threshold can be chosen later: use ``fom``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.atomic import write_text
from cryopick.io.star import read_star
from cryopick.tables.eman import read_box_numbers
from cryopick.tables.model import Picks, require_columns

__all__ = ["read_cbox", "read_cryolo_box", "write_cbox", "write_cryolo_box"]

_USED = ("CoordinateX", "CoordinateY", "Width", "Height", "Confidence", "EstWidth", "EstHeight")
_EMPTY = ("CoordinateZ", "Depth", "NumBoxes", "Angle")  # of tomograms and filaments
_LABELS = (
    *("CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height", "Depth"),
    *("EstWidth", "EstHeight", "Confidence", "NumBoxes", "Angle"),
)


def read_cbox(path: Path, *, micrograph: str, pixel_size: float | None = None) -> Picks:
    """Read a ``.cbox`` file, all its boxes.

    Parameters
    ----------
    path
        STAR with the blocks global, cryolo and cryolo_include.
    micrograph
        Name of the micrograph, which the file does not say.
    pixel_size
        A/px of the micrograph; with it the estimated size becomes ``diameter``, else it stays
        in px as ``est_width`` and ``est_height``.

    Returns
    -------
    Picks
        Centres, ``fom`` is the confidence; ``attributes["box_size"]`` in px.

    Raises
    ------
    FormatError
        If the file is missing or has no block cryolo with the columns of a box.
    """
    table = read_star(path).get("cryolo")
    if table is None or not set(_USED[:4]) <= set(table.columns):
        raise FormatError(
            str(path),
            must="have a block cryolo with CoordinateX, CoordinateY, Width and Height",
            got="none" if table is None else ", ".join(table.columns),
            remedy="Give a .cbox file of crYOLO 1.8 or later",
        )
    numbers = {name: _numbers(table[name]) for name in _USED if name in table}
    rows = pd.DataFrame(
        {
            "micrograph": micrograph,
            "x": numbers["CoordinateX"] + numbers["Width"] / 2,
            "y": numbers["CoordinateY"] + numbers["Height"] / 2,
        }
    )
    if "Confidence" in numbers:
        rows["fom"] = numbers["Confidence"]
    if "EstWidth" in numbers and "EstHeight" in numbers:
        if pixel_size is None:
            rows["est_width"], rows["est_height"] = numbers["EstWidth"], numbers["EstHeight"]
        else:
            rows["diameter"] = (numbers["EstWidth"] + numbers["EstHeight"]) / 2 * pixel_size
    for name in table.columns:
        if name not in _USED and name not in _EMPTY:
            rows[name] = table[name].to_numpy()
    attributes: dict[str, object] = {"box_size": int(numbers["Width"][0])} if len(rows) else {}
    return Picks(rows=rows, source=path, attributes=attributes)


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64)  # <NA> becomes NaN


def write_cbox(
    path: Path, rows: pd.DataFrame, *, box_size: int, pixel_size: float | None = None
) -> None:
    """Write a ``.cbox`` file that crYOLO and its napari viewer open.

    Parameters
    ----------
    path
        Where to.
    rows
        x, y and maybe fom and diameter of one micrograph; without fom the confidence is 1.
    box_size
        Side of the boxes in px.
    pixel_size
        A/px, needed to write ``diameter``.
    """
    require_columns(rows, ("x", "y"), table="picks")
    n = len(rows)
    size: list[str] = ["<NA>"] * n
    if "diameter" in rows and pixel_size is not None:
        size = [_text(v) for v in rows["diameter"].to_numpy(np.float64) / pixel_size]
    wide = size if "est_width" not in rows else [_text(v) for v in rows["est_width"]]
    high = size if "est_height" not in rows else [_text(v) for v in rows["est_height"]]
    confidence = [_text(v) for v in rows["fom"]] if "fom" in rows else ["1.0"] * n
    x = [_text(v) for v in rows["x"].to_numpy(np.float64) - box_size / 2]
    y = [_text(v) for v in rows["y"].to_numpy(np.float64) - box_size / 2]
    side = f"{float(box_size)}"
    lines = [
        f"{a} {b} <NA> {side} {side} <NA> {w} {h} {c} <NA> <NA>"
        for a, b, w, h, c in zip(x, y, wide, high, confidence, strict=True)
    ]
    labels = [f"_{name} #{i}" for i, name in enumerate(_LABELS, start=1)]
    head = ["", "data_global", "", "_cbox_format_version 1.0", "", "data_cryolo", "", "loop_"]
    tail = ["", "data_cryolo_include", "", "loop_", "_slice_index #1", ""]
    write_text(path, "\n".join([*head, *labels, *lines, *tail]))


def read_cryolo_box(path: Path, *, micrograph: str) -> Picks:
    """Read a ``.box`` file of crYOLO: as EMAN's, but with fractions and half the exact width.

    Raises
    ------
    FormatError
        If the file is missing or is no box file.
    """
    numbers = read_box_numbers(path)
    rows = pd.DataFrame(
        {
            "micrograph": micrograph,
            "x": numbers[:, 0] + numbers[:, 2] / 2,
            "y": numbers[:, 1] + numbers[:, 3] / 2,
        }
    )
    if len(numbers) and not np.isnan(numbers[:, 4]).all():
        rows["fom"] = numbers[:, 4]
    attributes: dict[str, object] = {"box_size": int(numbers[0, 2])} if len(numbers) else {}
    return Picks(rows=rows, source=path, attributes=attributes)


def write_cryolo_box(path: Path, rows: pd.DataFrame, *, box_size: int) -> None:
    """Write a ``.box`` file of crYOLO, positions unrounded, confidence in the fifth column."""
    require_columns(rows, ("x", "y"), table="picks")
    x, y = rows["x"].to_numpy(np.float64), rows["y"].to_numpy(np.float64)
    scores = [f"\t{_text(v)}" for v in rows["fom"]] if "fom" in rows else [""] * len(rows)
    side = float(box_size)
    lines = (
        f"{_text(a - side / 2)}\t{_text(b - side / 2)}\t{side}\t{side}{score}\n"
        for a, b, score in zip(x, y, scores, strict=True)
    )
    write_text(path, "".join(lines))


def _text(value: float) -> str:
    return "<NA>" if np.isnan(value) else repr(round(float(value), 9))
