"""``cryopick project``: look at a project, check it, name its jobs, remove outdated ones."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryopick.cli.console import EXIT_SOME_FAILED, print_result, warn
from cryopick.errors import ParameterError

if TYPE_CHECKING:
    from cryopick.pipeline.project import Project
    from cryopick.pipeline.project_clean import OutdatedJob
    from cryopick.pipeline.project_status import JobStatus, ProjectStatus

__all__ = ["project_app"]


class Layout(StrEnum):
    """A program to export to."""

    relion = "relion"
    scipion = "scipion"
    cryosparc = "cryosparc"


project_app = typer.Typer(
    help="Look at a project, check it, name its jobs, remove outdated ones.", no_args_is_help=True
)

_HEADINGS: tuple[str, ...] = (
    "job",
    "step",
    "state",
    "done",
    "failed",
    "started",
    "time",
    "aliases",
)

Folder = Annotated[Path, typer.Argument(help="Folder of the project.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@project_app.command("status")
def status(project: Folder, *, is_json: Json = False) -> None:
    """List the jobs of a project: state, items done and failed, what is outdated and why.

    Works while another process manages the project, and says which.
    """
    from cryopick.pipeline.project import Project
    from cryopick.pipeline.project_status import read_status

    with Project.open(project, writes=False) as opened:
        found = read_status(opened)
    for note in found.notes:
        warn(note)
    print_result(found.to_dict(), _status_lines(found), is_json=is_json)


@project_app.command("verify")
def verify(project: Folder, *, is_json: Json = False) -> None:
    """Check that every file that the project promises is there and whole. Nothing is changed.

    Also said are leftovers of killed processes, aliases without a job, and an index that differs
    from the files. Exit code 3 says that something was found.
    """
    from cryopick.pipeline.project import Project
    from cryopick.pipeline.project_verify import verify_project

    with Project.open(project, writes=False) as opened:
        faults = verify_project(opened.folder)
    print_result(
        {"folder": str(project), "faults": faults},
        faults or ["The files of the project are whole, and its index agrees with them."],
        is_json=is_json,
    )
    if faults:
        raise typer.Exit(EXIT_SOME_FAILED)


@project_app.command("rebuild")
def rebuild(project: Folder, *, is_json: Json = False) -> None:
    """Make the index of a project anew from its files; bring an older project up to date.

    What killed processes left half written is removed.
    """
    from cryopick.io.atomic import find_leftovers
    from cryopick.pipeline.project import Project
    from cryopick.pipeline.project_index import Index

    with Project.open(project, tell=warn) as opened:
        _tell_notes(opened)
        for path in find_leftovers(opened.folder):
            path.unlink(missing_ok=True)
        Index.rebuild(opened.folder)
        with opened.read_index() as index:
            counts = index.counts()
        n_jobs = len(opened.jobs())
    n_items = sum(sum(count) for count in counts.values())
    print_result(
        {"folder": str(project), "n_jobs": n_jobs, "n_items": n_items},
        [f"Indexed {_count(n_jobs, 'job')} with {_count(n_items, 'item')}."],
        is_json=is_json,
    )


@project_app.command("alias")
def alias(
    project: Folder,
    name: Annotated[str, typer.Argument(help="The name: letters, digits, _ and -.")],
    number: Annotated[int | None, typer.Argument(help="Number of the job.")] = None,
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Take the name back.")] = False,
    is_json: Json = False,
) -> None:
    """Let a name stand for a job: a link of that name leads to it, and `clean` keeps the job."""
    from cryopick.pipeline.project import Project

    if (number is None) != remove:
        raise ParameterError(
            "NUMBER",
            must="be given, or --remove, and not both",
            got="neither" if number is None else "both",
            remedy="List the jobs with: cryopick project status",
        )
    with Project.open(project, tell=warn) as opened:
        _tell_notes(opened)
        if number is None:
            opened.remove_alias(name)
            line = f"{name} stands for no job any more."
        else:
            opened.set_alias(name, number)
            line = f"{project / name} leads to {opened.job_folder(number)}."
        print_result({"aliases": opened.aliases()}, [line], is_json=is_json)


@project_app.command("clean")
def clean(
    project: Folder,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    is_json: Json = False,
) -> None:
    """Remove the outdated jobs of a project that no alias stands for and no other job needs.

    What will go, and the room that it takes, is shown first. Nothing can bring it back.
    """
    from cryopick.pipeline.project import Project
    from cryopick.pipeline.project_clean import find_removable, remove_jobs

    with Project.open(project, tell=warn) as opened:
        _tell_notes(opened)
        found = find_removable(opened)
        chosen = [job for job in found if job.needed_by is None]
        for line in _clean_lines(found):
            warn(line)
        if chosen and not yes:
            _require_consent(len(chosen))
        remove_jobs(opened, found)
    numbers, n_bytes = [job.number for job in chosen], sum(job.n_bytes for job in chosen)
    print_result(
        {"folder": str(project), "removed": numbers, "bytes": n_bytes},
        [f"Removed {_count(len(numbers), 'job')}."],
        is_json=is_json,
    )


@project_app.command("export")
def export(
    project: Folder,
    *,
    layout: Annotated[Layout, typer.Option(help="The program that will read it.")],
    out: Annotated[Path, typer.Option(help="A new or empty folder.")],
    copy: Annotated[
        bool, typer.Option("--copy", help="RELION: copy images instead of linking to them.")
    ] = False,
    is_json: Json = False,
) -> None:
    """Write a project as another program reads it: a project of RELION, or tables for the others.

    Only jobs with an alias, and those they are made from, are exported.
    """
    from cryopick.pipeline.project import Project
    from cryopick.pipeline.project_export import export_project

    with Project.open(project, writes=False) as opened:
        result = export_project(opened, out, layout=layout.value, copies=copy)
    lines = [f"Wrote {', '.join(result.written[:10])} to {out}."]
    if len(result.written) > 10:
        lines = [f"Wrote {len(result.written)} files to {out}."]
    lines += [f"Note: {note}." for note in result.notes]
    print_result(result.to_dict(), lines, is_json=is_json)


def _tell_notes(project: Project) -> None:
    for note in project.notes:  # what was put right
        warn(note)


def _require_consent(n_jobs: int) -> None:
    if not sys.stdin.isatty():
        raise ParameterError(
            "--yes",
            must="be given where nobody can be asked",
            got="no --yes, and no terminal",
            remedy="Add it to remove what is listed above",
        )
    if not typer.confirm(f"Remove {_count(n_jobs, 'job')} for good?", err=True):
        raise typer.Exit


def _clean_lines(found: list[OutdatedJob]) -> list[str]:
    from cryopick.io.disk_space import show_bytes

    lines = []
    for job in found:
        fate = f"{show_bytes(job.n_bytes)}, goes"
        if job.needed_by is not None:
            fate = f"stays, because job {job.needed_by} is made from it"
        lines.append(f"Job {job.number} ({job.step}), {job.why}: {fate}.")
    return lines or ["No job is outdated."]


def _status_lines(found: ProjectStatus) -> list[str]:
    head = f"Project {found.name} in {found.folder}, made {found.created}."
    holder = f"Managed by {found.holder}." if found.holder else "Nobody manages it now."
    rows = [_HEADINGS]
    rows += [_status_row(job) for job in found.jobs]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    table = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    notes = [f"Job {job.number} failed: {job.error}" for job in found.jobs if job.error]
    notes += [
        f"Job {job.number} is outdated: {job.outdated}." for job in found.jobs if job.outdated
    ]
    return [head, holder, "", *table, *notes] if found.jobs else [head, holder, "It has no job."]


def _status_row(job: JobStatus) -> tuple[str, ...]:
    has_items = job.n_done + job.n_failed > 0
    return (
        str(job.number),
        job.step,
        job.state + (", outdated" if job.outdated else ""),
        str(job.n_done) if has_items else "",
        str(job.n_failed) if has_items else "",
        job.started[:19].replace("T", " "),
        f"{job.seconds:.0f} s",
        " ".join(job.aliases),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
