"""RELION's labels for our columns: the one list, used in both directions.

The order of each list is the order RELION writes. A column that RELION has no label for is
written as ``cryopick`` and its name (``cryopickIsJunk``), which RELION carries along unread.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.errors import TableError
from cryopick.tables.model import COLUMNS

__all__ = [
    "MICROGRAPH_OPTICS",
    "MICROGRAPH_ROWS",
    "PARTICLE_OPTICS",
    "PARTICLE_ROWS",
    "PICK_ROWS",
    "from_relion",
    "to_relion",
]

_LENS = {
    "voltage": "rlnVoltage",
    "spherical_aberration": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
}
MICROGRAPH_OPTICS: dict[str, str] = {
    "optics_group_name": "rlnOpticsGroupName",
    "optics_group": "rlnOpticsGroup",
    "pixel_size": "rlnMicrographPixelSize",
    "original_pixel_size": "rlnMicrographOriginalPixelSize",
    **_LENS,
}
PARTICLE_OPTICS: dict[str, str] = {
    "optics_group_name": "rlnOpticsGroupName",
    "optics_group": "rlnOpticsGroup",
    "micrograph_pixel_size": "rlnMicrographPixelSize",
    "original_pixel_size": "rlnMicrographOriginalPixelSize",
    **_LENS,
    "pixel_size": "rlnImagePixelSize",
    "box_size": "rlnImageSize",
    "image_dimensions": "rlnImageDimensionality",
    "is_premultiplied": "rlnCtfDataAreCtfPremultiplied",
    "is_phase_flipped": "rlnCtfDataArePhaseFlipped",
}
_POSITION = {
    "x": "rlnCoordinateX",
    "y": "rlnCoordinateY",
    "fom": "rlnAutopickFigureOfMerit",
    "class_number": "rlnClassNumber",
    "psi": "rlnAnglePsi",
}
_NAMES = {"micrograph": "rlnMicrographName", "optics_group": "rlnOpticsGroup"}
_CTF = {
    "defocus_u": "rlnDefocusU",
    "defocus_v": "rlnDefocusV",
    "defocus_angle": "rlnDefocusAngle",
    "ctf_bfactor": "rlnCtfBfactor",
    "ctf_scale": "rlnCtfScalefactor",
    "phase_shift": "rlnPhaseShift",
}
_CTF_QUALITY = {"ctf_max_resolution": "rlnCtfMaxResolution", "ctf_fom": "rlnCtfFigureOfMerit"}
_POSE = {
    "rot": "rlnAngleRot",
    "tilt": "rlnAngleTilt",
    "shift_x": "rlnOriginXAngst",
    "shift_y": "rlnOriginYAngst",
}
_ALIGNMENT = {
    "group_number": "rlnGroupNumber",
    "norm_correction": "rlnNormCorrection",
    "log_likelihood": "rlnLogLikeliContribution",
    "max_probability": "rlnMaxValueProbDistribution",
    "n_significant": "rlnNrOfSignificantSamples",
}
_OURS = {"diameter": "rlnParticleDiameter", "is_junk": "cryopickIsJunk"}
MICROGRAPH_ROWS: dict[str, str] = {
    **_NAMES,
    "ctf_image": "rlnCtfImage",
    "defocus_u": "rlnDefocusU",
    "defocus_v": "rlnDefocusV",
    "astigmatism": "rlnCtfAstigmatism",
    "defocus_angle": "rlnDefocusAngle",
    "ctf_fom": "rlnCtfFigureOfMerit",
    "ctf_max_resolution": "rlnCtfMaxResolution",
    **_CTF,
    "is_ctf_trusted": "cryopickIsCtfTrusted",
}
PARTICLE_ROWS: dict[str, str] = {
    **_POSITION,
    "image": "rlnImageName",  # with image_index; the two are joined and split beside this list
    **_NAMES,
    **_CTF_QUALITY,
    **_CTF,
    **_POSE,
    **_ALIGNMENT,
    **_OURS,
}
PICK_ROWS: dict[str, str] = {**_POSITION, **_OURS, **PARTICLE_ROWS}

_INTEGERS = frozenset(
    {
        "optics_group",
        "box_size",
        "image_dimensions",
        "is_premultiplied",
        "is_phase_flipped",
        "image_index",
        "class_number",
        "is_junk",
        "is_ctf_trusted",
        "group_number",
        "n_significant",
    }
)
_TEXTS = frozenset({"optics_group_name", "micrograph", "image", "ctf_image"})


def from_relion(rows: pd.DataFrame, names: Mapping[str, str], source: Path) -> pd.DataFrame:
    """Give the columns our names and types; columns without one of our names stay as they are.

    Raises
    ------
    TableError
        If a column of numbers holds something else.
    """
    ours = {label: name for name, label in names.items()}
    renamed = rows.rename(columns={c: ours.get(c, _our_name(str(c))) for c in rows.columns})
    for name in renamed.columns:
        if name in COLUMNS and name not in _TEXTS:
            renamed[name] = _as_number(renamed[name], name, names.get(name, name), source)
    return renamed


def to_relion(rows: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Give the columns RELION's labels and RELION's order; unknown columns follow unchanged."""
    first = [n for n in names if n in rows.columns]
    rest = [n for n in rows.columns if n not in names]
    labels = {n: _their_name(str(n)) for n in rest} | dict(names)
    return rows[[*first, *rest]].rename(columns=labels)


def _our_name(label: str) -> str:
    if not label.startswith("cryopick"):
        return label
    words = "".join("_" + c.lower() if c.isupper() else c for c in label.removeprefix("cryopick"))
    name = words.removeprefix("_")
    return name if name in COLUMNS else label


def _their_name(name: str) -> str:
    if name not in COLUMNS:
        return name
    return "cryopick" + "".join(word.capitalize() for word in name.split("_"))


def _as_number(column: pd.Series, name: str, label: str, source: Path) -> pd.Series:
    kind = np.int64 if name in _INTEGERS else np.float64
    if not pd.api.types.is_numeric_dtype(column):
        numbers = pd.to_numeric(column, errors="coerce")
        bad = numbers.isna() & (column.astype(str).str.lower() != "nan")
        if bad.any():
            place = int(bad.to_numpy().argmax())
            _refuse(source, label, "numbers", f"{column.iloc[place]!r} in row {place + 1}")
        column = numbers
    if kind is np.int64 and not pd.api.types.is_integer_dtype(column):
        is_odd = (column % 1 != 0).to_numpy()  # NaN and infinity are odd, too
        if is_odd.any():
            place = int(is_odd.argmax())
            _refuse(source, label, "whole numbers", f"{column.iloc[place]} in row {place + 1}")
    return column.astype(kind)


def _refuse(source: Path, label: str, rule: str, got: str) -> None:
    raise TableError(f"{source}, column {label},", must=f"hold {rule}", got=got, remedy="Mend it")
