"""Xmipp's coordinate files (``.pos``): whole-pixel centres, one file for each micrograph.

Rows with ``enabled`` -1 were rejected and are left out (``rows.attrs["n_disabled"]`` counts
them). The box size is in a ``config.xmd`` beside the files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.errors import FormatError
from cryopick.io.atomic import write_text
from cryopick.io.star import read_star
from cryopick.io.xmd import write_xmd
from cryopick.tables.eman import whole_pixels
from cryopick.tables.model import Picks, require_columns
from cryopick.tables.xmipp import split_enabled

__all__ = ["read_pos", "read_xmd_picks", "write_pos", "write_pos_config"]

_COLUMNS = {"xcoor": "x", "ycoor": "y", "Xcoor": "x", "Ycoor": "y", "cost": "fom"}
_SCORES = "zScoreDeepLearning1"  # of Deep Consensus, taken where there is no cost
_OWN = ("enabled", "itemId", "micrographId")
_TEXT = ("micrograph", "image")


def read_pos(path: Path, *, micrograph: str) -> Picks:
    """Read the coordinates of one micrograph.

    Parameters
    ----------
    path
        ``.pos`` with the blocks particles and particles_auto, either or both; a ``config.xmd``
        beside it gives the box size.
    micrograph
        Name of the micrograph.

    Returns
    -------
    Picks
        Centres; ``attributes["box_size"]`` where there is a ``config.xmd``.

    Raises
    ------
    FormatError
        If the file is missing or has no coordinates.
    """
    blocks = read_star(path, text=_TEXT)
    tables = [blocks[name] for name in ("particles", "particles_auto") if name in blocks]
    if not tables and "header" not in blocks:
        raise FormatError(
            str(path),
            must="have a block particles or particles_auto",
            got=", ".join(blocks),
            remedy="Give a .pos file of Xmipp",
        )
    picks = _positions([split_enabled(t) for t in tables], path, micrograph)
    config = Path(path).with_name("config.xmd")
    attributes: dict[str, object] = {}
    if config.is_file():
        properties = read_star(config).get("properties", pd.DataFrame())
        if "particleSize" in properties and len(properties):
            attributes["box_size"] = int(properties["particleSize"][0])
    return Picks(rows=picks, source=path, attributes=attributes)


def _positions(
    tables: list[tuple[pd.DataFrame, int]], path: Path, micrograph: str | None
) -> pd.DataFrame:
    parts = [
        t.rename(columns=_COLUMNS if "cost" in t else {**_COLUMNS, _SCORES: "fom"})
        for t, _ in tables
        if len(t)
    ]
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"x": [], "y": []})
    require_columns(rows, ("x", "y"), table=str(path))
    for name in ("x", "y", "fom"):
        if name in rows:
            rows[name] = rows[name].astype(np.float64)
    rows = rows.drop(columns=[c for c in _OWN if c in rows])
    if micrograph is not None:
        rows = rows.drop(columns=[c for c in ("micrograph",) if c in rows])
        rows.insert(0, "micrograph", micrograph)
    rows.attrs["n_disabled"] = sum(n for _, n in tables)
    return rows


def read_xmd_picks(path: Path) -> Picks:
    """Read the coordinates of many micrographs from one ``.xmd`` with a column micrograph.

    Raises
    ------
    FormatError
        If the file is missing or has no coordinates.
    TableError
        If the micrographs are not named.
    """
    tables = [t for t in read_star(path, text=_TEXT).values() if "xcoor" in t or "Xcoor" in t]
    rows = _positions([split_enabled(t) for t in tables], path, None)
    return Picks(rows=rows, source=path)


def write_pos(path: Path, rows: pd.DataFrame, *, micrograph_id: int = 1) -> None:
    """Write the coordinates of one micrograph; positions are rounded to whole pixels.

    Parameters
    ----------
    path
        Where to: ``<micrograph>.pos``.
    rows
        x, y and maybe fom of one micrograph.
    micrograph_id
        Number of the micrograph in its set, from 1.
    """
    require_columns(rows, ("x", "y"), table="picks")
    x, y = whole_pixels(rows["x"]), whole_pixels(rows["y"])
    costs = rows["fom"].to_numpy(np.float64) if "fom" in rows else np.ones(len(rows))
    labels = ("itemId", "enabled", "xcoor", "ycoor", "cost", "micrographId")
    lines = [
        f" {i:06d}   1   {a}  {b}  {cost:.6g}   {micrograph_id:06d}\n"
        for i, (a, b, cost) in enumerate(zip(x, y, costs, strict=True), start=1)
    ]
    head = "# XMIPP_STAR_1 *\n#\ndata_header\nloop_\n _pickingMicrographState\nManual\n"
    head += "data_particles\nloop_\n" + "".join(f" _{label}\n" for label in labels)
    write_text(path, head + "".join(lines))


def write_pos_config(path: Path, *, box_size: int) -> None:
    """Write the ``config.xmd`` that holds the box size of the ``.pos`` files beside it."""
    table = pd.DataFrame({"particleSize": [box_size], "pickingState": ["Manual"]})
    write_xmd(path, {"properties": table})
