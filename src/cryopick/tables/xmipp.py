"""Xmipp's tables of particles and micrographs (``.xmd``).

Rows with ``enabled`` -1 were rejected and are left out (``rows.attrs["n_disabled"]`` counts
them). In 2D Xmipp turns an image the other way than RELION (anglePsi is minus psi) and shifts it
after the rotation, in px; with ``angleTilt`` the row is of a projection and its angles and shifts
are RELION's. ``flip`` stays a column: the image is mirrored in x after the rotation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import FormatError, TableError
from cryopick.io.star import read_star
from cryopick.io.xmd import write_xmd
from cryopick.tables.eman import whole_pixels
from cryopick.tables.inplane import shift_after_rotation, shift_before_rotation
from cryopick.tables.model import Micrographs, Particles

__all__ = [
    "WORDS",
    "read_xmd_micrographs",
    "read_xmd_particles",
    "split_enabled",
    "write_xmd_micrographs",
    "write_xmd_particles",
]

_ROWS = {
    "micrograph": "micrograph",
    "xcoor": "x",
    "ycoor": "y",
    "Xcoor": "x",
    "Ycoor": "y",
    "ref": "class_number",
    "angleRot": "rot",
    "angleTilt": "tilt",
    "anglePsi": "psi",
    "shiftX": "shift_x",
    "shiftY": "shift_y",
    "ctfDefocusU": "defocus_u",
    "ctfDefocusV": "defocus_v",
    "ctfDefocusAngle": "defocus_angle",
    "ctfVPPphaseshift": "phase_shift",
    "ctfCritMaxFreq": "ctf_max_resolution",
    "ctfCritFitting": "ctf_fom",
}
_OPTICS = {
    "ctfVoltage": "voltage",
    "ctfSphericalAberration": "spherical_aberration",
    "ctfQ0": "amplitude_contrast",
    "ctfSamplingRate": "micrograph_pixel_size",
}
_TEXT = ("image", "micrograph", "ctfModel")
_OWN = ("enabled", "itemId", "micrographId")  # given anew when written
_FLOATS = ("x", "y", "fom", "psi", "rot", "tilt", "shift_x", "shift_y", "defocus_u", "defocus_v")
WORDS = frozenset(
    {*_ROWS.values(), "image", "image_index", "optics_group", "flip"}
)  # columns written


def read_xmd_particles(path: Path, *, pixel_size: float | None = None) -> Particles:
    """Read particle images.

    Parameters
    ----------
    path
        ``.xmd`` with a column image.
    pixel_size
        A/px of the images; without it ctfSamplingRate is taken.

    Returns
    -------
    Particles
        ``image`` without ``:mrcs``, ``image_index`` from 0.

    Raises
    ------
    FormatError
        If the file is missing or has no particles.
    TableError
        If the pixel size is neither given nor in the file.
    """
    rows, optics, pixels = _read(path, "image", pixel_size)
    optics = optics.drop(columns="micrograph_pixel_size", errors="ignore")  # that of the boxes
    index, names = _split_images(rows["image"])
    rows["image"], rows["image_index"] = names, index
    if "psi" in rows or "shift_x" in rows:
        _align_as_relion(rows, pixels)
    return Particles(rows=rows, optics=optics, source=path)


def read_xmd_micrographs(path: Path, *, pixel_size: float | None = None) -> Micrographs:
    """Read micrographs, with their CTF also where it lies in ``.ctfParam`` files beside.

    Raises
    ------
    FormatError
        If the file is missing or has no micrographs.
    TableError
        If the pixel size is neither given nor in the file.
    """
    rows, optics, _ = _read(path, "micrograph", pixel_size)
    return Micrographs(rows=rows, optics=optics, source=path)


def _read(
    path: Path, label: str, pixel_size: float | None
) -> tuple[pd.DataFrame, pd.DataFrame, NDArray[np.float64]]:
    blocks = read_star(path, text=_TEXT)
    table = next((t for t in blocks.values() if label in t), None)
    if table is None and label == "micrograph":  # Xmipp lists them as plain images too
        table = next((t for t in blocks.values() if "image" in t), None)
        table = None if table is None else table.rename(columns={"image": "micrograph"})
    if table is None:
        raise FormatError(
            str(path),
            must=f"have a block with a column {label}",
            got=", ".join(f"{n or 'noname'}({', '.join(t.columns)})" for n, t in blocks.items()),
            remedy="Give the .xmd file of particles or micrographs",
        )
    kept, n_disabled = split_enabled(_with_ctf_files(table, path))
    kept = kept.drop(columns=[c for c in _OWN if c in kept]).reset_index(drop=True)
    rows = kept.rename(columns={**_ROWS, **_OPTICS})
    for name in (*_FLOATS, *_OPTICS.values()):
        if name in rows:
            rows[name] = rows[name].astype(np.float64)
    pixels = _pixel_sizes(rows, pixel_size, path)
    rows, optics = _split_optics(rows, pixels)
    rows.attrs["n_disabled"] = n_disabled
    return rows, optics, pixels


def split_enabled(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Leave out the rows that were rejected (``enabled`` -1) and count them."""
    if "enabled" not in table:
        return table, 0
    is_kept = table["enabled"].to_numpy() != -1  # 0 means never set
    return table.loc[is_kept].reset_index(drop=True), int((~is_kept).sum())


def _with_ctf_files(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    if "ctfModel" not in table or "ctfDefocusU" in table:
        return table
    found = []
    for name in table["ctfModel"]:
        file = Path(str(name))
        file = file if file.is_absolute() else Path(path).parent / file
        found.append(next(iter(read_star(file, text=_TEXT).values())).iloc[:1])
    ctf = pd.concat(found, ignore_index=True)
    known = [label for label in (*_ROWS, *_OPTICS) if label in ctf and label not in table]
    return table.join(ctf[known])


def _pixel_sizes(rows: pd.DataFrame, pixel_size: float | None, path: Path) -> NDArray[np.float64]:
    if pixel_size is not None:
        return np.full(len(rows), pixel_size)
    if "micrograph_pixel_size" in rows:
        return rows["micrograph_pixel_size"].to_numpy(np.float64)
    raise TableError(
        str(path),
        must="say the pixel size (ctfSamplingRate)",
        got="no such column",
        remedy="Add --pixel-size",
    )


def _split_optics(
    rows: pd.DataFrame, pixels: NDArray[np.float64]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    names = [name for name in _OPTICS.values() if name in rows]
    lens = rows[names].copy()
    lens.insert(0, "pixel_size", pixels)
    if "amplitude_contrast" in lens:
        lens["amplitude_contrast"] = lens["amplitude_contrast"].abs()  # old files: negative
    groups = lens.groupby(list(lens.columns), sort=False, dropna=False).ngroup() + 1
    optics = lens.drop_duplicates().reset_index(drop=True)
    optics.insert(0, "optics_group", np.arange(1, len(optics) + 1))
    optics.insert(1, "optics_group_name", [f"opticsGroup{i}" for i in optics["optics_group"]])
    rows = rows.drop(columns=names)
    rows["optics_group"] = groups.to_numpy(np.int64)
    return rows, optics


def _split_images(images: pd.Series) -> tuple[NDArray[np.int64], list[str]]:
    parts = [str(image).rpartition("@") for image in images]
    index = np.array([int(number) - 1 if number else 0 for number, _, _ in parts], dtype=np.int64)
    return index, [name.rpartition(":")[0] or name if _tagged(name) else name for *_, name in parts]


def _tagged(name: str) -> bool:
    return name.endswith((":mrcs", ":mrc", ":ems", ":em"))


def _align_as_relion(rows: pd.DataFrame, pixels: NDArray[np.float64]) -> None:
    zero = np.zeros(len(rows))
    x = rows.get("shift_x", pd.Series(zero)).to_numpy() * pixels
    y = rows.get("shift_y", pd.Series(zero)).to_numpy() * pixels
    psi = np.asarray(rows.get("psi", zero), dtype=np.float64)
    if "tilt" not in rows:
        psi = -psi + 0.0
        x, y = shift_before_rotation(psi, x, y, _flips(rows))
    rows["psi"], rows["shift_x"], rows["shift_y"] = psi, x, y


def _flips(rows: pd.DataFrame) -> NDArray[np.bool_]:
    return rows["flip"].to_numpy() == 1 if "flip" in rows else np.zeros(len(rows), dtype=bool)


def write_xmd_particles(path: Path, particles: Particles) -> None:
    """Write particle images as Xmipp's ``.xmd``; unknown columns are carried along."""
    rows = _joined(particles.rows, particles.optics)
    pixels = rows["pixel_size"].to_numpy(np.float64)
    if "shift_x" in rows or "psi" in rows:
        zero = pd.Series(np.zeros(len(rows)))
        x, y = (rows.get(n, zero).to_numpy() / pixels for n in ("shift_x", "shift_y"))
        psi = np.asarray(rows.get("psi", zero), dtype=np.float64)
        if not _is_projection(rows):
            x, y = shift_after_rotation(psi, x, y, _flips(rows))
            psi = -psi + 0.0
        rows["psi"], rows["shift_x"], rows["shift_y"] = psi, x, y
    if not _is_projection(rows):
        rows = rows.drop(columns=[c for c in ("rot", "tilt") if c in rows])
    stacks = [f"{s}:mrcs" if str(s).endswith(".mrc") else str(s) for s in rows["image"]]
    numbers = rows["image_index"].to_numpy() + 1
    rows["image"] = [f"{i:06d}@{s}" for i, s in zip(numbers, stacks, strict=True)]
    write_xmd(path, {"Particles": _table(rows.drop(columns="image_index"), "image")})


def _is_projection(rows: pd.DataFrame) -> bool:
    names = [name for name in ("rot", "tilt") if name in rows]
    return bool(names) and bool((rows[names].to_numpy() != 0).any())


def write_xmd_micrographs(path: Path, micrographs: Micrographs) -> None:
    """Write micrographs as Xmipp's ``.xmd``."""
    rows = _joined(micrographs.rows, micrographs.optics)
    write_xmd(path, {"Micrographs": _table(rows, "micrograph")})


def _joined(rows: pd.DataFrame, optics: pd.DataFrame) -> pd.DataFrame:
    names = [*_OPTICS.values(), "pixel_size"]
    lens = optics[["optics_group", *(n for n in names if n in optics)]]
    joined = rows.reset_index(drop=True).merge(lens, on="optics_group", how="left")
    # Xmipp's ctfSamplingRate is that of the image the CTF is applied to, shrunk boxes included.
    joined["micrograph_pixel_size"] = joined["pixel_size"]
    return joined


def _table(rows: pd.DataFrame, first: str) -> pd.DataFrame:
    labels = {name: label for label, name in (*_ROWS.items(), *_OPTICS.items())}
    labels |= {"x": "xcoor", "y": "ycoor"}
    rows = rows.drop(columns=["optics_group", "pixel_size"]).rename(columns=labels)
    for label in ("xcoor", "ycoor"):
        if label in rows:
            rows[label] = whole_pixels(rows[label])
    n = len(rows)
    own = {"itemId": np.arange(1, n + 1), "enabled": np.ones(n, np.int64), first: rows[first]}
    if "micrograph" in rows:
        own["micrographId"] = pd.factorize(rows["micrograph"])[0] + 1
    rest = rows.drop(columns=[c for c in own if c in rows])
    return pd.concat([pd.DataFrame(own), rest], axis=1)
