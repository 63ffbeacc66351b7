"""Which job of a project has done a step of a run, or may go on with it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryopick.pipeline.job import identity_of
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_layout import LEDGER
from cryopick.pipeline.project_records import StepRecord, made_files, read_ledger

__all__ = ["FoundJob", "ListedMicrograph", "find_job", "made_by_set", "stamp_of"]


@dataclass(frozen=True, kw_only=True)
class ListedMicrograph:
    """A micrograph of a run."""

    path: Path
    said: str  # all that its table says of it


@dataclass(frozen=True, kw_only=True)
class FoundJob:
    """A job of the step that is wanted."""

    record: StepRecord
    is_whole: bool  # nothing is left to do
    lost: tuple[str, ...] = ()  # items whose files somebody has removed, to be made again


def stamp_of(micrographs: Sequence[ListedMicrograph]) -> str:
    """Name micrographs as they are now."""
    lines = [f"{one.path} {identity_of(one.path)} {one.said}" for one in micrographs]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def find_job(
    project: Project, step: str, identity: str, micrographs: Sequence[ListedMicrograph], stop: int
) -> FoundJob | None:
    """Find the job to take, or to go on with.

    A job that is done is gone on with only for micrographs that were added after those it has
    seen: what others hold of it stays as it was. For micrographs that were
    changed or removed a new job is to be made.

    Parameters
    ----------
    project
        Open.
    step, identity
        What the job is to be.
    micrographs
        All of the run, in their order.
    stop
        How many of them, the first, the job is to work on, or depends on. One that went on to
        more of them is taken as it is.

    Returns
    -------
    FoundJob or None
        None if there is no such job.
    """
    records = project.jobs().values()
    fits = [j for j in records if (j.step, j.identity) == (step, identity)]
    fits.sort(key=lambda job: -job.number)
    wanted = min(stop, len(micrographs))
    seen = {j.number: _n_seen(j, micrographs) for j in fits}
    lost = {j.number: _lost_items(project.job_folder(j.number), j) for j in fits}
    for job in fits:
        is_known = job.is_done and seen[job.number] >= wanted
        if is_known and not lost[job.number] and _is_whole(project, job):
            return FoundJob(record=job, is_whole=True)
    for job in fits:
        if not job.is_done or seen[job.number] >= min(wanted, 1):
            return FoundJob(record=job, is_whole=False, lost=lost[job.number])
    return None


def made_by_set(folder: Path, content: Sequence[Path]) -> list[str]:
    """Name the files of a set in the folder of its job, for its record to promise."""
    return sorted(str(path.relative_to(folder)) for path in content)


def _n_seen(job: StepRecord, micrographs: Sequence[ListedMicrograph]) -> int:
    """Count the micrographs, the first, that a job has seen as they are now; -1 if not all are."""
    result = job.result or {}
    count = int(result.get("n_inputs", -1))
    is_same = 0 <= count <= len(micrographs) and result.get("inputs") == stamp_of(
        micrographs[:count]
    )
    return count if is_same else -1


def _is_whole(project: Project, job: StepRecord) -> bool:
    """Whether the tables of a job are there as it left them."""
    folder = project.job_folder(job.number)
    made = (job.result or {}).get("made", ())
    return made_files(folder) == dict(job.files) and all((folder / n).is_file() for n in made)


def _lost_items(folder: Path, job: StepRecord) -> tuple[str, ...]:
    """Find the items whose ledger lines promise files that are not there.

    In a job that is not done only the first file of each counts: the others may join them later.
    """
    last = {line.key: line for line in read_ledger(folder / LEDGER)}
    there: dict[Path, set[str]] = {}
    lost = []
    for line in last.values():
        files = () if line.error else line.files if job.is_done else line.files[:1]
        for path in (folder / name for name in files):
            if path.parent not in there:
                there[path.parent] = _names_in(path.parent)
            if path.name not in there[path.parent]:
                lost.append(line.key)
                break
    return tuple(lost)


def _names_in(folder: Path) -> set[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return {path.name for path in folder.iterdir()}
    return set()
