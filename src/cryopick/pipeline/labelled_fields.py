"""Labelled particles to train on: positions out of any table, joined with their micrographs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryopick.errors import CryopickError, DataError, TableError
from cryopick.io.micrograph import read_micrograph_size
from cryopick.pipeline.extraction_plan import open_coordinates
from cryopick.pipeline.job import identity_of
from cryopick.tables.micrographs import micrograph_path, pixel_sizes
from cryopick.tables.model import Micrographs, require_columns
from cryopick.tables.names import MicrographNames
from cryopick.tables.paths import micrograph_key

__all__ = ["LabelledField", "Labels", "labels_identity", "read_beside", "read_labels"]

_FEWEST = 50  # labels: with fewer, a network learns them by heart
_SAME, _WIDEST_SAME = 0.2, 100.0  # diameters, A: two labels so near are one particle
_STRAYING = 0.01  # share of labels outside their fields that is taken for carelessness


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
    n_unlabelled: int  # micrographs without a label, left out
    n_repeated: int  # labels of a particle that has one already, left out

    @property
    def count(self) -> int:
        """Labels in all fields."""
        return sum(len(f.x) for f in self.fields)


def read_labels(
    micrographs: Micrographs,
    path: Path,
    *,
    diameter: float,
    refused: dict[str, str] | None = None,
) -> Labels:
    """Read positions and join them with their micrographs.

    Parameters
    ----------
    micrographs
        The fields.
    path
        Particles, or picks of any program: a file or a folder. Particles are moved by their
        origins.
    diameter
        Of the particle, A: of labels nearer than a fifth of it only the first counts.
    refused
        Where given, labelled micrographs that cannot be opened are left out, and the reasons
        added here by name.

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
        If a file is missing or broken; with `refused`, if all micrographs are.
    """
    rows = _read_rows(path)
    if len(rows) < _FEWEST:
        raise _too_few(path, f"{len(rows)}")
    names = [str(n) for n in micrographs.rows["micrograph"]]
    groups, n_unlisted = _by_micrograph(rows, names, str(path))
    sizes = pixel_sizes(micrographs).to_numpy(float)
    fields, strays, n_all, n_repeated = [], [], 0, 0
    last: CryopickError | None = None
    for name, pixel_size in zip(names, sizes.tolist(), strict=True):
        if name not in groups:
            continue
        try:
            field, outside = _field(name, groups[name], micrographs.source, pixel_size)
        except CryopickError as error:
            if refused is None:
                raise
            refused[name] = str(error)
            last = error
            continue
        n_all += len(groups[name])
        strays += outside
        field, repeated = _without_repeats(field, near=min(_SAME * diameter, _WIDEST_SAME))
        n_repeated += repeated
        if len(field.x):
            fields.append(field)
    if last is not None and not n_all:
        raise last
    if len(strays) > _STRAYING * n_all:
        raise DataError(
            str(path),
            must="give positions inside the micrographs",
            got=f"{len(strays)} of {n_all} outside, the first at {strays[0]}",
            remedy="Check that labels are px of these micrographs, or use cryopick convert --scale",
        )
    labels = Labels(
        fields=tuple(fields),
        n_outside=len(strays),
        n_unlisted=n_unlisted,
        n_unlabelled=len(names) - len(groups),
        n_repeated=n_repeated,
    )
    if labels.count < _FEWEST:
        raise _too_few(path, f"{labels.count} in the micrographs given")
    return labels


def labels_identity(fields: Sequence[LabelledField]) -> str:
    """Name micrographs, pixel sizes and labels, so that a change of any is noticed.

    Parameters
    ----------
    fields
        The micrographs with their labels.
    """
    digest = hashlib.sha256(identity_of(*(f.path for f in fields)).encode())
    for field in fields:
        digest.update(f"{field.micrograph} {field.pixel_size:.6g}".encode())
        digest.update(np.stack([field.x, field.y]).astype("<f8").data)
    return digest.hexdigest()[:16]


def read_beside(fields: Sequence[LabelledField], path: Path) -> list[NDArray[np.float64]]:
    """Read other positions on labelled micrographs.

    Parameters
    ----------
    fields
        The micrographs.
    path
        Particles, moved by their origins, or picks of any program: a file or a folder.

    Returns
    -------
    list of numpy.ndarray
        For each field (n, 2), y and x in px; those outside it are left out.

    Raises
    ------
    TableError
        If the table names none of these micrographs, or a position is no number.
    FormatError
        If a file is missing or broken.
    """
    groups, _ = _by_micrograph(_read_rows(path), [f.micrograph for f in fields], str(path))
    found = []
    for field in fields:
        rows = groups.get(field.micrograph)
        if rows is None:
            found.append(np.empty((0, 2)))
            continue
        x, y = _centres(rows, field.pixel_size)
        is_inside = _is_inside(x, y, field.size)
        found.append(np.stack([y, x], axis=1)[is_inside])
    return found


def _read_rows(path: Path) -> pd.DataFrame:
    rows = open_coordinates(path).rows
    require_columns(rows, ("micrograph", "x", "y"), table=str(path))
    if not np.isfinite(rows[["x", "y"]].to_numpy(float)).all():
        raise TableError(
            str(path), must="give finite positions", got="NaN or infinity", remedy="Mend the table"
        )
    return rows


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
) -> tuple[LabelledField, list[str]]:
    """One micrograph with the labels inside it, and where the others are."""
    path = micrograph_path(name, source)
    size = read_micrograph_size(path)
    x, y = _centres(rows, pixel_size)
    is_inside = _is_inside(x, y, size)
    field = LabelledField(
        micrograph=name,
        key=micrograph_key(name),
        path=path,
        pixel_size=pixel_size,
        size=size,
        x=x[is_inside],
        y=y[is_inside],
    )
    outside = zip(x[~is_inside], y[~is_inside], strict=True)
    width, height = size[1], size[0]
    where = [f"x {a:.0f}, y {b:.0f} of {name} ({width} x {height} px)" for a, b in outside]
    return field, where


def _without_repeats(field: LabelledField, *, near: float) -> tuple[LabelledField, int]:
    """Leave out labels nearer than so many A to an earlier one; count them."""
    places = np.stack([field.x, field.y], axis=1)
    is_kept = np.ones(len(places), dtype=bool)
    pairs = cKDTree(places).query_pairs(near / field.pixel_size, output_type="ndarray")
    for first, second in pairs[np.lexsort(pairs.T[::-1])]:
        is_kept[second] &= not is_kept[first]
    kept = replace(field, x=field.x[is_kept], y=field.y[is_kept])
    return kept, int((~is_kept).sum())


def _centres(
    rows: pd.DataFrame, pixel_size: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """X and y of the particles, moved by their origins, px."""
    x, y = rows["x"].to_numpy(float), rows["y"].to_numpy(float)
    if {"shift_x", "shift_y"} <= set(rows.columns):
        x = x - rows["shift_x"].to_numpy(float) / pixel_size
        y = y - rows["shift_y"].to_numpy(float) / pixel_size
    return x, y


def _is_inside(
    x: NDArray[np.float64], y: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.bool_]:
    height, width = size
    return np.asarray((x > -0.5) & (y > -0.5) & (x < width - 0.5) & (y < height - 0.5))
