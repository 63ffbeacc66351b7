"""Select or split a table file: micrographs, particles or picks in, tables of the same kind out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import DataError, OutputError, ParameterError
from cryopick.io.star import read_star_labels
from cryopick.pipeline.job import Job
from cryopick.selection.subset_parameters import SubsetParameters
from cryopick.selection.subsets import first_of_each, select_by_value, select_distant, split_rows
from cryopick.tables.model import Micrographs, Particles, Picks
from cryopick.tables.paths import micrograph_key, rename_for
from cryopick.tables.pick_scores import UNKNOWN, PickScore
from cryopick.tables.relion import (
    read_micrographs,
    read_particles,
    read_picks,
    write_coordinate_files,
    write_micrographs,
    write_particles,
    write_picks_file,
)
from cryopick.tables.relion_names import MICROGRAPH_ROWS, PICK_ROWS

__all__ = ["SubsetResult", "select_subset"]

Table = Micrographs | Particles | Picks
_TABLES = (
    "micrographs.star",
    "particles.star",
    "autopick.star",
    "micrographs_split*.star",
    "particles_split*.star",
    "split*/autopick.star",
)


@dataclass(frozen=True, kw_only=True)
class SubsetResult:
    """What was kept, and the files it went to."""

    kind: str  # micrographs, particles or picks
    n_before: int
    n_kept: int
    files: dict[str, int]  # rows in each file

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "kind": self.kind,
            "n_before": self.n_before,
            "n_kept": self.n_kept,
            "files": self.files,
        }


def select_subset(
    table: Path, out: Path, parameters: SubsetParameters, *, overwrite: bool = False
) -> SubsetResult:
    """Write the chosen rows of a table.

    Parameters
    ----------
    table
        STAR file of micrographs or particles; STAR file or folder of picks.
    out
        Folder for ``micrographs.star``, ``particles.star`` or ``autopick.star``, or for
        ``micrographs_split1.star`` and so on; split picks go to folders ``split1``, ``split2``.
    parameters
        What to keep.
    overwrite
        Replace what another selection left in `out`.

    Returns
    -------
    SubsetResult
        Counts and files.

    Raises
    ------
    CryopickError
        If the table cannot be read, no row is left, or the output would overwrite a file.
    """
    table, out = Path(table), Path(out)
    before = _read(table)
    chosen = _choose(before, parameters)
    parts = _split(chosen, parameters)
    paths = _paths_of(chosen, len(parts), out, is_split=parameters.is_split)
    job = Job(
        out,
        name="select subset",
        parameters={"table": str(table), **parameters.to_dict()},
        inputs=[str(table)],
        overwrite=overwrite,
    )
    _protect(table, out, paths, overwrite=overwrite)
    left = _old_tables(out) if (out / "job.json").exists() else []
    with job:
        for old in left:
            old.unlink()
        for path, part in zip(paths, parts, strict=True):
            _write(path, part)
    counts = {str(p): len(part) for p, part in zip(paths, parts, strict=True)}
    return SubsetResult(
        kind=type(chosen).__name__.lower(),
        n_before=len(before),
        n_kept=len(chosen),
        files=counts,
    )


def _read(table: Path) -> Table:
    if table.is_dir() or table.name.startswith("coords_suffix"):
        return read_picks(table)
    labels = {label for some in read_star_labels(table).values() for label in some}
    if "rlnImageName" in labels:
        return read_particles(table)
    if labels & {"rlnCoordinateX", "rlnMicrographCoordinates"}:
        return read_picks(table)
    return read_micrographs(table)


def _choose(table: Table, parameters: SubsetParameters) -> Table:
    rows = table.rows
    if parameters.by is not None:
        column = _our_column(parameters.by)
        lower, upper = parameters.min_value, parameters.max_value
        rows = select_by_value(rows, column, minimum=lower, maximum=upper)
    if parameters.remove_duplicates:
        rows = _without_duplicates(table, rows)
    if parameters.min_distance is not None:
        size = _micrograph_pixel_size(table, rows, parameters.micrograph_pixel_size)
        rows = select_distant(rows, min_distance=parameters.min_distance, pixel_size=size)
    if not len(rows):
        raise DataError(
            "the selection",
            must="keep at least one row",
            got=f"none of {len(table)}",
            remedy="Loosen its limits",
        )
    return replace(table, rows=rows)


def _our_column(name: str) -> str:
    """Name of a column in our words, from our word or RELION's label."""
    label = name.removeprefix("_")
    ours = {their: our for our, their in {**MICROGRAPH_ROWS, **PICK_ROWS}.items()}
    return ours.get(label, label)


def _without_duplicates(table: Table, rows: pd.DataFrame) -> pd.DataFrame:
    if isinstance(table, Micrographs):  # names are equal if their results are, see micrograph_key
        keys = rows["micrograph"].map(micrograph_key)
        return rows.loc[first_of_each(keys.to_frame(), ["micrograph"]).index]
    if isinstance(table, Particles):
        return first_of_each(rows, ["image", "image_index"])
    return first_of_each(rows, ["micrograph", "x", "y"])


def _micrograph_pixel_size(
    table: Table, rows: pd.DataFrame, given: float | None
) -> NDArray[np.float64] | float:
    if given is not None:
        return given
    if isinstance(table, Particles) and "micrograph_pixel_size" in table.optics.columns:
        sizes = table.optics.set_index("optics_group")["micrograph_pixel_size"]
        return rows["optics_group"].map(sizes).to_numpy(float)
    raise ParameterError(
        "micrograph_pixel_size",
        must="be known to compare distances",
        got="none in the table",
        remedy="Give it with --micrograph-pixel-size",
    )


def _split(table: Table, parameters: SubsetParameters) -> list[Table]:
    if not parameters.is_split:
        return [table]
    names = _listed(table) if isinstance(table, Picks) else []
    parts = split_rows(
        len(names) if isinstance(table, Picks) else len(table),
        n_subsets=parameters.n_subsets,
        subset_size=parameters.subset_size,
        seed=parameters.seed if parameters.random_order else None,
    )
    if not isinstance(table, Picks):
        return [replace(table, rows=table.rows.iloc[part]) for part in parts]
    chosen = [[names[i] for i in part] for part in parts]
    return [
        replace(
            table,
            rows=table.rows[table.rows["micrograph"].isin(some)],
            attributes={**table.attributes, "micrographs": some},
        )
        for some in chosen
    ]


def _listed(picks: Picks) -> list[str]:
    """All micrographs of the picks, also those without any where the table lists them."""
    listed = picks.attributes.get("micrographs")
    names = listed if isinstance(listed, list) else picks.rows["micrograph"].tolist()
    return list(dict.fromkeys(map(str, names)))


def _paths_of(table: Table, n_parts: int, out: Path, *, is_split: bool) -> list[Path]:
    if isinstance(table, Picks):
        folders = [out / f"split{n + 1}" for n in range(n_parts)] if is_split else [out]
        return [folder / "autopick.star" for folder in folders]
    stem = "micrographs" if isinstance(table, Micrographs) else "particles"
    endings = [f"_split{n + 1}" for n in range(n_parts)] if is_split else [""]
    return [out / f"{stem}{ending}.star" for ending in endings]


def _protect(table: Path, out: Path, paths: list[Path], *, overwrite: bool) -> None:
    """Refuse to replace the input, or a file that no selection made."""
    inputs = {table.resolve()}
    if table.is_dir():
        inputs |= {p.resolve() for p in table.rglob("*.star")}
    if inputs & {p.resolve() for p in _old_tables(out)}:
        raise OutputError(
            str(out),
            must="be another folder than that of the input",
            got=str(table),
            remedy="Choose another --out",
        )
    there = [p for p in paths if p.exists()]
    if there and not (out / "job.json").exists() and not overwrite:
        raise OutputError(
            str(there[0]),
            must="not exist yet",
            got="a file",
            remedy="Choose another --out, or add --overwrite",
        )


def _old_tables(out: Path) -> list[Path]:
    """All that selections may have left: a new one would replace it or lie beside it."""
    return [p for pattern in _TABLES for p in sorted(out.glob(pattern))]


def _write(path: Path, table: Table) -> None:
    if isinstance(table, Picks):
        _write_picks(path, table)
        return
    used = table.optics["optics_group"].isin(table.rows["optics_group"])
    column = "micrograph" if isinstance(table, Micrographs) else "image"
    names = {
        n: rename_for(n, source=table.source, target=path) for n in table.rows[column].unique()
    }
    rows = table.rows.assign(**{column: table.rows[column].map(names)})
    table = replace(table, rows=rows, optics=table.optics[used])
    if isinstance(table, Micrographs):
        write_micrographs(path, table)
    else:
        write_particles(path, table)


def _write_picks(path: Path, picks: Picks) -> None:
    groups = dict(iter(picks.rows.groupby("micrograph", sort=False)))
    score = picks.attributes.get("score", UNKNOWN)
    assert isinstance(score, PickScore)
    pairs = []
    for name in _listed(picks):
        file = path.parent / f"{micrograph_key(name)}_autopick.star"
        write_picks_file(file, groups.get(name, picks.rows.iloc[:0]), score=score)
        pairs.append((name, str(file)))
    write_coordinate_files(path, pairs)
