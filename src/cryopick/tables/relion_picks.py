"""Picks in RELION's forms: one file per micrograph, and four ways to list those files.

Read are: ``autopick.star`` with a row per micrograph (RELION 4 and 5), the one-line
``coords_suffix_autopick.star`` (3.x), a particle table with coordinates, the file of one
micrograph, and a folder of such files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.errors import CryopickError, TableError
from cryopick.io.atomic import write_text
from cryopick.io.star import read_star, write_star
from cryopick.tables.model import Picks
from cryopick.tables.names import coordinate_stem
from cryopick.tables.paths import micrograph_key, require_unique_keys, resolve_path
from cryopick.tables.pick_scores import UNKNOWN, PickScore, read_pick_score, score_comment
from cryopick.tables.relion_names import PARTICLE_OPTICS, PICK_ROWS, from_relion, to_relion
from cryopick.tables.relion_tables import (
    join_image_names,
    particle_rows_from_relion,
    read_micrographs,
)

__all__ = [
    "picks_of_file",
    "read_picks",
    "write_coordinate_files",
    "write_coords_suffix",
    "write_picks_file",
    "write_summary",
]

_NOT_COORDINATES = {"summary.star", "job.star"}


def read_picks(path: Path, *, refused: list[CryopickError] | None = None) -> Picks:
    """Read picks from any of RELION's forms.

    Parameters
    ----------
    path
        A STAR file or a folder of coordinate files.
    refused
        Where given, the file of one micrograph that is missing or broken is left out and its
        error is added here, so that the rest can go on; else the first error is raised.

    Returns
    -------
    Picks
        `attributes["micrographs"]` names every micrograph that was listed, also those without
        a pick, where the file has a list; `attributes["score"]`, a `PickScore`, says what the
        scores mean, where the first of the files does. Where a file does not name its
        micrograph, the name is made from the file's own: ``a_autopick.star`` is of ``a.mrc``.

    Raises
    ------
    FormatError
        If a file is broken or missing.
    TableError
        If there are no coordinates.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, refused)
    if path.name.startswith("coords_suffix"):
        return _read_coords_suffix(path, refused)
    blocks = read_star(path)
    for name, table in blocks.items():
        if "rlnMicrographCoordinates" in table.columns:
            return _read_listed(path, name, table, refused)
    table = _coordinates(blocks, path)
    optics = blocks.get("optics")
    rows = _pick_rows(table, optics, path)
    if "micrograph" not in rows.columns:
        rows.insert(0, "micrograph", coordinate_stem(path.name) + ".mrc")
    return Picks(rows=rows, source=path, attributes=_score_of([path]))


def picks_of_file(path: Path, micrograph: str) -> pd.DataFrame:
    """Read the picks of one micrograph.

    Parameters
    ----------
    path
        A file with one table of coordinates.
    micrograph
        Name of the micrograph they belong to, whatever the file says.

    Returns
    -------
    pandas.DataFrame
        micrograph, x, y and the other columns; it may have no rows.

    Raises
    ------
    FormatError
        If the file is broken or missing.
    TableError
        If it has no coordinates.
    """
    path = Path(path)
    rows = _pick_rows(_coordinates(read_star(path), path), None, path)
    rows = rows.drop(columns=[c for c in ("micrograph",) if c in rows.columns])
    rows.insert(0, "micrograph", pd.Series(micrograph, index=rows.index, dtype="str"))
    return rows


def _coordinates(blocks: dict[str, pd.DataFrame], path: Path) -> pd.DataFrame:
    tables = [b for name, b in blocks.items() if name != "optics"]
    for table in tables:
        if {"rlnCoordinateX", "rlnCoordinateY"} <= set(table.columns):
            return table
    if len(tables) == 1 and not len(tables[0].columns):  # how RELION writes "none"
        return pd.DataFrame({"rlnCoordinateX": [], "rlnCoordinateY": []}, dtype=float)
    there = ", ".join(map(str, tables[0].columns)) if tables else "no table"
    raise TableError(
        str(path),
        must="have columns rlnCoordinateX and rlnCoordinateY",
        got=there or "no columns",
        remedy="Give a file of coordinates",
    )


def _pick_rows(table: pd.DataFrame, optics: pd.DataFrame | None, path: Path) -> pd.DataFrame:
    groups = None
    if optics is not None and PARTICLE_OPTICS["pixel_size"] in optics.columns:
        groups = from_relion(optics, PARTICLE_OPTICS, path)
    return particle_rows_from_relion(table, groups, path)


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    filled = [t for t in tables if len(t)]
    if filled:
        return pd.concat(filled, ignore_index=True)
    empty = {"micrograph": pd.Series([], dtype="str"), "x": [], "y": []}
    return tables[0] if tables else pd.DataFrame(empty).astype({"x": float, "y": float})


def _read_files(files: dict[str, Path], source: Path, refused: list[CryopickError] | None) -> Picks:
    """Read one file per micrograph, by name of the micrograph."""
    raw: dict[str, pd.DataFrame] = {}
    for name, file in files.items():
        try:
            raw[name] = _coordinates(read_star(file), file)
        except CryopickError as error:
            if refused is None:
                raise
            refused.append(error)
    try:  # convert all at once: each small table would take longer than to read it
        rows = _pick_rows(_joined(list(raw.values())), None, source)
    except CryopickError:
        return _read_one_by_one({name: files[name] for name in raw}, source, refused)
    names = np.repeat(np.array(list(raw), object), [len(t) for t in raw.values()])
    rows = rows.drop(columns=[c for c in ("micrograph",) if c in rows.columns])
    rows.insert(0, "micrograph", pd.Series(names, index=rows.index, dtype="str"))
    attributes = {"micrographs": list(raw), **_score_of([files[name] for name in raw])}
    return Picks(rows=rows, source=source, attributes=attributes)


def _read_one_by_one(
    files: dict[str, Path], source: Path, refused: list[CryopickError] | None
) -> Picks:
    """Find out which file it is that cannot be converted."""
    tables = {}
    for name, file in files.items():
        try:
            tables[name] = picks_of_file(file, name)
        except CryopickError as error:
            if refused is None:
                raise
            refused.append(error)
    rows = _joined(list(tables.values()))
    attributes = {"micrographs": list(tables), **_score_of([files[name] for name in tables])}
    return Picks(rows=rows, source=source, attributes=attributes)


def _score_of(files: Sequence[Path]) -> dict[str, object]:
    """Ask the first file what its scores mean: those of one list come from one picker."""
    score = read_pick_score(files[0]) if files else UNKNOWN
    return {} if score == UNKNOWN else {"score": score}


def _read_listed(
    path: Path, block: str, table: pd.DataFrame, refused: list[CryopickError] | None
) -> Picks:
    if "rlnMicrographName" not in table.columns:
        raise TableError(
            f"{path}, data_{block},",
            must="have a column rlnMicrographName",
            got=", ".join(map(str, table.columns)),
            remedy="Give RELION's list of coordinate files",
        )
    require_unique_keys(table["rlnMicrographName"], table=str(path))
    pairs = zip(table["rlnMicrographName"], table["rlnMicrographCoordinates"], strict=True)
    return _read_files({str(n): resolve_path(str(f), path) for n, f in pairs}, path, refused)


def _read_coords_suffix(path: Path, refused: list[CryopickError] | None) -> Picks:
    """Read RELION 3's list: its name holds the suffix, its line the table of micrographs."""
    text = path.read_text(errors="replace") if path.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != 1:
        raise TableError(
            str(path),
            must="hold one line, the path of the micrographs STAR file",
            got=f"{len(lines)} lines" if path.is_file() else "no such file",
            remedy="Give the folder of coordinate files instead",
        )
    suffix = path.name.removeprefix("coords_suffix")
    micrographs = read_micrographs(resolve_path(lines[0], path), pixel_size=1.0)
    names = [str(n) for n in micrographs.rows["micrograph"]]
    files = {n: path.parent / (micrograph_key(n) + suffix) for n in names}
    there = {n: f for n, f in files.items() if f.exists()}
    if names and not there:
        raise TableError(
            str(path),
            must=f"lie beside files that end in {suffix}",
            got=f"no {files[names[0]]}",
            remedy="Give the folder of coordinate files instead",
        )
    return _read_files(there, path, refused)


def _read_folder(folder: Path, refused: list[CryopickError] | None) -> Picks:
    for name in ("autopick.star", "manualpick.star"):
        if (folder / name).is_file():
            return read_picks(folder / name, refused=refused)
    suffixes = sorted(folder.glob("coords_suffix_*.star"))
    if len(suffixes) == 1:
        return read_picks(suffixes[0], refused=refused)
    files = [
        f
        for f in sorted(folder.rglob("*.star"))
        if f.name not in _NOT_COORDINATES and not f.name.startswith("coords_suffix")
    ]
    if not files:
        raise TableError(
            str(folder), must="hold coordinate files", got="no STAR file", remedy="Check the path"
        )
    named = {coordinate_stem(str(f.relative_to(folder))) + ".mrc": f for f in files}
    return _read_files(named, folder, refused)


def write_picks_file(path: Path, rows: pd.DataFrame, *, score: PickScore = UNKNOWN) -> None:
    """Write the picks of one micrograph: RELION's five columns first, then the others.

    Parameters
    ----------
    path
        ``<micrograph key>_autopick.star``.
    rows
        x, y in px and any other column; `micrograph` is left out, for the file's name says it.
        Where they are missing, `class_number` and `psi` are written as 0, as RELION does.
    score
        What `fom` means, said in a comment above the table.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    table = rows.drop(columns=[c for c in ("micrograph",) if c in rows.columns])
    for name in ("class_number", "psi"):
        if name not in table.columns:
            table = table.assign(**{name: 0 if name == "class_number" else 0.0})
    if "image" in table.columns and "image_index" in table.columns:
        table = table.assign(image=join_image_names(table["image"], table["image_index"]))
        table = table.drop(columns="image_index")
    meaning = "" if score == UNKNOWN else score_comment(score) + "\n# "
    write_star(path, {"": to_relion(table, PICK_ROWS)}, comment=f"{meaning}version 30001")


def write_coordinate_files(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Write the list that RELION 4 and 5 know picks by (``autopick.star``).

    Parameters
    ----------
    path
        Where to.
    pairs
        Name of a micrograph and path of its coordinate file.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    columns = ["rlnMicrographName", "rlnMicrographCoordinates"]
    table = pd.DataFrame(list(pairs), columns=columns, dtype="str")
    write_star(path, {"coordinate_files": table}, comment="version 50001")


def write_coords_suffix(path: Path, micrographs: str) -> None:
    """Write the one-line file that RELION 3 knows picks by (``coords_suffix_autopick.star``).

    Parameters
    ----------
    path
        Where to: the folder above the coordinate files.
    micrographs
        Path of the STAR file of micrographs.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    write_text(path, micrographs + "\n")


def write_summary(
    path: Path, micrographs: Sequence[str], counts: Sequence[int], mean_foms: Sequence[float]
) -> None:
    """Write picks and mean figure of merit of each micrograph, as RELION's ``summary.star``.

    Parameters
    ----------
    path
        Where to.
    micrographs, counts, mean_foms
        One entry per micrograph, in one order.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    table = pd.DataFrame(
        {
            "rlnMicrographName": pd.Series(list(micrographs), dtype="str"),
            "rlnAutopickFigureOfMerit": pd.Series(list(mean_foms), dtype=float),
            "rlnGroupNrParticles": pd.Series(list(counts), dtype=int),
        }
    )
    write_star(path, {"": table}, comment="version 50001")
