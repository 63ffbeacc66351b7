"""Positions in tomograms as IMOD keeps them: binary models (.mod) and lists of points.

Both are in model coordinates: voxels of the volume, where the centre of voxel (ix, iy, iz) is at
(ix + 0.5, iy + 0.5, iz). A model may remember an image whose origin lies elsewhere (its MINX
record); then its points are moved. Layout from IMOD's description of its binary format,
bio3d.colorado.edu/imod/doc/binspec.html; all numbers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.atomic import write_text, writing
from cryopick.tables.tomograms import TomogramPicks, tomogram_of

__all__ = ["read_imod", "read_points", "write_imod", "write_points"]

_AXES = ("x", "y", "z")
_CENTRE = np.array([0.5, 0.5, 0.0])  # of the first voxel, in model coordinates
_ID = b"IMODV1.2"
_MODEL = struct.Struct(">128s9i6f5if2i3f")
_OBJECT = struct.Struct(">128siIii3fi8B2i")
_CONTOUR = struct.Struct(">iIii")
_HAS_ORIGIN = 1 << 14  # of the model: MINX tells where the image began
_SCATTERED = (1 << 9) | (1 << 3)  # of an object: points that no line joins
_NANOMETRE = -9
_COLOURS = ((0.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.3, 0.2))


def write_imod(path: Path, picks: TomogramPicks) -> None:
    """Write the picks of one tomogram as a model: one object for each kind, of scattered points.

    Parameters
    ----------
    path
        Where to.
    picks
        Of one tomogram. Points are drawn as spheres of the kind's median diameter.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    tomogram = picks.tomograms.iloc[0]
    size = float(tomogram["voxel_size"])
    kinds = picks.rows["kind"] if "kind" in picks.rows else pd.Series(0, index=picks.rows.index)
    numbers = sorted(kinds.unique()) or [0]
    extent = [int(tomogram[n]) for n in ("nx", "ny", "nz")]
    head = [*extent, len(numbers), 0, 1, 1, 0, 255, *([0.0] * 3), *([1.0] * 3), 0, 0, 0, 3, 128]
    with writing(path) as handle:
        handle.write(_ID)
        handle.write(_MODEL.pack(b"cryopick", *head, size / 10, _NANOMETRE, 0, 0.0, 0.0, 0.0))
        for place, kind in enumerate(numbers):
            rows = picks.rows[kinds == kind]
            points = rows[list(_AXES)].to_numpy(np.float64) / size + _CENTRE
            radius = 5
            if "diameter" in rows and len(rows):
                radius = max(1, round(float(rows["diameter"].median()) / size / 2))
            name = f"kind {kind}" if kind else "picks"
            colour = _COLOURS[place % len(_COLOURS)]
            looks = (1, 3, 1, 1, 0, 0, 0, 0)
            handle.write(b"OBJT")
            handle.write(
                _OBJECT.pack(name.encode(), 1, _SCATTERED, 0, 1, *colour, radius, *looks, 0, 0)
            )
            handle.write(b"CONT" + _CONTOUR.pack(len(points), 0, 0, 0))
            handle.write(points.astype(">f4").tobytes())
        handle.write(b"IEOF")


def read_imod(path: Path, *, tomogram: str, tomograms: pd.DataFrame) -> TomogramPicks:
    """Read all points of a model.

    Parameters
    ----------
    path
        A binary model.
    tomogram
        That it was drawn on, which the file does not say.
    tomograms
        Must hold it (`tomogram_table`).

    Returns
    -------
    TomogramPicks
        The kind is the number of the object, from 1.

    Raises
    ------
    FormatError
        If the file is no IMOD model, or is cut short.
    """
    size = float(tomogram_of(tomogram, tomograms, source=str(path))["voxel_size"])
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _refusal(path, error.strerror or str(error)) from error
    if not raw.startswith(_ID) or len(raw) < len(_ID) + _MODEL.size:
        raise _refusal(path, f"{raw[:8]!r} at its beginning")
    flags = _MODEL.unpack_from(raw, len(_ID))[5]
    shift = np.zeros(3)
    parts, kind = [], 0
    try:
        for name, body in _chunks(raw):
            if name == b"OBJT":
                kind += 1
            elif name == b"CONT":
                points = np.frombuffer(body, ">f4").reshape(-1, 3).astype(np.float64)
                parts.append((kind, points))
            elif name == b"MINX" and flags & _HAS_ORIGIN:
                old_origin, _, scale, origin = np.frombuffer(body, ">f4")[3:15].reshape(4, 3)
                shift = (old_origin - origin) / scale
    except (struct.error, ValueError) as error:
        raise _refusal(path, "a file cut short") from error
    places = np.concatenate([p for _, p in parts] or [np.zeros((0, 3))])
    rows = _rows(places + shift, tomogram, size)
    rows["kind"] = np.repeat([k for k, _ in parts], [len(p) for _, p in parts]).astype(np.int64)
    return TomogramPicks(rows=rows, tomograms=tomograms, source=path)


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Split a model into its records; those of objects and contours do not tell their length."""
    place = len(_ID) + _MODEL.size
    while True:
        name, place = raw[place : place + 4], place + 4
        if name == b"IEOF":
            return
        if len(name) < 4:
            raise ValueError("no end")
        if name == b"OBJT":
            length = _OBJECT.size
        elif name == b"CONT":
            length = 12 * _CONTOUR.unpack_from(raw, place)[0]
            place += _CONTOUR.size
        elif name == b"MESH":  # vertices of 12 bytes and a list of integers
            vertices, indices = struct.unpack_from(">2i", raw, place)
            place += 16
            length = 12 * vertices + 4 * indices
        else:
            length = struct.unpack_from(">i", raw, place)[0]
            place += 4
        if length < 0 or place + length > len(raw):
            raise ValueError("cut short")
        yield name, raw[place : place + length]
        place += length


def write_points(path: Path, picks: TomogramPicks) -> None:
    """Write the picks of one tomogram as text, x y z of a point in each line, for point2model."""
    points = picks.in_voxels()[:, ::-1] + _CENTRE
    write_text(path, "".join(f"{x:.3f} {y:.3f} {z:.3f}\n" for x, y, z in points))


def read_points(path: Path, *, tomogram: str, tomograms: pd.DataFrame) -> TomogramPicks:
    """Read a list of points as model2point writes it: the last three numbers of a line count.

    Parameters
    ----------
    path
        Text; object and contour numbers may stand before the position.
    tomogram
        That it was drawn on.
    tomograms
        Must hold it (`tomogram_table`).

    Raises
    ------
    FormatError
        If a line is not numbers.
    """
    size = float(tomogram_of(tomogram, tomograms, source=str(path))["voxel_size"])
    try:
        words = [line.replace(",", " ").split() for line in path.read_text().splitlines()]
        points = np.array([w[-3:] for w in words if w], float).reshape(-1, 3)
    except OSError as error:
        raise _refusal(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise _refusal(path, "a line that is not x y z") from error
    return TomogramPicks(rows=_rows(points, tomogram, size), tomograms=tomograms, source=path)


def _rows(points: NDArray[np.float64], tomogram: str, size: float) -> pd.DataFrame:
    rows = pd.DataFrame((points - _CENTRE) * size, columns=list(_AXES))
    rows.insert(0, "tomogram", tomogram)
    return rows


def _refusal(path: Path, got: str) -> FormatError:
    return FormatError(
        str(path), must="be a model or point list of IMOD", got=got.lower(), remedy="Check the path"
    )
