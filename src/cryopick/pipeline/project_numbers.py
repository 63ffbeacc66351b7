"""Numbers of jobs, which never come to stand for another job, also after folders are deleted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from cryopick.io.atomic import make_folder, output_errors, sync_folder
from cryopick.pipeline.project_aliases import read_aliases, write_aliases
from cryopick.pipeline.project_decisions import add_decision, read_decisions
from cryopick.pipeline.project_layout import (
    JOBS,
    job_folder_name,
    list_job_folders,
    parse_job_folder,
)
from cryopick.pipeline.project_records import StepRecord

__all__ = [
    "MISSING",
    "REMOVED",
    "claim_folder",
    "drop_missing",
    "last_number",
    "removed_numbers",
]

REMOVED = "jobs removed"  # a choice, by `clean`
MISSING = "jobs missing"  # folders that somebody has deleted while an alias stood for them


def removed_numbers(project: Path, *kinds: str) -> set[int]:
    """Numbers of jobs that the choices of people of these kinds name."""
    return {n for d in read_decisions(project) if d.what in kinds for n in d.values["jobs"]}


def last_number(project: Path, jobs: Iterable[StepRecord]) -> int:
    """Find the highest number that a job has, or ever had as far as the files of a project tell.

    Parameters
    ----------
    project
        The folder.
    jobs
        Records of all jobs that are there.

    Returns
    -------
    int
        0 if there is none. Asked are the folders, the aliases, the removals, and the inputs of
        all jobs.

    Raises
    ------
    ProjectError
        If the file of aliases is broken.
    """
    return max(
        [
            0,
            *list_job_folders(project),
            *read_aliases(project).values(),
            *removed_numbers(project, REMOVED, MISSING),
            *(number for job in jobs for number in _inputs_of(project, job)),
        ]
    )


def claim_folder(project: Path, step: str, jobs: Iterable[StepRecord]) -> Path:
    """Make the folder of the next job. Whoever makes it has the number.

    Parameters
    ----------
    project
        The folder.
    step
        Of the job.
    jobs
        Records of all jobs that are there.

    Raises
    ------
    ProjectError
        If the file of aliases is broken.
    OutputError
        If it cannot be made.
    """
    parent = make_folder(project / JOBS)
    number = last_number(project, jobs)
    while True:
        number += 1
        folder = parent / job_folder_name(number, step)
        with output_errors(folder):
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            if len(list(parent.glob(f"{number:04d}_*"))) > 1:  # one that has lost its lease
                folder.rmdir()
                continue
            sync_folder(parent)
        return folder


def drop_missing(project: Path) -> list[str]:
    """Take back the aliases of jobs whose folders are gone; their numbers are kept in the choices.

    Parameters
    ----------
    project
        The folder, whose lease this process holds. One whose folder of jobs is gone as a whole
        is left alone: a disk may not be mounted.

    Returns
    -------
    list of str
        A sentence for each alias.

    Raises
    ------
    ProjectError
        If the file of aliases is broken.
    OutputError
        If it cannot be written.
    """
    aliases, folders = read_aliases(project), list_job_folders(project)
    lost = {name: number for name, number in aliases.items() if number not in folders}
    if not lost or not Path(project, JOBS).is_dir():
        return []
    numbers = sorted(set(lost.values()))
    if not set(numbers) <= removed_numbers(project, MISSING):  # before the alias forgets them
        add_decision(project, MISSING, {"jobs": numbers, "aliases": sorted(lost)})
    write_aliases(project, {n: k for n, k in aliases.items() if n not in lost})
    return [
        f"Alias {name} stood for job {number}, whose folder is gone; it stands for no job now."
        for name, number in lost.items()
    ]


def _inputs_of(project: Path, job: StepRecord) -> Iterator[int]:
    """Numbers of jobs of this project that a job had as inputs."""
    name = project.resolve().name
    for given in job.inputs:
        parts = PurePath(given).parts
        for above, jobs, folder in zip(("", *parts), parts, parts[1:], strict=False):
            parsed = parse_job_folder(folder)
            if jobs == JOBS and above in ("", name) and parsed is not None:
                yield parsed[0]
