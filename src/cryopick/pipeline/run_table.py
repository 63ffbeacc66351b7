"""The table of the micrographs of a run, in the folder of its project; it only grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cryopick.pipeline.run_context import real_path
from cryopick.pipeline.run_jobs import ListedMicrograph
from cryopick.tables.micrographs import micrograph_path
from cryopick.tables.model import Micrographs
from cryopick.tables.paths import rename_for
from cryopick.tables.relion import read_micrographs, write_micrographs

__all__ = ["MICROGRAPHS", "has_ctf", "join_micrographs", "listed_micrographs", "write_run_table"]

MICROGRAPHS = "micrographs.star"
_OF_GROUP = ("optics_group", "optics_group_name")


def has_ctf(micrographs: Micrographs) -> bool:
    """Whether a table says the defocus of every micrograph."""
    rows = micrographs.rows
    return "defocus_u" in rows and bool(rows["defocus_u"].notna().all())


def _paths(micrographs: Micrographs) -> list[Path]:
    names = [str(name) for name in micrographs.rows["micrograph"]]
    return [real_path(micrograph_path(name, micrographs.source)) for name in names]


def _places(micrographs: Micrographs) -> list[tuple[Path, int]]:
    """Tell where each micrograph lies, and how many names before had led there."""
    seen: Counter[Path] = Counter()
    places = []
    for path in _paths(micrographs):
        places.append((path, seen[path]))
        seen[path] += 1
    return places


def listed_micrographs(micrographs: Micrographs) -> list[ListedMicrograph]:
    """Tell where each micrograph lies, and what the table says of it and of its optics."""
    optics = micrographs.optics.set_index("optics_group")
    rows = micrographs.rows.drop(columns="micrograph")
    return [
        ListedMicrograph(path=path, said=f"{row} {optics.loc[row['optics_group']].to_dict()}")
        for path, row in zip(_paths(micrographs), rows.to_dict("records"), strict=True)
    ]


def write_run_table(path: Path, given: Micrographs) -> Path:
    """Write the micrographs that a run was given.

    Those that the project knows keep their order and their names, whatever the order of the list
    and the working folder; new ones follow.

    Parameters
    ----------
    path
        Of the table.
    given
        All micrographs.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    places = _places(given)
    names = [rename_for(str(n), source=given.source, target=path) for n in given.rows["micrograph"]]
    known: dict[tuple[Path, int], tuple[int, str]] = {}
    if path.exists():
        before = read_micrographs(path)
        listed = zip(_places(before), before.rows["micrograph"], strict=True)
        known = {place: (number, str(name)) for number, (place, name) in enumerate(listed)}
    first = len(known)
    order = sorted(range(len(places)), key=lambda k: known.get(places[k], (first + k, ""))[0])
    renamed = [known.get(places[k], (0, names[k]))[1] for k in order]
    rows = given.rows.iloc[order].reset_index(drop=True).assign(micrograph=renamed)
    table = replace(given, rows=rows)
    write_micrographs(path, table if given.source is not None else _renumbered(table))
    return path


def _renumbered(table: Micrographs) -> Micrographs:
    """Give optics groups the order of their first rows, so that later images change no number."""
    numbers = {old: k + 1 for k, old in enumerate(dict.fromkeys(table.rows["optics_group"]))}
    optics = table.optics.assign(optics_group=table.optics["optics_group"].map(numbers))
    optics = optics.sort_values("optics_group").reset_index(drop=True)
    names = [f"opticsGroup{n}" for n in optics["optics_group"]]
    rows = table.rows.assign(optics_group=table.rows["optics_group"].map(numbers))
    return replace(table, rows=rows, optics=optics.assign(optics_group_name=names))


def join_micrographs(first: Micrographs, second: Micrographs, *, target: Path) -> Micrographs:
    """Put one table below another.

    Parameters
    ----------
    first, second
        Groups of the second that are alike in all but number and name to one of the first become
        this one; others are numbered on.
    target
        The file that the result will be written to.
    """
    groups = first.optics.to_dict("records")
    known = {_said_of_group(group): int(group["optics_group"]) for group in groups}
    numbers: dict[object, int] = {}
    for group in second.optics.to_dict("records"):
        said, number = _said_of_group(group), max(known.values()) + 1
        if said not in known:
            named: dict[Hashable, object] = {
                "optics_group": number,
                "optics_group_name": f"opticsGroup{number}",
            }
            groups.append({**group, **named})
        numbers[group["optics_group"]] = known.setdefault(said, number)
    renamed = [
        rename_for(str(n), source=second.source, target=target) for n in second.rows["micrograph"]
    ]
    rows = second.rows.assign(
        micrograph=renamed, optics_group=second.rows["optics_group"].map(numbers)
    )
    return replace(
        first,
        rows=pd.concat([first.rows, rows], ignore_index=True),
        optics=pd.DataFrame(groups),
        source=target,
    )


def _said_of_group(group: Mapping[Hashable, object]) -> str:
    """All that is known of an optics group, as a table writes it."""
    kept = {str(k): v for k, v in group.items() if k not in _OF_GROUP and not pd.isna(v)}  # type: ignore[call-overload]
    return str(sorted((k, f"{v:.6g}" if isinstance(v, float) else str(v)) for k, v in kept.items()))
