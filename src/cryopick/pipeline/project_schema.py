"""The form of a project folder: its number, and how a project of an older form is brought up.

A migration changes a folder of one schema into the next. It is begun again if it was killed, so
it must not mind what it has done already.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick import __version__
from cryopick.errors import ProjectError
from cryopick.io.atomic import make_folder, remove_leftovers, sync_folder, write_json
from cryopick.io.json_files import read_object
from cryopick.pipeline.project_aliases import read_aliases, write_aliases
from cryopick.pipeline.project_layout import DESCRIPTION, JOBS, STEP, job_folder_name, now
from cryopick.pipeline.project_records import JobState, StepRecord, write_step

__all__ = [
    "MIGRATIONS",
    "SCHEMA",
    "Migration",
    "ProjectDescription",
    "is_unnumbered",
    "migrate",
    "new_description",
    "read_description",
    "write_description",
]

SCHEMA = 1
Migration = Callable[[Path], None]

_FIRST_STEPS = ("pick", "extract")  # folders of a project before projects had a schema


@dataclass(frozen=True, kw_only=True)
class ProjectDescription:
    """What ``project.json`` says; only the schema ever changes."""

    schema: int
    uuid: str
    name: str
    created: str
    version: str  # of cryopick, that made the project


def new_description(name: str, *, schema: int = SCHEMA) -> ProjectDescription:
    """Describe a project that is made now."""
    return ProjectDescription(
        schema=schema, uuid=uuid.uuid4().hex, name=name, created=now(), version=__version__
    )


def read_description(project: Path) -> ProjectDescription | None:
    """Read ``project.json``; None where there is none.

    Raises
    ------
    ProjectError
        If it is broken, or of a newer schema than this version knows.
    """
    path = Path(project, DESCRIPTION)
    try:
        values = json.loads(path.read_bytes())
        schema = int(values["schema"])
        description = ProjectDescription(
            schema=schema,
            **{n: str(values.get(n, "")) for n in ("uuid", "name", "created", "version")},
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProjectError(
            str(path),
            must="describe a project",
            got="something else",
            remedy="Bring it back from a backup, or choose another folder",
        ) from error
    if schema > SCHEMA:
        raise ProjectError(
            str(project),
            must=f"have schema {SCHEMA} at most for cryopick {__version__}",
            got=f"schema {schema}, of cryopick {description.version}",
            remedy="Install that version or a later one",
        )
    return description


def write_description(project: Path, description: ProjectDescription) -> None:
    """Write ``project.json``, whole or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_json(Path(project, DESCRIPTION), vars(description))


def is_unnumbered(project: Path) -> bool:
    """Whether a folder is a project from before projects had a schema: pick/ and extract/."""
    pick = Path(project, "pick")
    if Path(project, DESCRIPTION).exists() or pick.is_symlink():
        return False
    return str(_read_job(pick).get("name", "")).startswith("pick ")


def migrate(
    project: Path,
    description: ProjectDescription,
    *,
    migrations: Mapping[int, Migration] | None = None,
    schema: int = SCHEMA,
) -> ProjectDescription:
    """Bring a project up to the newest schema, one step after the other.

    Parameters
    ----------
    project
        The folder, which nobody else may change meanwhile.
    description
        As it was found there.
    migrations
        Functions by the schema that each brings to the next; those of cryopick if not given.
    schema
        The newest.

    Raises
    ------
    ProjectError
        If there is no way from the schema of the project to the newest.
    OutputError
        If the folder cannot be written.
    """
    known = MIGRATIONS if migrations is None else migrations
    while description.schema < schema:
        step = known.get(description.schema)
        if step is None:
            raise ProjectError(
                str(project),
                must=f"have a schema from {min(known, default=schema)} to {schema}",
                got=f"schema {description.schema}",
                remedy="Make a new project",
            )
        step(project)
        description = ProjectDescription(**{**vars(description), "schema": description.schema + 1})
        write_description(project, description)
    return description


def _number_first_jobs(project: Path) -> None:
    """Bring schema 0 to 1: pick/ and extract/ become numbered jobs with aliases of these names."""
    aliases = read_aliases(project)
    jobs = make_folder(project / JOBS)
    for number, step in enumerate(_FIRST_STEPS, start=1):
        old, new = project / step, jobs / job_folder_name(number, step)
        if not old.is_symlink() and (old / "job.json").exists() and not new.exists():
            old.rename(new)
            sync_folder(jobs)
        if (new / "job.json").exists():
            remove_leftovers(new, is_deep=False)  # if this was killed before
            if not (new / STEP).exists():
                write_step(new, _record_of(new, number, step))
            aliases[step] = number
    write_aliases(project, aliases)


def _record_of(folder: Path, number: int, step: str) -> StepRecord:
    """Make the record of a job that had none. What it depends on was not written down."""
    job = _read_job(folder)
    state: JobState = "done" if job.get("state") == "finished" else "running"
    return StepRecord(
        number=number,
        step=step,
        identity="",
        upstream={"pick": ""} if step == "extract" else {},
        state=state,
        parameters=dict(job.get("parameters") or {}),
        command=str(job.get("command") or ""),
        versions=dict(job.get("versions") or {}),
        inputs=tuple(map(str, job.get("inputs") or ())),
        started=str(job.get("started") or ""),
        seconds=float(job.get("seconds") or 0.0),
    )


def _read_job(folder: Path) -> dict[str, Any]:
    return read_object(folder / "job.json") or {}


MIGRATIONS: Mapping[int, Migration] = {0: _number_first_jobs}
