"""Where the image of a field lies, how large its pixels are, and what its lens was."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryopick.errors import CryopickError
from cryopick.pipeline.field_columns import UNSHOWN
from cryopick.pipeline.field_table import FieldTable, find_job_of
from cryopick.pipeline.job import identity_of
from cryopick.server.answers import Call, Missing
from cryopick.server.fields import find_field
from cryopick.server.pictures import digest
from cryopick.server.served import Served, stamp_of
from cryopick.tables.micrographs import micrograph_path
from cryopick.tables.model import Micrographs
from cryopick.tables.paths import micrograph_key
from cryopick.tables.relion import read_micrographs

__all__ = ["FieldSource", "find_source"]

_CONTRAST = 0.1  # that nobody says
_LENS = ("voltage", "spherical_aberration", "amplitude_contrast")


@dataclass(frozen=True, kw_only=True)
class FieldSource:
    """One field on disk."""

    place: int
    id: str
    name: str
    path: Path
    pixel_size: float  # A/px
    lens: dict[str, float] | None  # kV, mm, fraction; None where it is not known
    ctf: dict[str, float] | None  # all that `FieldCtf` takes; None where it is not known
    ctf_image: Path | None  # measured spectrum beside the fit

    @property
    def version(self) -> str:
        """Name the file as it is now."""
        return digest(identity_of(self.path))[:8]


def find_source(call: Call, identity: str) -> FieldSource:
    """Find a field by its id.

    Raises
    ------
    Missing
        If there is none, or its table cannot be read.
    """
    table = call.served.table()
    place = find_field(table, identity)
    known = _table_rows(call.served, table)
    name = table.names[place]
    row = known.rows.iloc[known.places[place]] if place in known.places else None
    if row is None:
        raise Missing("The table of the project does not name this micrograph any more.")
    optics = known.optics[int(row["optics_group"])]
    lens = {n: float(optics[n]) for n in _LENS if n in optics and np.isfinite(optics[n])}
    lens.setdefault("amplitude_contrast", _CONTRAST)
    whole = lens if len(lens) == len(_LENS) else None
    defocus = _defocus(table, place)
    ctf = None if whole is None or defocus is None else {**whole, **defocus}
    job = find_job_of(call.served.folder, "ctf")
    picture = None if job is None else job / f"{micrograph_key(name)}.ctf"
    return FieldSource(
        place=place,
        id=identity,
        name=name,
        path=micrograph_path(str(row["micrograph"]), known.source),
        pixel_size=float(optics["pixel_size"]),
        lens=whole,
        ctf=ctf,
        ctf_image=picture if picture is not None and picture.is_file() else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The table of the fields."""

    stamp: str
    rows: pd.DataFrame
    places: dict[int, int]  # row of each field
    optics: dict[int, dict[str, Any]]
    source: Path | None


def _table_rows(served: Served, table: FieldTable) -> _Rows:
    """Read the table, unless it is that of before."""
    stamp = "" if table.source is None else stamp_of(table.source)
    with served.lock:
        kept: _Rows | None = served.kept.get("field_rows")
        if kept is None or kept.stamp != stamp:
            kept = _read_rows(table, stamp)
            served.kept["field_rows"] = kept
        return kept


def _read_rows(table: FieldTable, stamp: str) -> _Rows:
    if table.source is None:
        raise Missing("The project has no table of micrographs yet.")
    try:
        given: Micrographs = read_micrographs(table.source)
    except CryopickError as error:
        raise Missing(str(error)) from error
    places = {table.place_of(str(n)): row for row, n in enumerate(given.rows["micrograph"])}
    optics = given.optics.set_index("optics_group", drop=False).to_dict("index")
    return _Rows(
        stamp=stamp,
        rows=given.rows[["micrograph", "optics_group"]],
        places={p: row for p, row in places.items() if p is not None},
        optics={int(str(k)): {str(n): x for n, x in v.items()} for k, v in optics.items()},
        source=given.source,
    )


def _defocus(table: FieldTable, place: int) -> dict[str, float] | None:
    found = {n: float(table.numbers[n][place]) for n in UNSHOWN}
    if not all(map(math.isfinite, found.values())):
        return None
    shift = float(table.numbers["phase_shift"][place])
    return found | {"phase_shift": shift if math.isfinite(shift) else 0.0}
