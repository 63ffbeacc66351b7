"""Labelled particles for Topaz: positions out of any table, joined with their micrographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import DataError, TableError
from cryopick.io.micrograph import read_micrograph_size
from cryopick.pipeline.extraction_plan import open_coordinates
from cryopick.tables.micrographs import micrograph_path, pixel_sizes
from cryopick.tables.model import Micrographs, require_columns
from cryopick.tables.names import MicrographNames
from cryopick.tables.paths import micrograph_key

__all__ = ["LabelledField", "Labels", "read_labels"]

_FEWEST = 50  # labels: with fewer, Topaz learns them by heart
_STRAYING = 0.05  # share of labels outside their fields that is taken for carelessness


@dataclass(frozen=True, kw_only=True)
class LabelledField:
    """One micrograph and its labels."""

    micrograph: str
    key: str
    path: Path
    pixel_size: float  # A/px
    size: tuple[int, int]  # (y, x) px
    x: NDArray[np.float64]  # (n,) px
    y: NDArray[np.float64]  # (n,) px


@dataclass(frozen=True, kw_only=True)
class Labels:
    """All labels, by micrograph."""

    fields: tuple[LabelledField, ...]
    n_outside: int  # labels outside their micrographs, left out
    n_unlisted: int  # micrographs that only the labels name

    @property
    def count(self) -> int:
        """Labels in all fields."""
        return sum(len(f.x) for f in self.fields)


def read_labels(micrographs: Micrographs, path: Path) -> Labels:
    """Read positions and join them with their micrographs.

    Parameters
    ----------
    micrographs
        The fields.
    path
        Particles, or picks of any program: a file or a folder. Particles are moved by their
        origins, to the next pixel as RELION does.

    Returns
    -------
    Labels
        Micrographs without a label are left out: nobody has looked for particles there.

    Raises
    ------
    DataError
        If there are fewer than 50 labels, or many lie outside their micrographs.
    TableError
        If the labels name no micrograph that is listed, or a position is no number.
    FormatError
        If a file is missing or broken.
    """
    coordinates = open_coordinates(path)
    rows = coordinates.rows
    require_columns(rows, ("micrograph", "x", "y"), table=str(path))
    if not np.isfinite(rows[["x", "y"]].to_numpy(float)).all():
        raise TableError(
            str(path), must="give finite positions", got="NaN or infinity", remedy="Mend the table"
        )
    if len(rows) < _FEWEST:
        raise _too_few(path, f"{len(rows)}")
    names = [str(n) for n in micrographs.rows["micrograph"]]
    groups, n_unlisted = _by_micrograph(rows, names, str(path))
    sizes = pixel_sizes(micrographs).to_numpy(float)
    fields, n_outside, n_all = [], 0, 0
    for name, pixel_size in zip(names, sizes.tolist(), strict=True):
        if name not in groups:
            continue
        field, outside = _field(name, groups[name], micrographs.source, pixel_size)
        n_all += len(groups[name])
        n_outside += outside
        if len(field.x):
            fields.append(field)
    if n_outside > _STRAYING * n_all:
        raise DataError(
            str(path),
            must="give positions inside the micrographs",
            got=f"{n_outside} of {n_all} outside",
            remedy="Check that the labels are px of these micrographs; convert --scale mends them",
        )
    labels = Labels(fields=tuple(fields), n_outside=n_outside, n_unlisted=n_unlisted)
    if labels.count < _FEWEST:
        raise _too_few(path, f"{labels.count} in the micrographs listed")
    return labels


def _too_few(path: Path, got: str) -> DataError:
    return DataError(
        str(path),
        must=f"hold at least {_FEWEST} labelled particles",
        got=got,
        remedy="Label more of them",
    )


def _by_micrograph(
    rows: pd.DataFrame, names: list[str], source: str
) -> tuple[dict[str, pd.DataFrame], int]:
    """Group the rows by the full name of the micrograph; count the names that none fits."""
    finder = MicrographNames(names)
    groups: dict[str, pd.DataFrame] = {}
    missing: list[str] = []
    for part, group in rows.groupby("micrograph", sort=False):
        try:
            name = finder.find(str(part), source=source)
        except TableError:
            missing.append(str(part))
            continue
        groups[name] = pd.concat([groups[name], group]) if name in groups else group
    if not groups:
        raise TableError(
            source,
            must="name micrographs that MICROGRAPHS lists",
            got=f"{missing[0]}, while that lists {names[0]}",
            remedy="Give the micrographs that were labelled",
        )
    return groups, len(missing)


def _field(
    name: str, rows: pd.DataFrame, source: Path | None, pixel_size: float
) -> tuple[LabelledField, int]:
    path = micrograph_path(name, source)
    height, width = read_micrograph_size(path)
    x, y = rows["x"].to_numpy(float), rows["y"].to_numpy(float)
    if {"shift_x", "shift_y"} <= set(rows.columns):
        x = x - np.rint(rows["shift_x"].to_numpy(float) / pixel_size)
        y = y - np.rint(rows["shift_y"].to_numpy(float) / pixel_size)
    is_inside = (x > -0.5) & (y > -0.5) & (x < width - 0.5) & (y < height - 0.5)
    field = LabelledField(
        micrograph=name,
        key=micrograph_key(name),
        path=path,
        pixel_size=pixel_size,
        size=(height, width),
        x=x[is_inside],
        y=y[is_inside],
    )
    return field, int((~is_inside).sum())
