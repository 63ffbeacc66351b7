"""Scipion's sets of coordinates, particles and micrographs (``.sqlite``).

Disabled items are left out (``rows.attrs["n_disabled"]`` counts them). A 2D alignment is the
matrix that moves the image onto its class in px, x' = M x: it rotates, mirrors, then shifts. The
matrix of a projection is the inverse of RELION's rotation with minus its shift, in px.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import FormatError, TableError
from cryopick.io.scipion_sqlite import (
    ScipionItems,
    ScipionSet,
    read_scipion_set,
    write_scipion_set,
)
from cryopick.tables.eman import whole_pixels
from cryopick.tables.inplane import (
    euler_to_matrix,
    matrix_to_euler,
    shift_after_rotation,
    shift_before_rotation,
)
from cryopick.tables.model import Micrographs, Particles, Picks, require_columns

__all__ = [
    "WORDS",
    "read_scipion_micrographs",
    "read_scipion_particles",
    "read_scipion_picks",
    "scipion_particles",
    "write_scipion_particles",
    "write_scipion_picks",
]

_FOMS = ("_rlnAutopickFigureOfMerit", "_cryoloScore", "_xmipp_zScoreDeepLearning1", "_xmipp_cost")
_COORDINATE = {"_micName": "micrograph", "_x": "x", "_y": "y", "_rlnAnglePsi": "psi"}
_COORDINATE |= {"_rlnClassNumber": "class_number"}
_CTF = {
    "_defocusU": "defocus_u",
    "_defocusV": "defocus_v",
    "_defocusAngle": "defocus_angle",
    "_phaseShift": "phase_shift",
    "_resolution": "ctf_max_resolution",
    "_fitQuality": "ctf_fom",
}
_ACQUISITION = {
    "_voltage": "voltage",
    "_sphericalAberration": "spherical_aberration",
    "_amplitudeContrast": "amplitude_contrast",
}
_OWN = ("id", "enabled", "_micId")
_FLOATS = ("Float", "Integer")
WORDS = frozenset({*_COORDINATE.values(), *_CTF.values()}) | {
    *("image", "image_index", "optics_group", "rot", "tilt", "shift_x", "shift_y", "flip"),
}  # columns written with particles


def read_scipion_picks(path: Path) -> Picks:
    """Read a SetOfCoordinates.

    Returns
    -------
    Picks
        Centres; ``attributes["box_size"]`` where the set has one.

    Raises
    ------
    FormatError
        If the file is missing or is no set of coordinates.
    """
    found = _read(path, "Coordinate")
    rows = _enabled(found)
    n_disabled = rows.attrs["n_disabled"]
    score = next((name for name in _FOMS if name in rows), None)
    rows = rows.rename(columns={**_COORDINATE, **({score: "fom"} if score else {})})
    if "micrograph" not in rows and "_micId" in rows:
        rows["micrograph"] = [f"{int(i)}" for i in rows["_micId"]]
    for name in ("micrograph", "x", "y"):
        if name not in rows and not len(rows):
            rows[name] = pd.Series(dtype=object if name == "micrograph" else np.float64)
    require_columns(rows, ("micrograph", "x", "y"), table=str(path))
    rows = rows.astype({n: np.float64 for n in ("x", "y", "fom", "psi") if n in rows})
    rows = rows.drop(columns=[c for c in _OWN if c in rows])
    rows.attrs["n_disabled"] = n_disabled
    size = found.properties.get("_boxSize")
    is_known = size not in (None, "None", "", "0")
    attributes: dict[str, object] = {"box_size": int(float(str(size)))} if is_known else {}
    return Picks(rows=rows, source=path, attributes=attributes)


def _read(path: Path, item_class: str) -> ScipionSet:
    found = read_scipion_set(path)
    if found.item_class and found.item_class != item_class:
        raise FormatError(
            str(path),
            must=f"be a set of {item_class.lower()}s",
            got=f"a set of {found.item_class}",
            remedy="Give another .sqlite file of the protocol",
        )
    return found


def _enabled(found: ScipionSet) -> pd.DataFrame:
    is_kept = found.rows["enabled"].to_numpy() != 0
    # rows of nested objects hold nothing: their values are in the rows of their attributes
    nested = {n for n in found.classes for m in found.classes if m.startswith(f"{n}.")}
    rows = found.rows.loc[is_kept].drop(columns=[c for c in nested if c in found.rows])
    kept: pd.DataFrame = rows.reset_index(drop=True)
    kept.attrs["n_disabled"] = int((~is_kept).sum())
    return kept


def write_scipion_picks(path: Path, rows: pd.DataFrame, *, box_size: int | None = None) -> None:
    """Write a SetOfCoordinates; positions are rounded to whole pixels.

    Parameters
    ----------
    path
        The ``.sqlite`` file.
    rows
        micrograph, x, y and maybe fom, class_number and psi.
    box_size
        Side of the boxes in px.
    """
    require_columns(rows, ("micrograph", "x", "y"), table="picks")
    attributes = [("_x", "Integer"), ("_y", "Integer"), ("_micId", "Integer")]
    attributes.append(("_micName", "String"))
    values: dict[str, list[Any]] = {
        "_x": whole_pixels(rows["x"]).tolist(),
        "_y": whole_pixels(rows["y"]).tolist(),
        "_micId": (pd.factorize(rows["micrograph"])[0] + 1).tolist(),
        "_micName": [str(name) for name in rows["micrograph"]],
    }
    extras = (("fom", _FOMS[0], "Float"), ("class_number", "_rlnClassNumber", "Integer"))
    for name, attribute, kind in (*extras, ("psi", "_rlnAnglePsi", "Float")):
        if name in rows:
            attributes.append((attribute, kind))
            values[attribute] = rows[name].tolist()
    write_scipion_set(
        path,
        set_class="SetOfCoordinates",
        items=ScipionItems(
            item_class="Coordinate", attributes=attributes, values=values, count=len(rows)
        ),
        properties={"_boxSize": box_size, "_micrographsPointer": ""},
    )


def read_scipion_particles(path: Path, *, pixel_size: float | None = None) -> Particles:
    """Read a SetOfParticles.

    Parameters
    ----------
    path
        The ``.sqlite`` file.
    pixel_size
        A/px of the images; without it _samplingRate is taken.

    Returns
    -------
    Particles
        ``flip`` is 1 where the image is mirrored in x after the rotation.

    Raises
    ------
    FormatError
        If the file is missing or is no set of particles.
    TableError
        If the pixel size is not known.
    """
    found = _read(path, "Particle")
    rows, optics, pixels = _common(found, path, pixel_size)
    number = rows["_index"].to_numpy(np.int64) if "_index" in rows else np.zeros(len(rows), "i8")
    rows["image_index"] = np.maximum(number - 1, 0)  # 0 says that the file is one image
    names = {"_filename": "image", "_classId": "class_number"}
    names |= {f"_coordinate.{name}": word for name, word in _COORDINATE.items()}
    rows = rows.rename(columns=names).drop(columns=[c for c in ("_index",) if c in rows])
    rows = rows.loc[:, ~rows.columns.str.startswith("_coordinate.")]
    if "class_number" in rows and rows["class_number"].isna().all():
        rows = rows.drop(columns="class_number")
    if "_transform._matrix" in rows:
        stored = rows.pop("_transform._matrix")
        rows = rows.assign(**_alignment(stored, pixels, found.properties.get("_alignment", "")))
    n_disabled = int((found.rows["enabled"] == 0).sum())
    rows.attrs["n_disabled"] = n_disabled
    if "image" not in rows and not len(rows):
        rows["image"] = pd.Series(dtype=object)
    return Particles(rows=rows, optics=optics, source=path)


def read_scipion_micrographs(path: Path, *, pixel_size: float | None = None) -> Micrographs:
    """Read a SetOfMicrographs.

    Raises
    ------
    FormatError
        If the file is missing or is no set of micrographs.
    TableError
        If the pixel size is not known.
    """
    found = _read(path, "Micrograph")
    rows, optics, _ = _common(found, path, pixel_size)
    rows = rows.rename(columns={"_filename": "micrograph"})
    return Micrographs(rows=rows, optics=optics, source=path)


def _common(
    found: ScipionSet, path: Path, pixel_size: float | None
) -> tuple[pd.DataFrame, pd.DataFrame, NDArray[np.float64]]:
    rows = _enabled(found)
    n_disabled = rows.attrs["n_disabled"]
    pixels = _pixel_sizes(rows, found, path, pixel_size)
    lens = pd.DataFrame({"pixel_size": pixels})
    for name, word in _ACQUISITION.items():
        if f"_acquisition.{name}" in rows:
            lens[word] = rows[f"_acquisition.{name}"].astype(np.float64)
    if (size := str(found.properties.get("_firstDim", "")).strip("()").split(",")[0]).isdigit():
        lens["box_size"] = int(size)
    numbers = lens.groupby(list(lens.columns), sort=False, dropna=False).ngroup().to_numpy() + 1
    optics = lens.drop_duplicates().reset_index(drop=True)
    optics.insert(0, "optics_group", np.arange(1, len(optics) + 1))
    optics.insert(1, "optics_group_name", [f"opticsGroup{i}" for i in optics["optics_group"]])
    rows = rows.rename(columns={f"_ctfModel.{name}": word for name, word in _CTF.items()})
    dropped = rows.columns.str.startswith(("_acquisition.", "_ctfModel.")) | rows.columns.isin(
        [*_OWN, "_samplingRate"]
    )
    rows = rows.loc[:, ~dropped].assign(optics_group=numbers.astype(np.int64))
    rows.attrs["n_disabled"] = n_disabled
    return rows, optics, pixels


def _pixel_sizes(
    rows: pd.DataFrame, found: ScipionSet, path: Path, pixel_size: float | None
) -> NDArray[np.float64]:
    if pixel_size is not None:
        return np.full(len(rows), pixel_size)
    if "_samplingRate" in rows:
        return rows["_samplingRate"].to_numpy(np.float64)
    try:
        return np.full(len(rows), float(found.properties["_samplingRate"]))
    except (KeyError, ValueError) as error:
        raise TableError(
            str(path),
            must="say the pixel size (_samplingRate)",
            got="none",
            remedy="Add --pixel-size",
        ) from error


def _alignment(
    stored: pd.Series, pixels: NDArray[np.float64], kind: str
) -> dict[str, NDArray[Any]]:
    one = np.eye(4)
    matrices = np.array([json.loads(text) if text else one for text in stored], dtype=np.float64)
    matrices = matrices.reshape(-1, 4, 4)
    if kind not in ("2D", "3D", "Projection") and not len(matrices):
        return {}
    is_flat = np.allclose(np.abs(matrices[:, 2, 2]), 1) and kind not in ("3D", "Projection")
    if is_flat:
        is_flipped = np.linalg.det(matrices[:, :2, :2]) < 0
        mirror = np.where(is_flipped, -1.0, 1.0)
        psi = np.rad2deg(np.arctan2(matrices[:, 1, 0], mirror * matrices[:, 0, 0])) + 0.0
        x, y = shift_before_rotation(psi, matrices[:, 0, 3], matrices[:, 1, 3], is_flipped)
        found = {"psi": psi, "shift_x": x * pixels, "shift_y": y * pixels}
        return {**found, "flip": is_flipped.astype(np.int64)} if is_flipped.any() else found
    inverse: NDArray[np.float64] = np.linalg.inv(matrices).astype(np.float64)
    rot, tilt, psi = matrix_to_euler(inverse[:, :3, :3])
    x, y = -inverse[:, 0, 3] * pixels, -inverse[:, 1, 3] * pixels
    return {"rot": rot, "tilt": tilt, "psi": psi, "shift_x": x, "shift_y": y}


def write_scipion_particles(path: Path, particles: Particles) -> None:
    """Write a SetOfParticles.

    Parameters
    ----------
    path
        The ``.sqlite`` file.
    particles
        With CTF, position and alignment where the table has them.
    """
    items, properties = scipion_particles(particles)
    write_scipion_set(path, set_class="SetOfParticles", items=items, properties=properties)


def scipion_particles(particles: Particles) -> tuple[ScipionItems, dict[str, object]]:
    """Put particles into Scipion's columns.

    Returns
    -------
    tuple of ScipionItems and dict
        The particles, and what is said of their set.
    """
    rows = particles.rows.reset_index(drop=True)
    optics = particles.optics.set_index("optics_group").loc[rows["optics_group"]]
    pixels = optics["pixel_size"].to_numpy(np.float64)
    attributes = [("_index", "Integer"), ("_filename", "String"), ("_samplingRate", "Float")]
    values: dict[str, list[Any]] = {
        "_index": (rows["image_index"] + 1).tolist(),
        "_filename": [str(name) for name in rows["image"]],
        "_samplingRate": pixels.tolist(),
    }
    lens = {n: optics[w].tolist() for n, w in _ACQUISITION.items() if w in optics}
    ctf = {n: rows[w].tolist() for n, w in _CTF.items() if w in rows}
    _nest(attributes, values, "_acquisition", "Acquisition", lens)
    _nest(attributes, values, "_ctfModel", "CTFModel", ctf if "_defocusU" in ctf else {})
    matrices, kind = _matrices(rows, pixels)
    if kind != "None":
        attributes += [("_transform", "Transform"), ("_transform._matrix", "Matrix")]
        values["_transform._matrix"] = [json.dumps(m.tolist()) for m in matrices]
    if {"micrograph", "x", "y"} <= set(rows.columns):
        _add_coordinates(attributes, values, rows)
    if "class_number" in rows:
        attributes.append(("_classId", "Integer"))
        values["_classId"] = rows["class_number"].tolist()
    properties: dict[str, object] = {
        "_samplingRate": float(particles.optics["pixel_size"].iloc[0]),
        "_hasCtf": "_defocusU" in ctf,
        "_alignment": kind,
        "_isPhaseFlipped": False,
        "_isAmplitudeCorrected": False,
    }
    if "box_size" in optics and len(optics):
        side = int(optics["box_size"].iloc[0])
        properties["_firstDim"] = f"{side},{side},1"
    properties |= {
        f"_acquisition.{n}": particles.optics[w].iloc[0]
        for n, w in _ACQUISITION.items()
        if n in lens
    }
    items = ScipionItems(
        item_class="Particle", attributes=attributes, values=values, count=len(rows)
    )
    return items, properties


def _nest(
    attributes: list[tuple[str, str]],
    values: dict[str, list[Any]],
    name: str,
    kind: str,
    content: dict[str, list[Any]],
) -> None:
    if not content:
        return
    attributes.append((name, kind))
    for key, column in content.items():
        attributes.append((f"{name}.{key}", "Float"))
        values[f"{name}.{key}"] = column


def _add_coordinates(
    attributes: list[tuple[str, str]], values: dict[str, list[Any]], rows: pd.DataFrame
) -> None:
    numbers = (pd.factorize(rows["micrograph"])[0] + 1).tolist()
    attributes.append(("_coordinate", "Coordinate"))
    attributes += [(f"_coordinate.{n}", "Integer") for n in ("_x", "_y", "_micId")]
    attributes += [("_coordinate._micName", "String"), ("_micId", "Integer")]
    values["_coordinate._x"] = whole_pixels(rows["x"]).tolist()
    values["_coordinate._y"] = whole_pixels(rows["y"]).tolist()
    values["_coordinate._micId"] = values["_micId"] = numbers
    values["_coordinate._micName"] = [str(name) for name in rows["micrograph"]]


def _matrices(rows: pd.DataFrame, pixels: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    matrices = np.broadcast_to(np.eye(4), (len(rows), 4, 4)).copy()
    if "psi" not in rows and "shift_x" not in rows:
        return matrices, "None"
    zero = np.zeros(len(rows))
    rot, tilt, psi, x, y, flip = (
        rows[n].to_numpy(np.float64) if n in rows else zero
        for n in ("rot", "tilt", "psi", "shift_x", "shift_y", "flip")
    )
    x, y = x / pixels, y / pixels
    if ((rot != 0) | (tilt != 0)).any():
        matrices[:, :3, :3] = euler_to_matrix(rot, tilt, psi)
        matrices[:, 0, 3], matrices[:, 1, 3] = -x, -y
        return np.linalg.inv(matrices).astype(np.float64), "Projection"
    cosine, sine = np.cos(np.deg2rad(psi)), np.sin(np.deg2rad(psi))
    mirror = np.where(flip == 1, -1.0, 1.0)
    matrices[:, 0, 0], matrices[:, 0, 1] = mirror * cosine, -mirror * sine
    matrices[:, 1, 0], matrices[:, 1, 1] = sine, cosine
    matrices[:, 2, 2] = mirror
    matrices[:, 0, 3], matrices[:, 1, 3] = shift_after_rotation(psi, x, y, flip == 1)
    return matrices, "2D"
