"""Folders of a project that people's choices go to, and a short id for every folder of results.

``7`` is a job of the project, ``t3`` one that was started from the browser, ``p:NAME`` picks that
somebody saved, ``s:NAME`` classes or particles that somebody chose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cryopick.errors import ProjectError
from cryopick.pipeline.project_layout import list_job_folders

__all__ = [
    "EDITS",
    "EXPORTS",
    "HAND_PICKS",
    "SELECTIONS",
    "SESSION",
    "TASKS",
    "edits_file",
    "find_results",
    "is_plain_name",
    "list_results",
    "list_tasks",
]

EDITS = "edits"  # of picks, a file for each set
HAND_PICKS = "picks_by_hand"  # sets of picks that were saved
SELECTIONS = "selections"  # classes and particles that somebody chose
TASKS = "tasks"  # what was started from the browser: a record, a log and a folder of each
EXPORTS = "exports"
SESSION = "session/status.json"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_TASK = re.compile(r"(\d{4,})_[a-z0-9_]+")


def is_plain_name(name: str) -> bool:
    """Tell whether a name is good for a folder: letters, digits, _ and -, 64 at most."""
    return _NAME.fullmatch(name) is not None


def list_results(project: Path) -> dict[str, Path]:
    """Give all folders of results by their id, in the order in which they were made."""
    project = Path(project)
    found = {str(n): folder for n, folder in list_job_folders(project).items()}
    found |= {f"t{n}": folder for n, folder in list_tasks(project).items()}
    for letter, place in (("p", HAND_PICKS), ("s", SELECTIONS)):
        for folder in _folders(project / place):
            if is_plain_name(folder.name):
                found[f"{letter}:{folder.name}"] = folder
    return found


def list_tasks(project: Path) -> dict[int, Path]:
    """Give the folders of what was started from the browser, by number."""
    return {
        int(match[1]): folder
        for folder in _folders(Path(project, TASKS))
        if (match := _TASK.fullmatch(folder.name))
    }


def find_results(project: Path, identity: str) -> Path:
    """Find the folder that an id stands for.

    Raises
    ------
    ProjectError
        If there is none.
    """
    folders = list_results(project)
    if identity not in folders:
        raise ProjectError(
            str(project),
            must="hold the results that are asked for",
            got=f"nothing of the id {identity[:80]}",
            remedy="List jobs with: cryopick project status",
        )
    return folders[identity]


def edits_file(project: Path, identity: str) -> Path:
    """Name the file of the edits of a set of picks."""
    return Path(project, EDITS, f"{identity.replace(':', '_')}.jsonl")


def _folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(f for f in folder.iterdir() if f.is_dir() and not f.is_symlink())
