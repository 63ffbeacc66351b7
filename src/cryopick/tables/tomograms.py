"""Positions in tomograms: one table, in A, whatever program they came from or go to.

A position is in A along x, y and z from the centre of voxel (0, 0, 0) of its tomogram. The size
and the voxel size of the tomogram are carried along, as most programs count from elsewhere or in
voxels; the dialects (`tomogram_formats`) convert there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import TableError
from cryopick.tables.model import require_columns
from cryopick.tables.names import bare_name

__all__ = [
    "TOMOGRAM_COLUMNS",
    "TomogramPicks",
    "tomogram_name",
    "tomogram_of",
    "tomogram_table",
]

TOMOGRAM_COLUMNS: dict[str, str] = {
    # one row per tomogram
    "tomogram": "name of the tomogram, without folder and suffix",
    "nx": "columns, voxels",
    "ny": "rows, voxels",
    "nz": "sections, voxels",
    "voxel_size": "A",
    # one row per pick
    "x": "A from the centre of the first voxel",
    "y": "A from the centre of the first voxel",
    "z": "A from the centre of the first voxel",
    "score": "figure of merit, higher is better",
    "kind": "kind of object, from 1; 0 is none",
    "species": "name of the particle, where it is known",
    "diameter": "A",
    "volume": "A^3",
    "rot": "deg, RELION's Euler angles; absent where the orientation is not known",
    "tilt": "deg",
    "psi": "deg",
}
_SIZES = ("nx", "ny", "nz")
_SUFFIXES = (".zarr", ".ome", ".tomostar")


@dataclass(frozen=True, kw_only=True)
class TomogramPicks:
    """Picks in tomograms: a row each in `rows`, and the tomograms they lie in."""

    rows: pd.DataFrame  # tomogram, x, y, z (A), and any other column
    tomograms: pd.DataFrame  # tomogram, nx, ny, nz, voxel_size (A)
    source: Path | None = None

    def __post_init__(self) -> None:
        name = str(self.source or "picks")
        require_columns(self.rows, ("tomogram", "x", "y", "z"), table=name)
        require_columns(self.tomograms, ("tomogram", *_SIZES, "voxel_size"), table=name)
        places = self.rows[["x", "y", "z"]].to_numpy(np.float64)
        if not np.isfinite(places).all():
            raise TableError(
                name, must="hold finite positions", got="NaN or infinity", remedy="Remove the row"
            )
        unknown = sorted(set(self.rows["tomogram"]) - set(self.tomograms["tomogram"]))
        if unknown:
            known = ", ".join(map(str, self.tomograms["tomogram"][:3])) or "none"
            raise TableError(
                f"tomogram {unknown[0]} of {name}",
                must="be among the tomograms that are known",
                got=known,
                remedy="Give its volume, too",
            )

    def __len__(self) -> int:
        return len(self.rows)

    def in_voxels(self) -> NDArray[np.float64]:
        """Positions in voxels of each one's own tomogram.

        Returns
        -------
        numpy.ndarray
            (n, 3): z, y, x as arrays are indexed; 0 is the centre of the first voxel.
        """
        sizes = self.per_pick("voxel_size")
        return np.asarray(self.rows[["z", "y", "x"]].to_numpy(np.float64) / sizes[:, None])

    def per_pick(self, column: str) -> NDArray[np.float64]:
        """Repeat a column of the tomograms for each pick: (n,) float64."""
        values = self.tomograms.set_index("tomogram")[column]
        return values.reindex(self.rows["tomogram"]).to_numpy(np.float64)

    def of(self, tomogram: str) -> TomogramPicks:
        """Take the picks of one tomogram, which stays even where it has none."""
        return TomogramPicks(
            rows=self.rows[self.rows["tomogram"] == tomogram].reset_index(drop=True),
            tomograms=self.tomograms[self.tomograms["tomogram"] == tomogram],
            source=self.source,
        )


def tomogram_table(
    tomograms: Iterable[tuple[str, Sequence[int], float]],
) -> pd.DataFrame:
    """Make the table of tomograms.

    Parameters
    ----------
    tomograms
        Of each its name, its shape (z, y, x) in voxels, and its voxel size in A.

    Examples
    --------
    >>> tomogram_table([("a", (128, 256, 200), 10.0)]).to_dict("records")
    [{'tomogram': 'a', 'nx': 200, 'ny': 256, 'nz': 128, 'voxel_size': 10.0}]
    """
    rows = [(name, *(int(n) for n in shape[::-1]), float(size)) for name, shape, size in tomograms]
    return pd.DataFrame(rows, columns=["tomogram", *_SIZES, "voxel_size"])


def tomogram_name(path: Path | str) -> str:
    """Name of a tomogram: that of its file without folder and suffix.

    Examples
    --------
    >>> tomogram_name("tomograms/TS_01.mrc"), tomogram_name("a/TS_02.ome.zarr")
    ('TS_01', 'TS_02')
    >>> tomogram_name("TS_03_10.00Apx.tomostar")
    'TS_03_10.00Apx'
    """
    name = PurePosixPath(str(path).replace("\\", "/").rstrip("/")).name
    while name.endswith(_SUFFIXES):
        name = name[: name.rfind(".")]
    return bare_name(name)


def tomogram_of(name: str, tomograms: pd.DataFrame, *, source: str) -> pd.Series:
    """Find the row of one tomogram in the table of all.

    Raises
    ------
    TableError
        If it is not there.
    """
    found = tomograms[tomograms["tomogram"] == name]
    if not len(found):
        raise TableError(
            f"tomogram {name} of {source}",
            must="be among the tomograms that are known",
            got=", ".join(map(str, tomograms["tomogram"][:3])) or "none",
            remedy="Give its volume, too",
        )
    return found.iloc[0]
