"""Which jobs of a project other programs get, and what those programs call them."""

from __future__ import annotations

import json
from pathlib import Path

from cryopick.errors import OutputError, ProjectError
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_outdated import find_needed
from cryopick.pipeline.project_records import StepRecord

__all__ = ["exported_jobs", "require_empty_folder"]

_KINDS = {
    "ctf estimate": "CtfFind",
    "extract": "Extract",
    "class2d em": "Class2D",
    "select classes": "Select",
    "select subset": "Select",
}


def exported_jobs(project: Project) -> list[tuple[StepRecord, str]]:
    """List the jobs that are done and have an alias, and those they are made from, by number.

    Returns
    -------
    list
        Record, and RELION's word for what the job does.

    Raises
    ------
    ProjectError
        If there is none.
    """
    jobs = project.jobs()
    named = {n for n in project.aliases().values() if n in jobs and jobs[n].is_done}
    chosen = sorted(named | set(find_needed(jobs, named)))
    found = [(jobs[n], _kind_of(project.job_folder(n))) for n in chosen if jobs[n].is_done]
    known = [(job, kind) for job, kind in found if kind]
    if not known:
        raise ProjectError(
            str(project.folder),
            must="hold a finished job with an alias, to be exported",
            got="none",
            remedy="Look at it with: cryopick project status",
        )
    return known


def _kind_of(folder: Path) -> str:
    """Name the kind of a job in RELION; empty where RELION has none."""
    try:
        name = str(json.loads((folder / "job.json").read_bytes())["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    is_picking = name.startswith("pick ") and "train" not in name
    return "AutoPick" if is_picking else _KINDS.get(name, "")


def require_empty_folder(out: Path) -> None:
    """Refuse a folder that holds anything.

    Raises
    ------
    OutputError
        If it does, or is a file.
    """
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise OutputError(
            str(out),
            must="be a new or an empty folder",
            got="a folder with files" if out.is_dir() else "a file",
            remedy="Choose another --out",
        )
