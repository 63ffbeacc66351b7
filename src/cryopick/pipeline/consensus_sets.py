"""Coordinate sets of several pickers on one list of micrographs, joined into candidates.

A set may be of any format that `open_coordinates` reads, name its micrographs by less than their
path, know only some of them, and give positions in pixels of another size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.checks import require_above
from cryopick.errors import TableError
from cryopick.picking.consensus_points import Consensus, join_picks
from cryopick.pipeline.extraction_plan import open_coordinates
from cryopick.tables.micrographs import micrograph_path, pixel_sizes
from cryopick.tables.model import Micrographs, Particles, Picks, require_columns
from cryopick.tables.names import MicrographNames
from cryopick.tables.paths import micrograph_key

__all__ = ["CandidateField", "CoordinateSet", "consensus_box", "find_candidates", "read_set"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class CoordinateSet:
    """What one picker has found, in the micrographs' own pixels and under their full names."""

    path: Path
    positions: dict[str, Floats]  # (n, 2) x and y, px; also of micrographs without a pick
    scores: dict[str, Floats | None]  # (n,), higher is better; None where there are none
    box: float | None  # A, where the set says it
    n_unlisted: int  # micrographs that only the set names

    @property
    def count(self) -> int:
        """Picks on all micrographs."""
        return sum(len(p) for p in self.positions.values())


@dataclass(frozen=True, kw_only=True)
class CandidateField:
    """The candidates of one micrograph."""

    micrograph: str
    key: str
    path: Path
    pixel_size: float  # A/px
    found: Consensus
    is_seen: NDArray[np.bool_]  # (pickers,) who has looked at this micrograph


def read_set(
    path: Path, micrographs: Micrographs, *, pixel_size: float | None = None
) -> CoordinateSet:
    """Read a set and bring it to the names and pixels of the micrographs.

    Parameters
    ----------
    path
        Picks of any program, or particles, which are moved by their origins.
    micrographs
        The fields.
    pixel_size
        A/px that the positions are in; those of the micrographs if not given. Pixel 0 of both
        has its middle at 0, as binning in Fourier space leaves it.

    Returns
    -------
    CoordinateSet
        A micrograph that the set lists without a pick was looked at. One that it does not name
        was not.

    Raises
    ------
    ParameterError
        If the pixel size is not above 0.
    TableError
        If the set names none of the micrographs, or one by a name that fits several, or a
        position is no number.
    FormatError
        If a file is missing or broken.
    """
    if pixel_size is not None:
        require_above(pixel_size, 0, name="pixel_size", unit="A")
    table = open_coordinates(path)
    rows = table.rows
    require_columns(rows, ("micrograph", "x", "y"), table=str(path))
    if not np.isfinite(rows[["x", "y"]].to_numpy(float)).all():
        raise TableError(
            str(path), must="give finite positions", got="NaN or infinity", remedy="Mend the table"
        )
    sizes = dict(zip(micrographs.rows["micrograph"], pixel_sizes(micrographs), strict=True))
    names, n_unlisted = _full_names(_named(table), list(sizes), path)
    groups = {str(n): g for n, g in rows.groupby("micrograph", sort=False)}
    positions: dict[str, Floats] = {}
    scores: dict[str, Floats | None] = {}
    for part, name in names.items():
        own = groups.get(part, rows.iloc[:0])
        size = float(sizes[name])
        scale = 1.0 if pixel_size is None else pixel_size / size
        places = _centres(own, pixel_size or size) * scale
        values = own["fom"].to_numpy(np.float64) if "fom" in own else None
        if name in positions:  # two names of one micrograph
            places = np.concatenate([positions[name], places])
            before = scores[name]
            joined = None if values is None or before is None else np.concatenate([before, values])
            values = joined
        positions[name], scores[name] = places, values
    first = float(next(iter(sizes.values())))
    return CoordinateSet(
        path=path,
        positions=positions,
        scores=scores,
        box=_box(table, pixel_size or first),
        n_unlisted=n_unlisted,
    )


def find_candidates(
    micrographs: Micrographs, sets: Sequence[CoordinateSet], *, radius: float
) -> list[CandidateField]:
    """Join the picks of all sets, micrograph by micrograph.

    Parameters
    ----------
    micrographs
        The fields; each that a set has looked at gives an entry, also without candidates.
    sets
        Of the pickers.
    radius
        Least distance of different particles, A.

    Raises
    ------
    ParameterError
        If the radius is not above 0.
    """
    require_above(radius, 0, name="the radius", unit="A")
    nothing = np.empty((0, 2))
    fields = []
    for name, size in zip(micrographs.rows["micrograph"], pixel_sizes(micrographs), strict=True):
        is_seen = np.array([name in s.positions for s in sets], bool)
        if not is_seen.any():
            continue
        found = join_picks(
            [s.positions.get(name, nothing) for s in sets],
            [s.scores.get(name) for s in sets],
            radius=radius / float(size),
        )
        fields.append(
            CandidateField(
                micrograph=str(name),
                key=micrograph_key(str(name)),
                path=micrograph_path(str(name), micrographs.source),
                pixel_size=float(size),
                found=found,
                is_seen=is_seen,
            )
        )
    return fields


def consensus_box(sets: Sequence[CoordinateSet], *, given: float | None, usual: float) -> float:
    """Side of the box, A.

    Parameters
    ----------
    sets
        The first that says its box gives it, where none is given.
    given
        By the user, A.
    usual
        Where nothing else says it, A.
    """
    if given is not None:
        return given
    return next((s.box for s in sets if s.box is not None), usual)


def _named(table: Picks | Particles) -> list[str]:
    """Micrographs that a table names, with and without picks."""
    listed = table.attributes.get("micrographs") if isinstance(table, Picks) else None
    words = [str(n) for n in listed] if isinstance(listed, list) else []
    return list(dict.fromkeys([*words, *map(str, table.rows["micrograph"])]))


def _full_names(parts: Sequence[str], names: list[str], path: Path) -> tuple[dict[str, str], int]:
    """Full name of each micrograph that is listed; count the others."""
    finder = MicrographNames(names)
    found = {p: finder.find(p, source=str(path)) for p in parts if finder.is_known(p)}
    if parts and not found:
        raise TableError(
            str(path),
            must="name micrographs that MICROGRAPHS lists",
            got=f"{parts[0]}, while that lists {names[0]}",
            remedy="Give the micrographs that were picked",
        )
    return found, len(parts) - len(found)


def _centres(rows: pd.DataFrame, pixel_size: float) -> Floats:
    """X and y of the particles, moved by their origins, px of the set."""
    places = rows[["x", "y"]].to_numpy(np.float64)
    if {"shift_x", "shift_y"} <= set(rows.columns):
        places = places - rows[["shift_x", "shift_y"]].to_numpy(np.float64) / pixel_size
    return places


def _box(table: Picks | Particles, pixel_size: float) -> float | None:
    if isinstance(table, Picks):
        side = table.attributes.get("box_size")
        return float(side) * pixel_size if isinstance(side, int | float) else None
    if "box_size" not in table.optics:
        return None
    first = table.optics.iloc[0]
    return float(first["box_size"]) * float(first["pixel_size"])
