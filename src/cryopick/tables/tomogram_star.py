"""Positions in tomograms as RELION 3, 4 and 5 and Warp keep them: STAR files.

RELION 5 counts in A from the centre of the tomogram, which is N / 2 voxels from the centre of
the first one, also where N is odd; the others count voxels from the centre of the first one.
Where a file has both, RELION 5 takes the centred columns, and so does this module. Shifts found
by refinement (rlnOriginXAngst, ...) move the position by minus themselves, turned by the frame
of the subtomogram (rlnTomoSubtomogramRot, ...) where there is one; orientations are A_subtomogram
A_particle.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryopick.errors import TableError
from cryopick.io.star import read_star, write_star
from cryopick.tables.tomogram_format_parameters import TomogramFormatParameters
from cryopick.tables.tomograms import TomogramPicks, tomogram_name, tomogram_table

__all__ = [
    "read_relion_tomograms",
    "read_tomogram_star",
    "write_relion_tomograms",
    "write_tomogram_star",
]

_AXES = ("x", "y", "z")
_CENTRED = [f"rlnCenteredCoordinate{axis.upper()}Angst" for axis in _AXES]
_PLAIN = [f"rlnCoordinate{axis.upper()}" for axis in _AXES]
_SHIFTS = [f"rlnOrigin{axis.upper()}Angst" for axis in _AXES]
_ANGLES = [f"rlnAngle{name}" for name in ("Rot", "Tilt", "Psi")]
_FRAMES = [f"rlnTomoSubtomogram{name}" for name in ("Rot", "Tilt", "Psi")]
_NAMES = ("rlnTomoName", "rlnMicrographName")
_OTHERS = {
    "rot": "rlnAngleRot",
    "tilt": "rlnAngleTilt",
    "psi": "rlnAnglePsi",
    "kind": "rlnClassNumber",
    "score": "rlnAutopickFigureOfMerit",
    "diameter": "rlnParticleDiameter",
}
_SCORES = ("rlnLCCmax", "rlnMaxValueProbDistribution")  # of other pickers, in this order
_OWN = "cryopick"


def write_tomogram_star(
    path: Path, picks: TomogramPicks, *, parameters: TomogramFormatParameters
) -> None:
    """Write all picks as one table, in the dialect that `parameters` names.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    rows = picks.rows
    places = rows[list(_AXES)].to_numpy(np.float64)
    if parameters.format == "relion5":
        labels, values = _CENTRED, places - _half_widths(picks)
    elif parameters.normalised:
        labels, values = _PLAIN, places / (2 * _half_widths(picks))
    else:
        labels, values = _PLAIN, places / _unit(picks, parameters)
    is_relion = parameters.format in ("relion5", "relion4")
    suffix = ".tomostar" if parameters.format == "warp" else ""
    table = pd.DataFrame(dict(zip(labels, values.T, strict=True)))
    table.insert(0, _NAMES[not is_relion], (rows["tomogram"].astype(str) + suffix).to_numpy())
    for name in rows.columns:
        if name not in ("tomogram", *_AXES):
            table[_OTHERS.get(name) or _own_label(str(name))] = rows[name].to_numpy()
    write_star(path, {"particles" if is_relion else "": table}, comment="version 50001")


def read_tomogram_star(
    path: Path, *, tomograms: pd.DataFrame, parameters: TomogramFormatParameters
) -> TomogramPicks:
    """Read a table of positions of RELION 3, 4 or 5, Warp or pytom-match-pick.

    Parameters
    ----------
    path
        Any STAR file with one table of positions.
    tomograms
        All that may be named in it (`tomogram_table`).
    parameters
        What unit plain coordinates have.

    Raises
    ------
    FormatError
        If the file is no STAR file.
    TableError
        If it holds no positions in 3D, or names a tomogram that is not known.
    """
    table = _table_of_positions(path)
    names = next((n for n in _NAMES if n in table), None)
    if names is None:
        raise _refusal(path, f"have a column {' or '.join(_NAMES)}", ", ".join(table.columns[:4]))
    rows = pd.DataFrame({"tomogram": [tomogram_name(n) for n in table[names].astype(str)]})
    rows[list(_AXES)] = 0.0
    picks = TomogramPicks(rows=rows, tomograms=tomograms, source=path)
    if _CENTRED[0] in table:
        places = table[_CENTRED].to_numpy(np.float64) + _half_widths(picks)
    elif parameters.normalised:
        places = table[_PLAIN].to_numpy(np.float64) * 2 * _half_widths(picks)
    else:
        places = table[_PLAIN].to_numpy(np.float64) * _unit(picks, parameters)
    if _has(table, _SHIFTS) and len(table):
        shifts = np.array(table[_SHIFTS], np.float64)
        places = places - (
            _rotations(table, _FRAMES).apply(shifts) if _has(table, _FRAMES) else shifts
        )
    rows[list(_AXES)] = places
    _add_others(rows, table)
    if _has(table, _FRAMES) and len(table):
        rows[["rot", "tilt", "psi"]] = _whole_angles(table)
    return TomogramPicks(rows=rows, tomograms=tomograms, source=path)


def _table_of_positions(path: Path) -> pd.DataFrame:
    for table in read_star(path, text=_NAMES).values():
        if _has(table, _CENTRED) or _has(table, _PLAIN):
            return table
    raise _refusal(path, f"have columns {_CENTRED[0]} or {_PLAIN[0]}, for x, y and z", "none")


def _add_others(rows: pd.DataFrame, table: pd.DataFrame) -> None:
    for name, label in _OTHERS.items():
        if label in table:
            rows[name] = table[label].to_numpy()
    for label in table.columns:
        if label.startswith(_OWN):
            rows[_own_name(label)] = table[label].to_numpy()
    if "score" not in rows:
        for label in _SCORES[::-1]:
            if label in table:
                rows["score"] = table[label].to_numpy(np.float64)


def _has(table: pd.DataFrame, labels: list[str]) -> bool:
    return all(label in table for label in labels)


def _rotations(table: pd.DataFrame, labels: list[str]) -> Rotation:
    """Take RELION's matrices, which turn a particle into the tomogram."""
    angles = np.array(table[labels], np.float64)  # scipy wants one that it may write to
    return Rotation.from_euler("ZYZ", angles, degrees=True).inv()


def _whole_angles(table: pd.DataFrame) -> NDArray[np.float64]:
    """Join the angles of frame and particle: rot, tilt, psi in degrees."""
    whole = _rotations(table, _FRAMES)
    if _has(table, _ANGLES):
        whole = whole * _rotations(table, _ANGLES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # tilt 0: any split into rot and psi will do
        return np.asarray(whole.inv().as_euler("ZYZ", degrees=True))


def _half_widths(picks: TomogramPicks) -> NDArray[np.float64]:
    """Measure from the centre of the first voxel to RELION's centre: (n, 3) x, y, z in A."""
    sizes = np.stack([picks.per_pick(n) for n in ("nx", "ny", "nz")], axis=1)
    return np.asarray(sizes / 2 * picks.per_pick("voxel_size")[:, None])


def _unit(picks: TomogramPicks, parameters: TomogramFormatParameters) -> NDArray[np.float64]:
    if parameters.coordinate_pixel_size:
        return np.full((len(picks), 1), parameters.coordinate_pixel_size)
    return picks.per_pick("voxel_size")[:, None]


def _own_label(name: str) -> str:
    return _OWN + "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def _own_name(label: str) -> str:
    letters = (f"_{c.lower()}" if c.isupper() else c for c in label.removeprefix(_OWN))
    return "".join(letters).lstrip("_")


def _refusal(path: Path, must: str, got: str) -> TableError:
    return TableError(str(path), must=must, got=got, remedy="Give a table of positions in 3D")


def write_relion_tomograms(path: Path, tomograms: pd.DataFrame, *, files: dict[str, str]) -> None:
    """Write the table of tomograms that RELION 5 keeps beside the picks.

    Parameters
    ----------
    path
        Where to.
    tomograms
        As `tomogram_table` makes them; they count as not binned.
    files
        The volume of each, by its name.
    """
    table = pd.DataFrame(
        {
            "rlnTomoName": tomograms["tomogram"],
            "rlnTomoTiltSeriesPixelSize": tomograms["voxel_size"],
            "rlnTomoTomogramBinning": 1.0,
            "rlnTomoSizeX": tomograms["nx"],
            "rlnTomoSizeY": tomograms["ny"],
            "rlnTomoSizeZ": tomograms["nz"],
            "rlnTomoReconstructedTomogram": tomograms["tomogram"].map(files),
        }
    )
    write_star(path, {"global": table}, comment="version 50001")


def read_relion_tomograms(path: Path) -> pd.DataFrame:
    """Read sizes and voxel sizes of tomograms from RELION 5's own table.

    Returns
    -------
    pandas.DataFrame
        As `tomogram_table` makes it, unbinned: RELION's coordinates are of these.

    Raises
    ------
    TableError
        If the file lacks a size.
    """
    wanted = [f"rlnTomoSize{axis}" for axis in "ZYX"]
    for table in read_star(path, text=("rlnTomoName",)).values():
        if all(n in table for n in ("rlnTomoName", "rlnTomoTiltSeriesPixelSize", *wanted)):
            rows = zip(
                table["rlnTomoName"].astype(str),
                table[wanted].to_numpy(np.int64),
                table["rlnTomoTiltSeriesPixelSize"].to_numpy(np.float64),
                strict=True,
            )
            return tomogram_table((n, tuple(s), v) for n, s, v in rows)
    raise _refusal(path, f"have columns {', '.join(wanted)}", "none")
