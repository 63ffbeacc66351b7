"""Positions in tomograms as the JSON of copick and the lines of the CryoET data portal.

copick counts A from the centre of the first voxel, the portal voxels from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.io.atomic import write_json, write_text
from cryopick.tables.tomogram_format_parameters import TomogramFormatParameters
from cryopick.tables.tomogram_text import unreadable
from cryopick.tables.tomograms import TomogramPicks, tomogram_of

__all__ = ["read_copick", "read_ndjson", "write_copick", "write_ndjson"]

_AXES = ("x", "y", "z")
_EULER = ("rot", "tilt", "psi")


def write_copick(
    folder: Path, picks: TomogramPicks, *, parameters: TomogramFormatParameters
) -> list[Path]:
    """Write one file for each tomogram and kind into a copick project.

    Parameters
    ----------
    folder
        Of the project; files go to ``ExperimentRuns/TOMOGRAM/Picks/USER_SESSION_OBJECT.json``.
    picks
        Kinds become objects of their own: ``particle-1``, ``particle-2``, ...
    parameters
        User, session and object.

    Returns
    -------
    list of Path
        What was written.
    """
    written = []
    for tomogram, part, name in _objects(picks, parameters.object_name):
        points = []
        for row, turn in zip(part.to_dict("records"), _matrices(part), strict=True):
            points.append(
                {
                    "location": {axis: float(row[axis]) for axis in _AXES},
                    "transformation_": np.block([[turn, np.zeros((3, 1))], [0, 0, 0, 1]]).tolist(),
                    "instance_id": 0,
                    "score": float(row.get("score", 1.0)),
                }
            )
        size = float(tomogram_of(tomogram, picks.tomograms, source="picks")["voxel_size"])
        path = folder / "ExperimentRuns" / tomogram / "Picks"
        path /= f"{parameters.user}_{parameters.session}_{name}.json"
        write_json(
            path,
            {
                "pickable_object_name": name,
                "user_id": parameters.user,
                "session_id": parameters.session,
                "run_name": tomogram,
                "voxel_spacing": round(size, 3),
                "unit": "angstrom",
                "points": points,
                "trust_orientation": _has_angles(part),
            },
        )
        written.append(path)
    return written


def read_copick(path: Path, *, tomograms: pd.DataFrame) -> TomogramPicks:
    """Read one file of picks, or all of a copick project.

    Raises
    ------
    FormatError
        If a file is no list of picks.
    TableError
        If a tomogram is not known.
    """
    files = sorted(path.glob("ExperimentRuns/*/Picks/*.json")) if path.is_dir() else [path]
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    for file in files:
        try:
            content = json.loads(file.read_text())
            points = content["points"]
            names.append(content["pickable_object_name"])
            run = content["run_name"]
            for point in points:
                moved = [row[3] for row in point.get("transformation_") or [[0] * 4] * 3][:3]
                at = {a: point["location"][a] + t for a, t in zip(_AXES, moved, strict=True)}
                rows.append(
                    {"tomogram": run, **at, "score": point.get("score", 1.0), "species": names[-1]}
                )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise unreadable(file, error) from error
    table = pd.DataFrame(rows, columns=["tomogram", *_AXES, "score", "species"])
    table["kind"] = [_kind(str(name)) for name in table["species"]]
    return TomogramPicks(rows=table, tomograms=tomograms, source=path)


def write_ndjson(
    folder: Path, picks: TomogramPicks, *, parameters: TomogramFormatParameters
) -> list[Path]:
    """Write one file for each tomogram and kind as the CryoET data portal keeps annotations.

    Parameters
    ----------
    folder
        Files are ``TOMOGRAM-OBJECT.ndjson``: a point or oriented point a line, in voxels.
    picks
        Kinds become objects of their own: ``particle-1``, ``particle-2``, ...
    parameters
        Name of the object.

    Returns
    -------
    list of Path
        What was written.
    """
    written = []
    for tomogram, part, name in _objects(picks, parameters.object_name):
        size = float(tomogram_of(tomogram, picks.tomograms, source="picks")["voxel_size"])
        is_oriented = _has_angles(part)
        lines = []
        for row, turn in zip(part.to_dict("records"), _matrices(part), strict=True):
            point: dict[str, Any] = {"type": "orientedPoint" if is_oriented else "point"}
            point["location"] = {axis: float(row[axis]) / size for axis in _AXES}
            if is_oriented:
                point["xyz_rotation_matrix"] = turn.tolist()
            lines.append(json.dumps(point))
        path = folder / f"{tomogram}-{name}.ndjson"
        write_text(path, "".join(f"{line}\n" for line in lines))
        written.append(path)
    return written


def read_ndjson(path: Path, *, tomogram: str, tomograms: pd.DataFrame) -> TomogramPicks:
    """Read the annotation of one tomogram.

    Parameters
    ----------
    path
        A point a line: point, orientedPoint or instancePoint.
    tomogram
        That it is of, which the file does not say.
    tomograms
        Must hold it (`tomogram_table`).

    Raises
    ------
    FormatError
        If a line is no point.
    """
    size = float(tomogram_of(tomogram, tomograms, source=str(path))["voxel_size"])
    rows = []
    try:
        for line in path.read_text().splitlines():
            if line.strip():
                point = json.loads(line)
                at = {axis: float(point["location"][axis]) * size for axis in _AXES}
                rows.append({"tomogram": tomogram, **at})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(path, error) from error
    table = pd.DataFrame(rows, columns=["tomogram", *_AXES])
    return TomogramPicks(rows=table, tomograms=tomograms, source=path)


def _objects(picks: TomogramPicks, name: str) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Split picks by tomogram and kind; a tomogram without picks has an empty table."""
    for tomogram in picks.tomograms["tomogram"]:
        rows = picks.of(tomogram).rows
        if "kind" not in rows or not len(rows):
            yield tomogram, rows, name
            continue
        for kind, part in rows.groupby(rows["kind"].astype(int)):
            yield tomogram, part, name if kind == 0 else f"{name}-{int(str(kind))}"


def _kind(name: str) -> int:
    """Take the number at the end of an object's name, 0 where there is none."""
    last = name.rpartition("-")[2]
    return int(last) if last.isdigit() and "-" in name else 0


def _has_angles(rows: pd.DataFrame) -> bool:
    return all(name in rows for name in _EULER)


def _matrices(rows: pd.DataFrame) -> Sequence[NDArray[np.float64]]:
    """Rotations from the particle to the tomogram, the identity where they are not known.

    The inverse of Rz(rot) Ry(tilt) Rz(psi): RELION's matrix takes the particle's coordinates to
    those of the image it is in.
    """
    if not _has_angles(rows):
        return [np.eye(3)] * len(rows)
    rot, tilt, psi = np.deg2rad(rows[list(_EULER)].to_numpy(np.float64)).T
    return [
        (_about_z(a) @ _about_y(b) @ _about_z(c)).T for a, b, c in zip(rot, tilt, psi, strict=True)
    ]


def _about_z(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _about_y(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
