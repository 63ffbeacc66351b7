"""What a project holds, as a person asks for it: jobs, their states, who manages it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cryopick.pipeline.project import Project
from cryopick.pipeline.project_holder import read_holder, this_place
from cryopick.pipeline.project_index import ItemCounts
from cryopick.pipeline.project_layout import LOCK
from cryopick.pipeline.project_outdated import find_outdated
from cryopick.pipeline.project_records import StepRecord

__all__ = ["JobStatus", "ProjectStatus", "find_holder", "read_status"]

ShownState = Literal["running", "stopped", "done", "failed"]


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """One job."""

    number: int
    step: str
    state: ShownState  # stopped: begun, but nobody is at work on it
    aliases: tuple[str, ...]
    n_done: int  # items
    n_failed: int
    started: str
    seconds: float
    error: str  # why it failed
    outdated: str  # why it is; empty if it is not


@dataclass(frozen=True, kw_only=True)
class ProjectStatus:
    """A project and its jobs, in the order they were begun."""

    folder: str
    name: str
    created: str
    holder: str  # who manages it now; empty if nobody does
    jobs: tuple[JobStatus, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)


def read_status(project: Project) -> ProjectStatus:
    """Look at all jobs of a project.

    Parameters
    ----------
    project
        Opened for reading or writing.
    """
    holder, is_held = find_holder(project)
    jobs, aliases = project.jobs(), project.aliases()
    outdated = find_outdated(jobs, aliases)
    with project.read_index() as index:
        counts, note = index.counts(), index.note
    return ProjectStatus(
        folder=str(project.folder),
        name=project.description.name,
        created=project.description.created,
        holder=holder,
        jobs=tuple(
            _job(job, aliases, counts.get(number, ItemCounts()), outdated, is_held=is_held)
            for number, job in jobs.items()
        ),
        notes=(note,) if note else (),
    )


def find_holder(project: Project) -> tuple[str, bool]:
    """Say who manages a project, and whether that may still be.

    Parameters
    ----------
    project
        Opened for reading or writing.
    """
    found = read_holder(project.folder / LOCK)
    if found is None:
        return "", False
    if not this_place().sees(found):
        return f"{found} (whether it still runs cannot be seen from here)", True
    return (str(found), True) if found.is_alive else (f"{found} (it has ended)", False)


def _job(
    job: StepRecord,
    aliases: Mapping[str, int],
    counts: ItemCounts,
    outdated: Mapping[int, str],
    *,
    is_held: bool,
) -> JobStatus:
    is_stopped = job.state == "running" and not is_held
    return JobStatus(
        number=job.number,
        step=job.step,
        state="stopped" if is_stopped else job.state,
        aliases=tuple(name for name, number in aliases.items() if number == job.number),
        n_done=counts.n_done,
        n_failed=counts.n_failed,
        started=job.started,
        seconds=job.seconds,
        error=job.error,
        outdated=outdated.get(job.number, ""),
    )
