"""Join tables of particles into one, with the optics groups of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.tables.model import Particles
from cryopick.tables.paths import rename_for

__all__ = ["join_particles"]

_FILES = ("image", "micrograph")  # columns of names that start near their table
_GROUPS = ("rlnGroupName", "micrograph", "image")  # the first that there is groups particles
_UNSAID = {  # what holds where a table does not say it; whole numbers cannot be empty
    "is_premultiplied": 0,
    "is_phase_flipped": 0,
    "image_dimensions": 2,
    "class_number": 0,
    "is_junk": 0,
    "is_ctf_trusted": 1,
}
_OF_ALL = ("box_size", "group_number", "n_significant")  # other whole numbers: of all or of none


def join_particles(parts: Sequence[Particles], *, target: Path) -> Particles:
    """Put tables one below the other.

    Parameters
    ----------
    parts
        At least one.
    target
        The file the result will be written to; names of images are made to work from there.

    Returns
    -------
    Particles
        Groups that are alike in all that is known of them, and in name, are one group; groups
        that share a name but are not alike get names of their own. Columns that a table lacks
        are empty for its rows; whole numbers hold what goes without saying, or are left out.
        Groups without particles are left out. If tables group their particles by different
        columns, a column rlnGroupName says of each what its table says.
    """
    rows: list[pd.DataFrame] = []
    groups: dict[tuple[object, ...], dict[str, object]] = {}
    columns = list(dict.fromkeys(c for part in parts for c in part.optics.columns))
    grouping = [next((c for c in _GROUPS if c in part.rows), None) for part in parts]
    is_mixed = len(set(grouping)) > 1
    for part, own in zip(parts, grouping, strict=True):
        numbers: dict[object, int] = {}
        used = part.optics[part.optics["optics_group"].isin(part.rows["optics_group"])]
        for group in used.to_dict("records"):
            known = {c: _value(c, group.get(c)) for c in columns if c != "optics_group"}
            key = tuple(known.values())
            if key not in groups:
                groups[key] = {"optics_group": len(groups) + 1, **known}
            numbers[group["optics_group"]] = int(str(groups[key]["optics_group"]))
        renamed = part.rows.assign(optics_group=part.rows["optics_group"].map(numbers))
        for column in _FILES:
            if column in renamed:
                renamed[column] = _renamed(renamed[column], part.source, target)
        if is_mixed and own is not None:
            renamed[_GROUPS[0]] = renamed[own].astype(str)
        rows.append(renamed)
    optics = _whole(pd.DataFrame(list(groups.values())))
    if "optics_group_name" in optics:
        optics["optics_group_name"] = _apart(optics["optics_group_name"])
    joined = _whole(pd.concat(rows, ignore_index=True))
    return Particles(rows=joined, optics=optics, source=target)


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """Keep whole numbers whole where some of the tables lack them."""
    kept = table.drop(columns=[c for c in _OF_ALL if c in table and table[c].isna().any()])
    known = {c: kept[c].fillna(v).astype(np.int64) for c, v in _UNSAID.items() if c in kept}
    return kept.assign(**known)


def _value(column: str, value: object) -> object:
    if value is None or pd.isna(value):  # type: ignore[call-overload]
        return _UNSAID.get(column)
    return value


def _renamed(names: pd.Series, source: Path | None, target: Path) -> pd.Series:
    """Name each file so that it is found from the target; a file is looked for once."""
    known = {n: rename_for(str(n), source=source, target=target) for n in names.dropna().unique()}
    return names.map(known)


def _apart(names: pd.Series) -> list[str]:
    """Give names that occur again a number."""
    found: dict[str, int] = {}
    result = []
    for name in names.astype(str):
        found[name] = found.get(name, 0) + 1
        result.append(name if found[name] == 1 else f"{name}_{found[name]}")
    return result
