"""What a project folder holds, and how its jobs are named.

project.json        schema, uuid, name, when and by which version it was made
jobs/0001_ctf/      one folder for each job, in the order they were begun; `step.json` in it
ctf -> jobs/0001_ctf  an alias: a link to a job
aliases.json        the aliases, for good; the links follow it
run.json            parameters of the last `cryopick run`
decisions.jsonl     choices of people, only ever added to
project.lock.json   who manages the project; absent if nobody does
index.sqlite        index of all this; may be deleted at any time
report.html         the report
session/            of `cryopick session`
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from cryopick.errors import ProjectError

__all__ = [
    "ALIASES",
    "DECISIONS",
    "DESCRIPTION",
    "GUARD",
    "INDEX",
    "JOBS",
    "LEDGER",
    "LOCK",
    "REPORT",
    "RESERVED",
    "RUN",
    "SESSION",
    "STEP",
    "job_folder_name",
    "list_job_folders",
    "now",
    "parse_job_folder",
    "require_step_name",
]

DESCRIPTION, ALIASES, RUN = "project.json", "aliases.json", "run.json"
DECISIONS, LOCK, GUARD = "decisions.jsonl", "project.lock.json", ".project.lock"
INDEX, REPORT, JOBS = "index.sqlite", "report.html", "jobs"
STEP, LEDGER = "step.json", "ledger.jsonl"  # in the folder of a job
SESSION = "session"  # folder of `cryopick session`
OF_PEOPLE = ("edits", "picks_by_hand", "selections", "tasks", "exports")  # folders
RESERVED = frozenset(
    (
        *(DESCRIPTION, ALIASES, RUN, DECISIONS, LOCK, GUARD),
        *(INDEX, f"{INDEX}-journal", REPORT, JOBS, SESSION),
        *OF_PEOPLE,
    )
)

_STEP_NAME = re.compile(r"[a-z][a-z0-9_]*")
_JOB_FOLDER = re.compile(r"(\d{4,})_([a-z][a-z0-9_]*)")


def job_folder_name(number: int, step: str) -> str:
    """Name the folder of a job.

    Examples
    --------
    >>> job_folder_name(3, "pick")
    '0003_pick'
    """
    return f"{number:04d}_{step}"


def parse_job_folder(name: str) -> tuple[int, str] | None:
    """Read number and step from the name of a folder; None if it is not that of a job.

    Examples
    --------
    >>> parse_job_folder("0003_pick"), parse_job_folder("notes")
    ((3, 'pick'), None)
    """
    match = _JOB_FOLDER.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def list_job_folders(project: Path) -> dict[int, Path]:
    """Folders of all jobs by number, in order; of two with one number the first by name."""
    try:
        entries = sorted(Path(project, JOBS).iterdir())
    except FileNotFoundError:
        return {}
    found: dict[int, Path] = {}
    for entry in entries:
        parsed = parse_job_folder(entry.name)
        if parsed and entry.is_dir() and not entry.is_symlink():
            found.setdefault(parsed[0], entry)
    return dict(sorted(found.items()))


def require_step_name(step: str) -> str:
    """Refuse a name that cannot be a part of the name of a folder.

    Raises
    ------
    ProjectError
        If it holds other characters than small letters, digits and underscores.
    """
    if not _STEP_NAME.fullmatch(step):
        raise ProjectError(
            "the name of a step",
            must="be of small letters, digits and underscores, a letter first",
            got=repr(step),
            remedy="Choose another name",
        )
    return step


def now() -> str:
    """Write the local time as all records do."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
