"""Optics groups for RELION's tables; files older than 3.1 have none and get them here.

RELION 3.0 gave voltage, aberration, contrast and magnification with every row, and offsets in
pixels. Rows that share these values become one optics group, and offsets become Angstrom.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.errors import TableError

__all__ = ["check_groups", "check_pixel_size", "groups_of_old_rows", "offsets_to_angstrom"]

_SHARED = (
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
    "rlnMagnification",
    "rlnDetectorPixelSize",
    "rlnPixelSize",
    "rlnImagePixelSize",
    "rlnMicrographPixelSize",
    "rlnMicrographOriginalPixelSize",
    "rlnBeamTiltX",
    "rlnBeamTiltY",
    "rlnMtfFileName",
)
_OFFSETS = {
    "rlnOriginX": "rlnOriginXAngst",
    "rlnOriginY": "rlnOriginYAngst",
    "rlnOriginZ": "rlnOriginZAngst",
    "rlnOriginXPrior": "rlnOriginXPriorAngst",
    "rlnOriginYPrior": "rlnOriginYPriorAngst",
    "rlnOriginZPrior": "rlnOriginZPriorAngst",
}


def groups_of_old_rows(
    rows: pd.DataFrame, pixel_size_label: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split rows without optics groups into rows with a group and a table of groups.

    Parameters
    ----------
    rows
        A table of RELION 3.0 with its own labels.
    pixel_size_label
        What the pixel size of these images is called from 3.1 on.

    Returns
    -------
    pandas.DataFrame
        The rows without the shared columns, with ``rlnOpticsGroup``.
    pandas.DataFrame
        One row per group, numbered in the order the groups appear.
    """
    shared = [c for c in _SHARED if c in rows.columns]
    if shared:
        groups = rows.groupby(shared, sort=False, dropna=False).ngroup().to_numpy() + 1
    else:
        groups = np.ones(len(rows), np.int64)
    firsts = np.unique(groups, return_index=True)[1] if len(rows) else np.zeros(0, np.int64)
    optics = rows[shared].iloc[firsts].reset_index(drop=True)
    if not len(rows):
        optics = pd.DataFrame(index=[0])
    optics.insert(0, "rlnOpticsGroup", np.arange(1, len(optics) + 1))
    optics.insert(0, "rlnOpticsGroupName", [f"opticsGroup{n + 1}" for n in range(len(optics))])
    optics = _name_pixel_size(optics, pixel_size_label)
    return rows.drop(columns=shared).assign(rlnOpticsGroup=groups), optics


def _name_pixel_size(optics: pd.DataFrame, label: str) -> pd.DataFrame:
    """Find the pixel size under any of its old names and give it its new one."""
    old = ["rlnMagnification", "rlnDetectorPixelSize"]
    if label not in optics and "rlnPixelSize" in optics:
        optics = optics.rename(columns={"rlnPixelSize": label})
    if label not in optics and all(c in optics for c in old):
        micrometres = pd.to_numeric(optics["rlnDetectorPixelSize"], errors="coerce")
        magnification = pd.to_numeric(optics["rlnMagnification"], errors="coerce")
        optics[label] = micrometres * 1e4 / magnification
    return optics.drop(columns=[c for c in [*old, "rlnPixelSize"] if c in optics])


def offsets_to_angstrom(rows: pd.DataFrame, pixel_size: pd.Series) -> pd.DataFrame:
    """Replace offsets in pixels by offsets in Angstrom.

    Parameters
    ----------
    rows
        A table with RELION's labels.
    pixel_size
        A/px of each row.
    """
    for old, new in _OFFSETS.items():
        if old not in rows.columns:
            continue
        if new not in rows.columns:
            rows = rows.assign(**{new: rows[old].to_numpy(float) * pixel_size.to_numpy()})
        rows = rows.drop(columns=old)
    return rows


def check_groups(rows: pd.DataFrame, optics: pd.DataFrame, source: Path) -> None:
    """Refuse tables whose rows name optics groups that do not exist, or exist twice.

    Raises
    ------
    TableError
        Naming the first such group.
    """
    groups = optics["optics_group"]
    if groups.duplicated().any():
        _refuse(
            source,
            "number each optics group once",
            f"group {groups[groups.duplicated()].iloc[0]} twice",
        )
    unknown = rows["optics_group"][~rows["optics_group"].isin(groups)]
    if len(unknown):
        _refuse(source, "describe every optics group", f"group {unknown.iloc[0]} without a row")


def _refuse(source: Path, must: str, got: str) -> None:
    raise TableError(f"{source}, data_optics,", must=must, got=got, remedy="Mend the table")


def check_pixel_size(optics: pd.DataFrame, source: Path, *, pixel_size: float | None) -> None:
    """Set the pixel size the user gave, or refuse a table without one.

    Parameters
    ----------
    optics
        Groups with our names; changed in place.
    source
        The file, for the message.
    pixel_size
        A/px; None leaves what the table says.

    Raises
    ------
    TableError
        If there is no pixel size, or one that is not above 0.
    """
    if pixel_size is not None:
        optics["pixel_size"] = float(pixel_size)
    if "pixel_size" not in optics.columns or not (optics["pixel_size"] > 0).all():
        sizes = optics["pixel_size"] if "pixel_size" in optics.columns else optics.index[:0]
        there = ", ".join(f"{size:g} A" for size in sizes) or "none"
        raise TableError(
            str(source),
            must="give the pixel size of its images",
            got=there,
            remedy="Give it with --pixel-size",
        )
