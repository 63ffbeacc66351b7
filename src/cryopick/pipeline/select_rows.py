"""Keep rows of a table of particles by their numbers, as somebody has chosen them by eye."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import DataError, ParameterError
from cryopick.pipeline.job import Job, identity_of
from cryopick.tables import xmipp
from cryopick.tables.model import Particles
from cryopick.tables.paths import rename_for
from cryopick.tables.relion import read_particles, write_particles

__all__ = ["RowSelection", "parse_rows", "select_rows", "write_rows"]

_PART = re.compile(r"(\d{1,12})(?:-(\d{1,12}))?")
_TABLE, _XMD = "particles.star", "particles.xmd"


@dataclass(frozen=True, kw_only=True)
class RowSelection:
    """What was kept, and where it is."""

    files: tuple[str, ...]  # in the folder
    n_before: int
    n_kept: int

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"files": list(self.files), "n_before": self.n_before, "n_kept": self.n_kept}


def parse_rows(text: str, n: int) -> NDArray[np.bool_]:
    """Read numbers and ranges of rows.

    Parameters
    ----------
    text
        Numbers from 0 and ranges, with commas between.
    n
        Rows of the table.

    Returns
    -------
    numpy.ndarray
        (n,): whether a row is named.

    Raises
    ------
    ParameterError
        If it is something else, or names a row that is not there.

    Examples
    --------
    >>> parse_rows("0,2-3", 5).tolist()
    [True, False, True, True, False]
    """
    found = np.zeros(n, bool)
    for part in filter(None, "".join(text.split()).split(",")):
        match = _PART.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < n:
            raise ParameterError(
                "rows",
                must=f"be numbers from 0 to {n - 1} and ranges, such as 0,3,7-12",
                got=repr(part[:50]),
                remedy="Change --rows",
            )
        found[first : last + 1] = True
    return found


def write_rows(chosen: NDArray[np.bool_]) -> str:
    """Write rows as `parse_rows` reads them.

    Examples
    --------
    >>> write_rows(np.array([True, False, True, True]))
    '0,2-3'
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8)))
    pairs = edges.reshape(-1, 2).tolist()
    return ",".join(str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in pairs)


def select_rows(
    table: Path, out: Path, rows: str, *, drop: bool = False, xmd: bool = False,
    overwrite: bool = False,
) -> RowSelection:  # fmt: skip
    """Write the chosen rows of a table of particles, with all their columns and in their order.

    Parameters
    ----------
    table
        STAR file.
    out
        Folder for ``particles.star``.
    rows
        As for `parse_rows`.
    drop
        Keep the others.
    xmd
        Write Xmipp's ``particles.xmd``, too.
    overwrite
        Replace what was selected in `out` before.

    Raises
    ------
    ParameterError
        If `rows` names no rows of the table.
    DataError
        If no row is left.
    ProjectError, OutputError
        If `out` holds something else or cannot be written.
    """
    particles = read_particles(Path(table))
    chosen = parse_rows(rows, len(particles)) ^ drop
    if not chosen.any():
        raise DataError(str(table), must="keep a particle", got="none", remedy="Choose other rows")
    files = (_TABLE, _XMD) if xmd else (_TABLE,)
    job = Job(
        out,
        name="select rows",
        parameters={
            "table": f"{table} ({identity_of(Path(table))})",
            "rows": rows,
            "drop": drop,
            "xmd": xmd,
        },
        inputs=[str(table)],
        results=files,
        overwrite=overwrite,
    )
    with job:
        kept = _renamed(particles, chosen, Path(out) / _TABLE)
        write_particles(Path(out) / _TABLE, kept)
        if xmd:
            xmipp.write_xmd_particles(Path(out) / _XMD, _plain(kept))
        else:
            (Path(out) / _XMD).unlink(missing_ok=True)
    return RowSelection(files=files, n_before=len(particles), n_kept=len(kept))


def _renamed(particles: Particles, chosen: NDArray[np.bool_], target: Path) -> Particles:
    rows = particles.rows[chosen].reset_index(drop=True)
    names = {
        n: rename_for(n, source=particles.source, target=target) for n in rows["image"].unique()
    }
    used = particles.optics["optics_group"].isin(rows["optics_group"])
    return replace(
        particles, rows=rows.assign(image=rows["image"].map(names)), optics=particles.optics[used]
    )


def _plain(particles: Particles) -> Particles:
    """Leave out columns that only RELION has words for."""
    kept: Sequence[str] = [c for c in particles.rows.columns if not str(c).startswith("rln")]
    return replace(particles, rows=particles.rows[list(kept)])
