"""Join tables of particles into one, with the optics groups of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cryopick.tables.model import Particles
from cryopick.tables.paths import rename_for

__all__ = ["join_particles"]

_FILES = ("image", "micrograph")  # columns of names that start near their table
_GROUPS = ("rlnGroupName", "micrograph", "image")  # the first that there is groups particles
_FLAGS = ("is_premultiplied", "is_phase_flipped")  # 0 where a table does not say


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
        are empty for its rows. Groups without particles are left out. If tables group their
        particles by different columns, a column rlnGroupName says of each what its table says.
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
    optics = pd.DataFrame(list(groups.values()))
    if "optics_group_name" in optics:
        optics["optics_group_name"] = _apart(optics["optics_group_name"])
    return Particles(rows=pd.concat(rows, ignore_index=True), optics=optics, source=target)


def _value(column: str, value: object) -> object:
    if value is None or pd.isna(value):  # type: ignore[call-overload]
        return 0 if column in _FLAGS else None
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
