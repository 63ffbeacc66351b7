"""EMAN's coordinates: ``.box`` counts from the corner of a box, ``info/*.json`` from its centre.

EMAN's box of side n with its lowest pixel at c covers c .. c + n - 1 and its middle is pixel
c + n // 2, for even and odd n.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.atomic import write_text
from cryopick.tables.model import Picks, require_columns

__all__ = [
    "read_box",
    "read_box_numbers",
    "read_eman_json",
    "whole_pixels",
    "write_box",
    "write_eman_json",
]

_TAG = "eman_tag"


def whole_pixels(positions: object) -> NDArray[np.int64]:
    """Round positions to the nearest pixel, halves upwards, for formats that hold integers."""
    return np.floor(np.asarray(positions, dtype=np.float64) + 0.5).astype(np.int64)


def read_box_numbers(path: Path) -> NDArray[np.float64]:
    """Read the numbers of a ``.box`` file.

    Returns
    -------
    numpy.ndarray
        (n, 5): lowest x, lowest y, width, height in px, and the score, NaN where there is none.

    Raises
    ------
    FormatError
        If a line has fewer than four numbers.
    """
    rows = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            values = [float(word) for word in words[:5]]
        except ValueError:
            values = []
        if len(values) < 4:
            raise FormatError(
                f"{path} line {number}",
                must="hold x, y, width and height",
                got=line.strip()[:60],
                remedy="Give a .box file of EMAN or crYOLO",
            )
        rows.append(values + [np.nan] * (5 - len(values)))
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def read_box(path: Path, *, micrograph: str) -> Picks:
    """Read an EMAN ``.box`` file.

    Parameters
    ----------
    path
        Lines of lowest x, lowest y, width, height and maybe a score.
    micrograph
        Name of the micrograph, which the file does not say.

    Returns
    -------
    Picks
        Centres; ``attributes["box_size"]`` is the width of the first box in px.

    Raises
    ------
    FormatError
        If the file is missing or is no box file.
    """
    numbers = read_box_numbers(path)
    half = numbers[:, 2:4] // 2
    rows = pd.DataFrame(
        {
            "micrograph": micrograph,
            "x": numbers[:, 0] + half[:, 0],
            "y": numbers[:, 1] + half[:, 1],
        }
    )
    if len(numbers) and not np.isnan(numbers[:, 4]).all():
        rows["fom"] = numbers[:, 4]
    attributes: dict[str, object] = {"box_size": int(numbers[0, 2])} if len(numbers) else {}
    return Picks(rows=rows, source=path, attributes=attributes)


def write_box(path: Path, rows: pd.DataFrame, *, box_size: int) -> None:
    """Write an EMAN ``.box`` file; positions are rounded to whole pixels.

    Parameters
    ----------
    path
        Where to.
    rows
        x, y and maybe fom of one micrograph.
    box_size
        Side of the boxes in px.
    """
    require_columns(rows, ("x", "y"), table="picks")
    x = whole_pixels(rows["x"]) - box_size // 2
    y = whole_pixels(rows["y"]) - box_size // 2
    scores = [f"\t{s:.6g}" for s in rows["fom"]] if "fom" in rows else [""] * len(rows)
    lines = (
        f"{a}\t{b}\t{box_size}\t{box_size}{score}\n"
        for a, b, score in zip(x, y, scores, strict=True)
    )
    write_text(path, "".join(lines))


def read_eman_json(path: Path, *, micrograph: str) -> Picks:
    """Read the boxes of an EMAN2 ``info/*_info.json`` file.

    Parameters
    ----------
    path
        A JSON object; its ``boxes`` are lists of x, y, tag and maybe a score, from the centre.
    micrograph
        Name of the micrograph.

    Returns
    -------
    Picks
        Centres; ``attributes`` holds the other keys of the file as they are.

    Raises
    ------
    FormatError
        If the file is missing or not such a JSON object.
    """
    try:
        content = json.loads(_text(path))
        boxes = [list(box) for box in content.get("boxes", [])]
        positions = [(float(box[0]), float(box[1])) for box in boxes]
    except (ValueError, AttributeError, TypeError, IndexError) as error:
        raise FormatError(
            str(path),
            must="be a JSON object with a list of boxes",
            got=f"{type(error).__name__}: {error}".splitlines()[0],
            remedy="Give a file of EMAN2's info folder",
        ) from error
    rows = pd.DataFrame(positions, columns=["x", "y"], dtype=np.float64)
    rows.insert(0, "micrograph", micrograph)
    rows[_TAG] = [box[2] if len(box) > 2 else "manual" for box in boxes]
    scores = [_score(box) for box in boxes]
    if any(score is not None for score in scores):
        rows["fom"] = np.array([np.nan if s is None else s for s in scores])
    others = {key: value for key, value in content.items() if key != "boxes"}
    return Picks(rows=rows, source=path, attributes=others)


def _score(box: list[Any]) -> float | None:
    is_number = len(box) > 3 and isinstance(box[3], int | float) and not isinstance(box[3], bool)
    return float(box[3]) if is_number else None


def write_eman_json(
    path: Path, rows: pd.DataFrame, *, others: dict[str, object] | None = None
) -> None:
    """Write an EMAN2 info file; positions are rounded to whole pixels, as e2boxer does.

    Parameters
    ----------
    path
        Where to, usually ``info/<micrograph>_info.json``.
    rows
        x, y and maybe fom of one micrograph.
    others
        Further keys of the file.
    """
    require_columns(rows, ("x", "y"), table="picks")
    x, y = whole_pixels(rows["x"]), whole_pixels(rows["y"])
    tags = rows[_TAG].tolist() if _TAG in rows else ["manual"] * len(rows)
    boxes: list[list[object]] = [[int(a), int(b), t] for a, b, t in zip(x, y, tags, strict=True)]
    if "fom" in rows:
        for box, score in zip(boxes, rows["fom"], strict=True):
            if np.isfinite(score):
                box.append(float(score))
    write_text(path, json.dumps({**(others or {}), "boxes": boxes}, indent=1) + "\n")


def _text(path: Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise FormatError(
            str(path),
            must="be a coordinate file",
            got="no such file",
            remedy="Check the path",
        ) from error
