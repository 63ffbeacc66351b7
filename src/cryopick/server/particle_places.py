"""Particles of a table by the field they lie in, kept for as long as the table is the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import CryopickError
from cryopick.pipeline.field_table import job_kind
from cryopick.pipeline.star_counts import count_by_micrograph
from cryopick.server.served import Served, stamp_of
from cryopick.tables.model import Particles
from cryopick.tables.paths import micrograph_key
from cryopick.tables.relion import read_particles

__all__ = [
    "KeptParticles",
    "field_particles",
    "has_places",
    "kept_particles",
    "n_placed",
    "particle_table",
]

_MOST, _MANY = 2, 40  # tables that are kept; as many if all together have
_LITTLE = 200_000  # rows
_QUICK = 50_000_000  # bytes of a table that are counted while somebody waits


@dataclass(frozen=True, kw_only=True)
class KeptParticles:
    """A table, and which of its rows lie in which field."""

    path: Path
    stamp: str
    particles: Particles
    order: NDArray[np.intp]  # rows by field
    starts: dict[str, tuple[int, int]]  # range of `order` of each field, by key

    def rows_of(self, micrograph: str) -> NDArray[np.intp]:
        """Rows of one field, in the order of the table."""
        start, stop = self.starts.get(micrograph_key(micrograph), (0, 0))
        return self.order[start:stop]


def particle_table(folder: Path, *, iteration: int | None = None) -> Path | None:
    """Find the table of the particles of a job; of a classification that of its last iteration.

    Parameters
    ----------
    folder
        Of the job.
    iteration
        Of a classification, instead of the last.
    """
    if iteration is not None:
        path = folder / f"run_it{iteration:03d}_data.star"
        return path if path.is_file() else None
    if job_kind(folder).startswith("tomo "):
        return None
    plain = folder / "particles.star"
    if plain.is_file():
        return plain
    found = sorted([*folder.glob("run_it[0-9]*_data.star"), *folder.glob("run_data.star")])
    if not found and (folder / "current").is_dir():
        found = sorted((folder / "current").glob("run_it[0-9]*_data.star"))
    return found[-1] if found else None


def has_places(folder: Path) -> bool:
    """Tell whether a folder holds particles that lie in fields."""
    return particle_table(folder) is not None


def n_placed(served: Served, folder: Path) -> int | None:
    """Count the particles of a table; None where that would take long and nobody did it before."""
    path = particle_table(folder)
    if path is None:
        return None
    try:
        return _n_placed(served, path)
    except (CryopickError, OSError):  # one broken table must not take a list with it
        return None


def _n_placed(served: Served, path: Path) -> int | None:
    """Count the rows of a table without keeping it: a list of all tables asks for each."""
    stamp = stamp_of(path)
    with served.slow_lock:
        known: dict[str, tuple[str, int]] = served.kept.setdefault("n_placed", {})
        if known.get(str(path), ("",))[0] != stamp:
            if path.stat().st_size > _QUICK:
                return None
            known[str(path)] = (stamp, count_by_micrograph(path).total())
        return known[str(path)][1]


def kept_particles(served: Served, path: Path) -> KeptParticles:
    """Read a table, unless it is kept.

    Raises
    ------
    FormatError, TableError
        If it is broken.
    """
    stamp = stamp_of(path)
    with served.slow_lock:
        known: dict[str, KeptParticles] = served.kept.setdefault("particles", {})
        found = known.pop(str(path), None)
        if found is None or found.stamp != stamp:
            found = _read(path, stamp)
        known[str(path)] = found  # the last is the one used last
        is_little = sum(len(k.particles) for k in known.values()) < _LITTLE
        while len(known) > (_MANY if is_little else _MOST):
            del known[next(iter(known))]
        return found


def field_particles(served: Served, folder: Path, micrograph: str) -> pd.DataFrame:
    """Give the particles of a job that lie in a field: x, y and all columns of numbers.

    Raises
    ------
    FormatError, TableError
        If the table is broken.
    """
    path = particle_table(folder)
    if path is None:
        return pd.DataFrame({"x": [], "y": []}, dtype=float)
    kept = kept_particles(served, path)
    rows: Any = kept.particles.rows
    if not {"x", "y"} <= set(rows.columns):
        return pd.DataFrame({"x": [], "y": []}, dtype=float)
    found: pd.DataFrame = rows.iloc[kept.rows_of(micrograph)]
    return found.assign(row=kept.rows_of(micrograph))


def _read(path: Path, stamp: str) -> KeptParticles:
    particles = read_particles(path)
    has_names = "micrograph" in particles.rows  # stacks of EMAN2 need not have any
    codes, unique = pd.factorize(particles.rows["micrograph"] if has_names else pd.Series([]))
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(unique)))
    starts = {
        micrograph_key(str(name)): (int(ends[k - 1]) if k else 0, int(ends[k]))
        for k, name in enumerate(unique)
    }
    rows = particles.rows.copy(deep=False)
    for column in ("micrograph", "image", "group_name"):
        if column in rows:
            rows[column] = rows[column].astype("category")  # names repeat
    kept = Particles(rows=rows, optics=particles.optics, source=particles.source)
    return KeptParticles(path=path, stamp=stamp, particles=kept, order=order, starts=starts)
