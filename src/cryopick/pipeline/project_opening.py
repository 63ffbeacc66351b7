"""What must hold for a folder to be opened as a project, or made into one."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from cryopick.errors import ProjectError
from cryopick.io.atomic import make_folder, remove_leftovers
from cryopick.pipeline.project_aliases import read_aliases, update_links
from cryopick.pipeline.project_layout import DESCRIPTION, LOCK, STEP, list_job_folders
from cryopick.pipeline.project_numbers import REMOVED, drop_missing, removed_numbers
from cryopick.pipeline.project_records import StepRecord
from cryopick.pipeline.project_schema import (
    SCHEMA,
    ProjectDescription,
    is_unnumbered,
    migrate,
    new_description,
    read_description,
    write_description,
)

__all__ = ["describe_under_lease", "put_right", "require_current", "require_openable"]


def require_openable(folder: Path, *, create: bool) -> None:
    """Refuse a folder that is no project, and cannot become one; make one that is not there.

    Parameters
    ----------
    folder
        Of the project.
    create
        An empty folder, or none, may become a project.

    Raises
    ------
    ProjectError
        If the folder holds something else, or a project of a newer schema.
    OutputError
        If it cannot be made.
    """
    if read_description(folder) is None and not is_unnumbered(folder):
        _require_new(folder, create=create)
        make_folder(folder)


def describe_under_lease(folder: Path, *, create: bool) -> ProjectDescription:
    """Read the description of a project; make one, or bring an older project up, if need be.

    Parameters
    ----------
    folder
        Of the project, whose lease this process holds.
    create
        An empty folder may become a project.

    Raises
    ------
    ProjectError
        If the folder holds something else.
    OutputError
        If it cannot be written.
    """
    found = read_description(folder)
    if found is None:
        is_old = is_unnumbered(folder)
        if not is_old:
            _require_new(folder, create=create)
        name = folder.resolve().name
        found = new_description(name, schema=0 if is_old else SCHEMA)
        write_description(folder, found)
    return migrate(folder, found)


def require_current(folder: Path) -> ProjectDescription:
    """Read the description of a project that is to be read only.

    Raises
    ------
    ProjectError
        If the folder is no project, or one of another schema.
    """
    found = read_description(folder)
    if found is None and not is_unnumbered(folder):
        _require_new(folder, create=False)
    if found is None or found.schema < SCHEMA:
        raise ProjectError(
            str(folder),
            must=f"have schema {SCHEMA} to be read",
            got="an older one",
            remedy=f"Bring it up with: cryopick project rebuild {folder}",
        )
    return found


def put_right(folder: Path, jobs: Mapping[int, StepRecord]) -> list[str]:
    """Clear away what a killed manager had begun and not finished.

    Parameters
    ----------
    folder
        Of the project, whose lease this process holds.
    jobs
        Records of its jobs, by number.

    Returns
    -------
    list of str
        Sentences for the user.

    Raises
    ------
    ProjectError
        If the file of aliases is broken.
    OutputError
        If it cannot be written.
    """
    remove_leftovers(folder, is_deep=False)
    removed = removed_numbers(folder, REMOVED)
    for number, job in list_job_folders(folder).items():
        if number not in jobs or not jobs[number].is_done:
            remove_leftovers(job, is_deep=False)
        if not (job / STEP).exists():
            with contextlib.suppress(OSError):  # something is in it: `verify` says so
                job.rmdir()
            if number in removed:
                shutil.rmtree(job, ignore_errors=True)
    notes = drop_missing(folder)
    update_links(folder, read_aliases(folder))
    return notes


def _require_new(folder: Path, *, create: bool) -> None:
    """Refuse a folder that holds something else than a project, or nothing if none is made."""
    path = Path(folder)
    entries = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
    strange = [n for n in entries if n != LOCK and not n.startswith(".")]
    is_usable = not strange or DESCRIPTION in strange  # another run has just made it
    if create and is_usable and (path.is_dir() or not path.exists()):
        return
    got = "no such folder"
    if path.exists():
        got = "a file" if not path.is_dir() else "an empty folder"
    raise ProjectError(
        str(folder),
        must="be a project" + (", empty or new" if create else ""),
        got=f"a folder with {strange[0]} and without project.json" if strange else got,
        remedy="Choose another folder" + ("" if create else ", or make one with `cryopick run`"),
    )
