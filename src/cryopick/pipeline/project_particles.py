"""Which particles, picks and micrographs a project stands for: those that its aliases name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryopick.pipeline.project import Project
from cryopick.pipeline.project_outdated import find_needed, find_outdated
from cryopick.pipeline.project_records import StepRecord

__all__ = ["ProjectParticles", "find_micrographs", "find_particles", "find_picks"]

_ALIASES = ("selection", "classes", "particles")  # the first one that has particles is taken
_KINDS = ("Select", "Class2D", "Extract")  # likewise, where no alias has these names
_PICKS, _PARTICLES = "autopick.star", "particles.star"
_MICROGRAPHS = ("micrographs.star", "micrographs_ctf.star")

Exported = Sequence[tuple[StepRecord, str]]


@dataclass(frozen=True, kw_only=True)
class ProjectParticles:
    """The particles that a project stands for."""

    job: StepRecord
    table: Path
    notes: tuple[str, ...]  # clauses: what may make them other than the user believes


def find_particles(project: Project, jobs: Exported) -> ProjectParticles | None:
    """Find the particles to go on with: of the alias selection, else classes, else particles.

    In a project without these aliases, a selection comes before classes and these before an
    extraction; then a job with an alias, one that is not outdated, and the latest one.

    Parameters
    ----------
    project
        Opened for reading or writing.
    jobs
        Those that are exported, with RELION's word for what each does.

    Returns
    -------
    ProjectParticles or None
        None if no job has particles.
    """
    tables = {job.number: _particle_table(project.job_folder(job.number)) for job, _ in jobs}
    found = {job.number: (job, kind) for job, kind in jobs if kind in _KINDS and tables[job.number]}
    aliases = project.aliases()
    outdated = find_outdated(project.jobs(), aliases)
    named = [aliases[name] for name in _ALIASES if aliases.get(name) in found]
    rest = sorted(found, key=lambda n: _rank(*found[n], aliases=aliases, outdated=outdated))
    for number in (*named[:1], *rest[:1]):
        job, kind = found[number]
        table = tables[number]
        if table is not None:
            notes = tuple(_doubts(job, kind, outdated.get(number, "")))
            return ProjectParticles(job=job, table=table, notes=notes)
    return None


def find_picks(project: Project, jobs: Exported, particles: ProjectParticles | None) -> Path | None:
    """Find the picks to go on with: of the alias picks, else those the particles were cut at.

    Parameters
    ----------
    project
        Opened for reading or writing.
    jobs
        Those that are exported, with RELION's word for what each does.
    particles
        Those of `find_particles`.

    Returns
    -------
    Path or None
        None if no job has picks.
    """
    picks = [job.number for job, kind in jobs if kind == "AutoPick"]
    picks = [n for n in picks if (project.job_folder(n) / _PICKS).is_file()]
    used = find_needed(project.jobs(), {particles.job.number}) if particles else {}
    aliases = project.aliases()
    named = {aliases.get("picks", 0)}
    best = max(picks, key=lambda n: (n in named, n in used, n), default=None)
    return None if best is None else project.job_folder(best) / _PICKS


def find_micrographs(project: Project, jobs: Exported) -> Path | None:
    """Find the table of all micrographs of a project; else that of its current CTF estimation.

    Parameters
    ----------
    project
        Opened for reading or writing.
    jobs
        Those that are exported, with RELION's word for what each does.

    Returns
    -------
    Path or None
        None if the project has no such table.
    """
    current = set(project.aliases().values())
    lists = sorted(jobs, key=lambda job: (job[0].number in current, job[0].number), reverse=True)
    folders = [project.folder, *(project.job_folder(job.number) for job, _ in lists)]
    places = (folder / name for folder in folders for name in _MICROGRAPHS)
    return next((path for path in places if path.is_file()), None)


def _particle_table(folder: Path) -> Path | None:
    """Table of the particles of a job; of a classification the last one that it wrote."""
    data = sorted(folder.glob("run_it[0-9][0-9][0-9]_data.star"))
    paths = (path for path in (folder / _PARTICLES, *data[-1:]) if path.is_file())
    return next(paths, None)


def _rank(
    job: StepRecord, kind: str, *, aliases: Mapping[str, int], outdated: Mapping[int, str]
) -> tuple[int, bool, bool, int]:
    is_unnamed = job.number not in aliases.values()
    return _KINDS.index(kind), is_unnamed, job.number in outdated, -job.number


def _doubts(job: StepRecord, kind: str, outdated: str) -> Iterator[str]:
    if outdated:
        yield f"the particles are those of job {job.number} ({job.step}), outdated: {outdated}"
    if kind != "Select":
        yield (
            f"the particles are those of job {job.number} ({job.step}), which is not a selection: "
            "false picks are still among them"
        )
