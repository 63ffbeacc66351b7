"""Picks of a job after what people have edited, as a set that every command takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cryopick.errors import DataError
from cryopick.pipeline.field_choices import judge_fields, read_choices
from cryopick.pipeline.field_table import FieldTable
from cryopick.pipeline.job import Job
from cryopick.pipeline.pick_edits import PickEdit, apply_edits, standing
from cryopick.pipeline.pick_sets import PickSet, read_field_picks
from cryopick.tables.paths import micrograph_key
from cryopick.tables.relion import read_micrographs, write_coordinate_files, write_picks_file

__all__ = ["REACH", "SavedPicks", "edited_picks", "reach_of", "save_picks", "save_project_picks"]

REACH = 10.0  # px, of a position that takes a pick away, where no diameter is known
_OF_DIAMETER = 0.2


@dataclass(frozen=True, kw_only=True)
class SavedPicks:
    """What was written."""

    folder: Path
    n_picks: int
    n_fields: int
    n_added: int


def reach_of(picks: pd.DataFrame, *, pixel_size: float) -> float:
    """Tell how far from a pick a position still means it, px: a fifth of the diameter.

    Parameters
    ----------
    picks
        With a column diameter in A, if that is known.
    pixel_size
        A/px of the field.
    """
    if "diameter" not in picks or not len(picks) or not pixel_size > 0:
        return REACH
    reach = _OF_DIAMETER * float(picks["diameter"].median()) / pixel_size
    return reach if reach > 0 else REACH


def edited_picks(
    folder: Path,
    micrograph: str,
    edits: Sequence[PickEdit],
    *,
    threshold: float | None,
    pixel_size: float,
) -> tuple[pd.DataFrame, list[int]]:
    """Give the picks of a field after all edits.

    Parameters
    ----------
    folder
        Of the picking job.
    micrograph
        Name of the field.
    edits
        Of the set.
    threshold
        Peaks of at least this score count, instead of the picks of the job.
    pixel_size
        A/px of the field.

    Returns
    -------
    tuple
        The picks, and for each 0 if the picker found it, 1 if a person added it.

    Raises
    ------
    FormatError, TableError
        If the file of the field is broken.
    """
    has_peaks = threshold is not None and (folder / "peaks").is_dir()
    picks = read_field_picks(folder, micrograph, peaks=has_peaks)
    reach = reach_of(picks, pixel_size=pixel_size)
    if threshold is not None and "fom" in picks:
        picks = picks[picks["fom"] >= threshold]
    rows, origin = apply_edits(picks, standing(edits, micrograph), reach=reach)
    return rows, [int(o) for o in origin]


def save_picks(
    source: PickSet,
    edits: Sequence[PickEdit],
    fields: Mapping[str, float],
    out: Path,
    *,
    threshold: float | None = None,
    only_edited: bool = False,
    accepted: Collection[str] | None = None,
    overwrite: bool = False,
) -> SavedPicks:
    """Write picks with what people have edited.

    Parameters
    ----------
    source
        The set, up to date.
    edits
        Of the set.
    fields
        A/px of each field, by the name that the table of the project has.
    out
        Folder for ``autopick.star`` and a file for each field.
    threshold
        Peaks of at least this score count, instead of the picks of the job.
    only_edited
        Leave out fields that nobody has edited.
    accepted
        Names of the fields to take; all if not given.
    overwrite
        Replace what was saved in `out` before.

    Raises
    ------
    DataError
        If no field is left.
    ProjectError, OutputError
        If the folder holds something else or cannot be written.
    """
    touched = {micrograph_key(e.micrograph) for e in edits if standing(edits, e.micrograph)}
    names = [
        name
        for name in fields
        if (micrograph_key(name) in source.counts or micrograph_key(name) in touched)
        and (not only_edited or micrograph_key(name) in touched)
        and (accepted is None or name in accepted)
    ]
    if not names:
        raise DataError(
            str(source.folder),
            must="have picks in a field that is to be saved",
            got="no such field",
            remedy="Accept more fields, or edit one",
        )
    parameters = {
        "set": str(source.folder),
        "threshold": threshold,
        "only_edited": only_edited,
        "edits": max((e.number for e in edits), default=0),
    }
    score, pairs, n_picks, n_added = source.score(), [], 0, 0
    with Job(
        out,
        name="project picks",
        parameters=parameters,
        inputs=[str(source.folder)],
        overwrite=overwrite,
    ):
        for old in sorted(out.rglob("*_autopick.star")):  # of fields that are left out now
            old.unlink()
        for name in names:
            rows, origin = edited_picks(
                source.folder, name, edits, threshold=threshold, pixel_size=fields[name]
            )
            path = out / f"{micrograph_key(name)}_autopick.star"
            write_picks_file(path, rows, score=score)
            pairs.append((name, str(path)))
            n_picks, n_added = n_picks + len(rows), n_added + sum(origin)
        write_coordinate_files(out / "autopick.star", pairs)
    return SavedPicks(folder=out, n_picks=n_picks, n_fields=len(names), n_added=n_added)


def save_project_picks(
    project: Path,
    folder: Path,
    edits: Sequence[PickEdit],
    out: Path,
    *,
    threshold: float | None = None,
    only_edited: bool = False,
    all_fields: bool = False,
    overwrite: bool = False,
) -> SavedPicks:
    """Write picks of a project with what people have edited, in the fields that are accepted.

    Parameters
    ----------
    project
        Its folder.
    folder
        Of the picks.
    edits, out, threshold, only_edited, overwrite
        As for `save_picks`.
    all_fields
        Take those that are not accepted, too.

    Raises
    ------
    DataError
        If no field is left.
    ProjectError, OutputError
        If `out` holds something else or cannot be written.
    """
    table = FieldTable(project=project)
    table.refresh()
    source = PickSet(folder=folder)
    source.refresh()
    states = judge_fields(table, read_choices(project), tells_why=False)
    accepted = {name for name, is_in in zip(table.names, states.is_accepted, strict=True) if is_in}
    return save_picks(
        source,
        edits,
        _pixel_sizes(table),
        out,
        threshold=threshold,
        only_edited=only_edited,
        accepted=None if all_fields else accepted,
        overwrite=overwrite,
    )


def _pixel_sizes(table: FieldTable) -> dict[str, float]:
    """Give the pixel size of each field, A/px, by its name."""
    if table.source is None:
        return {}
    given = read_micrographs(table.source)
    sizes = given.optics.set_index("optics_group")["pixel_size"]
    return dict(
        zip(
            map(str, given.rows["micrograph"]),
            map(float, given.rows["optics_group"].map(sizes)),
            strict=True,
        )
    )
