"""cryoSPARC's ``.cs`` tables of exposures, picks and particles.

Positions are fractions of the micrograph's width and height, counted as its file counts rows
(cryoSPARC's motion correction turns some movies upside down against other programs: flip y then).
Shifts are px of their own psize_A and angles radians; in 2D both have RELION's sign, and a 3D pose
is the rotation vector of RELION's Euler matrix, as in pyem. Numbers count from 0, paths may start
with ``>``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import TableError
from cryopick.io.cryosparc import read_cs, write_cs
from cryopick.tables.inplane import euler_to_matrix, matrix_to_euler
from cryopick.tables.model import Micrographs, Particles, Picks, require_columns

__all__ = [
    "WORDS",
    "read_cs_micrographs",
    "read_cs_particles",
    "read_cs_picks",
    "write_cs_particles",
    "write_cs_picks",
]

_ROWS = {
    "ctf/df1_A": "defocus_u",
    "ctf/df2_A": "defocus_v",
    "ctf/bfactor": "ctf_bfactor",
    "ctf/ctf_fit_to_A": "ctf_max_resolution",
    "ctf/cross_corr_ctffind4": "ctf_fom",
    "ctf/scale": "ctf_scale",
    "pick_stats/ncc_score": "fom",
}
_RADIANS = {"ctf/df_angle_rad": "defocus_angle", "ctf/phase_shift_rad": "phase_shift"}
_OPTICS = {
    "ctf/accel_kv": "voltage",
    "ctf/cs_mm": "spherical_aberration",
    "ctf/amp_contrast": "amplitude_contrast",
    "mscope_params/accel_kv": "voltage",
    "mscope_params/cs_mm": "spherical_aberration",
}
_GROUP = "exp_group_"
WORDS = frozenset({*_ROWS.values(), *_RADIANS.values()} - {"fom"}) | {
    *("image", "image_index", "optics_group", "micrograph", "x", "y", "uid"),
    *("rot", "tilt", "psi", "shift_x", "shift_y", "class_number"),
}  # columns written


def read_cs_particles(path: Path, *, passthrough: Sequence[Path] = ()) -> Particles:
    """Read particle images.

    Parameters
    ----------
    path
        ``particles.cs`` or an export of it.
    passthrough
        The ``passthrough_particles.cs`` files of the job, which hold the fields that the job
        itself did not change; joined by uid.

    Returns
    -------
    Particles
        One optics group for each exposure group, pixel size, box and lens. Fields of one number
        that cryopick has no word for keep their name (``uid``, ``blob/sign``).

    Raises
    ------
    FormatError
        If a file cannot be read.
    TableError
        If there is no blob/path, or a passthrough lacks a particle.
    """
    table = _read(path, passthrough)
    _require(table, ("blob/path", "blob/idx", "blob/psize_A"), path)
    rows = pd.DataFrame(
        {"image": _texts(table["blob/path"]), "image_index": table["blob/idx"].astype(np.int64)}
    )
    rows = pd.concat([rows, _locations(table), _common(table), _alignments(table)], axis=1)
    lens = {"pixel_size": table["blob/psize_A"].astype(np.float64)}
    if "blob/shape" in table:
        lens["box_size"] = table["blob/shape"][:, 0].astype(np.int64)
    if "location/micrograph_psize_A" in table:
        lens["micrograph_pixel_size"] = table["location/micrograph_psize_A"].astype(np.float64)
    rows["optics_group"], optics = _optics(table, lens)
    return Particles(rows=pd.concat([rows, _unknown(table)], axis=1), optics=optics, source=path)


def read_cs_picks(path: Path, *, passthrough: Sequence[Path] = ()) -> Picks:
    """Read picked positions.

    Raises
    ------
    FormatError
        If a file cannot be read.
    TableError
        If the positions or the names of the micrographs are not in the files.
    """
    table = _read(path, passthrough)
    names = ("path", "shape")
    _require(table, [f"location/micrograph_{n}" for n in names], path)
    _require(table, ("location/center_x_frac", "location/center_y_frac"), path)
    rows = pd.concat([_locations(table), _common(table), _unknown(table)], axis=1)
    return Picks(rows=rows, source=path)


def read_cs_micrographs(path: Path, *, passthrough: Sequence[Path] = ()) -> Micrographs:
    """Read exposures as micrographs.

    Raises
    ------
    FormatError
        If a file cannot be read.
    TableError
        If there is no micrograph_blob.
    """
    table = _read(path, passthrough)
    _require(table, ("micrograph_blob/path", "micrograph_blob/psize_A"), path)
    rows = pd.DataFrame({"micrograph": _texts(table["micrograph_blob/path"])})
    rows = pd.concat([rows, _common(table)], axis=1)
    lens = {"pixel_size": table["micrograph_blob/psize_A"].astype(np.float64)}
    rows["optics_group"], optics = _optics(table, lens)
    return Micrographs(rows=pd.concat([rows, _unknown(table)], axis=1), optics=optics, source=path)


def _read(path: Path, passthrough: Sequence[Path]) -> dict[str, NDArray[Any]]:
    array = read_cs(path)
    table = {name: array[name] for name in array.dtype.names or ()}
    for other in passthrough:
        more = read_cs(other)
        if "uid" not in table or "uid" not in (more.dtype.names or ()):
            raise TableError(
                str(other), must="have a field uid", got="none", remedy="Give the file of that job"
            )
        order = np.argsort(more["uid"])
        place = np.searchsorted(more["uid"][order], table["uid"])
        place = order[np.minimum(place, len(order) - 1)] if len(order) else place
        if not len(order) or not np.array_equal(more["uid"][place], table["uid"]):
            raise TableError(
                str(other),
                must=f"have every uid of {path.name}",
                got="others",
                remedy="Give the passthrough file of the same job",
            )
        table |= {n: more[n][place] for n in more.dtype.names or () if n not in table}
    return table


def _require(table: Mapping[str, object], names: Sequence[str], path: Path) -> None:
    for name in names:
        if name not in table:
            raise TableError(
                str(path),
                must=f"have the field {name}",
                got=", ".join(dict.fromkeys(n.partition("/")[0] for n in table)),
                remedy="It may be in the passthrough file of the job: add --passthrough",
            )


def _texts(values: NDArray[Any]) -> list[str]:
    found = (v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist())
    return [text.removeprefix(">") for text in found]


def _locations(table: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    found: dict[str, Any] = {}
    if "location/micrograph_path" in table:
        found["micrograph"] = _texts(table["location/micrograph_path"])
    if "location/center_x_frac" in table and "location/micrograph_shape" in table:
        shape = table["location/micrograph_shape"].astype(np.float64)  # rows, columns
        found["x"] = table["location/center_x_frac"].astype(np.float64) * shape[:, 1]
        found["y"] = table["location/center_y_frac"].astype(np.float64) * shape[:, 0]
    return pd.DataFrame(found, index=range(_length(table)))


def _common(table: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    found = {name: table[f].astype(np.float64) for f, name in _ROWS.items() if f in table}
    turned = {n: np.rad2deg(table[f].astype(np.float64)) for f, n in _RADIANS.items() if f in table}
    return pd.DataFrame({**found, **turned}, index=range(_length(table)))


def _alignments(table: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    """3D before 2D, as the later step; a multi-class job's further poses stay unread."""
    found: dict[str, Any] = {}
    group = next((g for g in ("alignments3D", "alignments2D") if f"{g}/shift" in table), "")
    if group:
        own = table.get(f"{group}/psize_A", table["blob/psize_A"]).astype(np.float64)
        shift = table[f"{group}/shift"].astype(np.float64) * own[:, None]
        found |= {"shift_x": shift[:, 0], "shift_y": shift[:, 1]}
        pose = table[f"{group}/pose"].astype(np.float64)
        if group == "alignments2D":
            found["psi"] = np.rad2deg(pose)
        else:
            from scipy.spatial.transform import Rotation

            matrices = Rotation.from_rotvec(pose).as_matrix() if len(pose) else pose
            found |= dict(zip(("rot", "tilt", "psi"), matrix_to_euler(matrices), strict=True))
        if f"{group}/class" in table:
            found["class_number"] = table[f"{group}/class"].astype(np.int64) + 1
    return pd.DataFrame(found, index=range(_length(table)))


def _length(table: Mapping[str, NDArray[Any]]) -> int:
    return len(next(iter(table.values())))


def _unknown(table: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    known = {*_ROWS, *_RADIANS, *_OPTICS, "ctf/exp_group_id", "blob/path", "blob/idx"}
    known |= {"blob/psize_A", "micrograph_blob/path", "micrograph_blob/psize_A"}
    known |= {f"alignments{d}/{f}" for d in ("2D", "3D") for f in ("pose", "psize_A", "class")}
    kept = {
        name: values
        for name, values in table.items()
        if values.ndim == 1
        and values.dtype.kind in "iuf"
        and name not in known
        and not name.startswith("location/")
    }
    return pd.DataFrame(kept, index=range(_length(table)))


def _optics(
    table: Mapping[str, NDArray[Any]], lens: dict[str, NDArray[Any]]
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    columns: dict[str, NDArray[Any]] = {}
    names = ("ctf/exp_group_id", "location/exp_group_id", "mscope_params/exp_group_id")
    group = next((table[n] for n in names if n in table), np.zeros(_length(table), np.int64))
    columns["group"] = group.astype(np.int64)
    columns |= lens
    for name, word in _OPTICS.items():
        if name in table and word not in columns:
            columns[word] = table[name].astype(np.float64)
    frame = pd.DataFrame(columns)
    numbers = frame.groupby(list(frame.columns), sort=False, dropna=False).ngroup().to_numpy() + 1
    optics = frame.drop_duplicates().reset_index(drop=True)
    for name in optics.columns[optics.dtypes == np.float64]:
        # float32 of 0.1 is 0.10000000149: what was meant has seven digits
        optics[name] = [float(f"{value:.7g}") for value in optics[name]]
    optics.insert(0, "optics_group", np.arange(1, len(optics) + 1))
    exposure_groups = optics.pop("group")
    optics.insert(1, "optics_group_name", [f"{_GROUP}{i}" for i in exposure_groups])
    return numbers.astype(np.int64), optics


def write_cs_picks(
    path: Path,
    rows: pd.DataFrame,
    *,
    sizes: Mapping[str, tuple[int, int]],
    pixel_size: float | None = None,
) -> None:
    """Write picked positions.

    Parameters
    ----------
    path
        Where to.
    rows
        micrograph, x, y and maybe fom.
    sizes
        Height and width of every micrograph in px, which the fractions need.
    pixel_size
        A/px of the micrographs.

    Raises
    ------
    TableError
        If the size of a micrograph is missing.
    """
    require_columns(rows, ("micrograph", "x", "y"), table="picks")
    fields = {"uid": _uids(rows, ("micrograph", "x", "y"))}
    fields |= _location_fields(rows, sizes, pixel_size)
    if "fom" in rows:
        fields["pick_stats/ncc_score"] = rows["fom"].to_numpy(np.float32)
    write_cs(path, fields)


def _location_fields(
    rows: pd.DataFrame, sizes: Mapping[str, tuple[int, int]], pixel_size: float | None
) -> dict[str, NDArray[Any]]:
    names = [str(name) for name in rows["micrograph"]]
    for name in dict.fromkeys(names):
        if name not in sizes:
            raise TableError(
                name,
                must="be of known size, because cryoSPARC keeps positions as fractions",
                got="no size",
                remedy="Give the --micrographs so that their sizes can be read",
            )
    shape = np.array([sizes[name] for name in names], dtype=np.uint32).reshape(-1, 2)
    uid = {name: _uid(name) for name in dict.fromkeys(names)}
    fields: dict[str, NDArray[Any]] = {
        "location/micrograph_uid": np.array([uid[n] for n in names], dtype=np.uint64),
        "location/exp_group_id": np.zeros(len(rows), dtype=np.uint32),
        "location/micrograph_path": np.array(names, dtype=object),
        "location/micrograph_shape": shape,
        "location/center_x_frac": (rows["x"].to_numpy() / shape[:, 1]).astype(np.float32),
        "location/center_y_frac": (rows["y"].to_numpy() / shape[:, 0]).astype(np.float32),
    }
    if pixel_size is not None:
        fields["location/micrograph_psize_A"] = np.full(len(rows), pixel_size, np.float32)
    return fields


def _uid(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _uids(rows: pd.DataFrame, names: Sequence[str]) -> NDArray[np.uint64]:
    """Keep the uid a row came with, else make one that depends on the row alone."""
    if "uid" in rows:
        return rows["uid"].to_numpy(np.uint64)
    keys = zip(*(rows[name] for name in names), range(len(rows)), strict=True)
    return np.array([_uid(repr(key)) for key in keys], dtype=np.uint64)


def write_cs_particles(
    path: Path, particles: Particles, *, sizes: Mapping[str, tuple[int, int]] | None = None
) -> None:
    """Write particle images.

    Parameters
    ----------
    path
        Where to.
    particles
        Their optics need box_size.
    sizes
        Height and width of the micrographs in px; without them positions are left out.

    Raises
    ------
    TableError
        If the box size is missing.
    """
    if "box_size" not in particles.optics:
        raise TableError(
            str(particles.source or "particles"),
            must="say the box size, which a .cs file holds",
            got="none, and the stack is not where its name says",
            remedy="Add --box-size",
        )
    rows = particles.rows.reset_index(drop=True)
    optics = particles.optics.set_index("optics_group").loc[rows["optics_group"]]
    box = optics["box_size"].to_numpy(np.uint32)
    psize = optics["pixel_size"].to_numpy(np.float32)
    fields: dict[str, NDArray[Any]] = {
        "uid": _uids(rows, ("image", "image_index")),
        "blob/path": rows["image"].to_numpy(object),
        "blob/idx": rows["image_index"].to_numpy(np.uint32),
        "blob/shape": np.stack([box, box], axis=-1),
        "blob/psize_A": psize,
    }
    fields |= _ctf_fields(rows, optics)
    fields |= _alignment_fields(rows, psize)
    if sizes and {"micrograph", "x", "y"} <= set(rows.columns):
        pixel = optics.get("micrograph_pixel_size")
        fields |= _location_fields(rows, sizes, None)
        if pixel is not None:
            fields["location/micrograph_psize_A"] = pixel.to_numpy(np.float32)
        fields["location/exp_group_id"] = fields["ctf/exp_group_id"]
    for name in rows.columns:
        if "/" in name and name not in fields:
            fields[name] = rows[name].to_numpy()
    write_cs(path, fields)


def _ctf_fields(rows: pd.DataFrame, optics: pd.DataFrame) -> dict[str, NDArray[Any]]:
    names = optics.get("optics_group_name", optics.index.to_series())
    groups = [
        int(t) if (t := str(name).removeprefix(_GROUP)).isdigit() and _GROUP in str(name) else None
        for name in names
    ]
    own = [i - 1 if g is None else g for g, i in zip(groups, optics.index, strict=True)]
    fields: dict[str, NDArray[Any]] = {"ctf/exp_group_id": np.array(own, dtype=np.uint32)}
    for name, word in list(_OPTICS.items())[:3]:
        if word in optics:
            fields[name] = optics[word].to_numpy(np.float32)
    for name, word in _ROWS.items():
        if word in rows and name.startswith("ctf/"):
            fields[name] = rows[word].to_numpy(np.float32)
    for name, word in _RADIANS.items():
        if word in rows:
            fields[name] = np.deg2rad(rows[word].to_numpy(np.float64)).astype(np.float32)
    return fields


def _alignment_fields(rows: pd.DataFrame, psize: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    if "psi" not in rows and "shift_x" not in rows:
        return {}
    zero = np.zeros(len(rows))
    rot, tilt, psi, x, y = (
        rows[n].to_numpy(np.float64) if n in rows else zero
        for n in ("rot", "tilt", "psi", "shift_x", "shift_y")
    )
    is_3d = bool(((rot != 0) | (tilt != 0)).any())
    group = "alignments3D" if is_3d else "alignments2D"
    pose = np.deg2rad(psi)
    if is_3d:
        from scipy.spatial.transform import Rotation

        pose = Rotation.from_matrix(euler_to_matrix(rot, tilt, psi)).as_rotvec()
    fields: dict[str, NDArray[Any]] = {
        f"{group}/shift": (np.stack([x, y], axis=-1) / psize[:, None]).astype(np.float32),
        f"{group}/pose": pose.astype(np.float32),
        f"{group}/psize_A": psize,
    }
    if "class_number" in rows:
        fields[f"{group}/class"] = np.maximum(rows["class_number"].to_numpy() - 1, 0).astype("u4")
    return fields
