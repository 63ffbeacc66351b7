"""Remove outdated jobs of a project that nothing else is made of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryopick.io.atomic import output_errors, sync_folder
from cryopick.pipeline.project import REMOVED, Project
from cryopick.pipeline.project_layout import STEP
from cryopick.pipeline.project_outdated import find_needed, find_outdated

__all__ = ["OutdatedJob", "find_removable", "remove_jobs"]


@dataclass(frozen=True, kw_only=True)
class OutdatedJob:
    """A job that no alias stands for, and what would come of removing it."""

    number: int
    step: str
    why: str  # it is outdated
    needed_by: int | None  # a job that is made from it and stays: then it stays, too
    n_bytes: int


def find_removable(project: Project) -> list[OutdatedJob]:
    """List the outdated jobs of a project that no alias stands for, by number."""
    jobs, aliases = project.jobs(), project.aliases()
    named = set(aliases.values())
    outdated = {n: why for n, why in find_outdated(jobs, aliases).items() if n not in named}
    needed = find_needed(jobs, set(jobs) - set(outdated))
    return [
        OutdatedJob(
            number=number,
            step=jobs[number].step,
            why=why,
            needed_by=needed.get(number),
            n_bytes=_bytes_below(project.job_folder(number)),
        )
        for number, why in outdated.items()
    ]


def remove_jobs(project: Project, jobs: Sequence[OutdatedJob]) -> None:
    """Remove jobs with all their files; their numbers are not used again.

    Parameters
    ----------
    project
        Opened for writing.
    jobs
        From `find_removable`; those that others need stay.

    Raises
    ------
    ProjectError
        If the lease is lost.
    OutputError
        If a file cannot be removed.
    """
    chosen = [job for job in jobs if job.needed_by is None]
    if not chosen:
        return
    project.add_decision(
        REMOVED,
        jobs=[job.number for job in chosen],
        steps=[job.step for job in chosen],
        why=[job.why for job in chosen],
    )
    for job in chosen:
        project.require_lease()
        folder = project.job_folder(job.number)
        with output_errors(folder):
            (folder / STEP).unlink(missing_ok=True)  # from here on it is no job, if we are killed
            shutil.rmtree(folder)
            sync_folder(folder.parent)


def _bytes_below(folder: Path) -> int:
    """Add up what the files of a folder take of the disk."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            total += (Path(where) / name).lstat().st_blocks * 512
    return total
