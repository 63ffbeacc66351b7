"""The particles of the micrographs that people accept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryopick.errors import DataError
from cryopick.pipeline.field_choices import FieldChoices, judge_fields, read_choices
from cryopick.pipeline.field_table import FieldTable
from cryopick.tables.paths import rename_for
from cryopick.tables.relion import read_particles, write_particles

__all__ = ["choices_before_classes", "name_choices", "write_accepted"]

_OF_CLASSES = ("selected", "yield")  # known only after the classes that the choice is made for


def choices_before_classes(project: Path) -> FieldChoices:
    """Read the choices of people that can be heeded before there are classes."""
    choices = read_choices(project)
    limits = {name: pair for name, pair in choices.limits.items() if name not in _OF_CLASSES}
    return replace(choices, limits=limits)


def name_choices(project: Path) -> str:
    """Name what people have chosen of the micrographs of a project; empty if nothing."""
    choices = choices_before_classes(project)
    ticks = {name: tick for name, (tick, _) in choices.ticks.items()}
    if not choices.limits and not ticks:
        return ""
    text = json.dumps([choices.limits, ticks], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_accepted(project: Path, particles: Path, folder: Path) -> dict[str, Any]:
    """Write the table of the particles of the micrographs that are accepted.

    Parameters
    ----------
    project
        The folder, with the choices of people and the jobs that they go by.
    particles
        Folder of the job with ``particles.star``.
    folder
        Where another goes.

    Returns
    -------
    dict
        Numbers of micrographs and particles.

    Raises
    ------
    DataError
        If none is left.
    """
    fields = FieldTable(project=project)
    fields.refresh()
    states = judge_fields(fields, choices_before_classes(project))
    source = particles / "particles.star"
    table = read_particles(source)
    names = [str(name) for name in table.rows["micrograph"]]
    places = {name: fields.place_of(name) for name in set(names)}
    is_kept = {
        name: place is not None and bool(states.is_accepted[place])
        for name, place in places.items()
    }
    rows = table.rows[[is_kept[name] for name in names]].reset_index(drop=True)
    if not len(rows):
        raise DataError(
            "the choice of micrographs",
            must="accept one that has particles",
            got=f"none of {len(places)}",
            remedy="Widen the limits: cryopick session accept",
        )
    target = folder / "particles.star"
    known = {n: rename_for(str(n), source=source, target=target) for n in rows["image"].unique()}
    rows = rows.assign(image=rows["image"].map(known))
    optics = table.optics[table.optics["optics_group"].isin(rows["optics_group"])]
    write_particles(target, replace(table, rows=rows, optics=optics))
    return {
        "n_micrographs": len(fields),
        "n_accepted": int(states.is_accepted.sum()),
        "n_particles_given": len(table),
        "n_particles": len(rows),
        "failed": {},
        "warnings": [],
    }
