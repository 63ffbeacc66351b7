"""Names for jobs: ``aliases.json`` says them, and a link beside it takes people there."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from cryopick.errors import ProjectError
from cryopick.io.atomic import aside_path, output_errors, sync_folder, write_json
from cryopick.pipeline.project_layout import ALIASES, JOBS, RESERVED, list_job_folders

__all__ = ["read_aliases", "require_alias_name", "update_links", "write_aliases", "wrong_links"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def read_aliases(project: Path) -> dict[str, int]:
    """Read the number of the job that each alias stands for, by name.

    Raises
    ------
    ProjectError
        If the file is broken.
    """
    path = Path(project, ALIASES)
    try:
        found = json.loads(path.read_bytes())
        return {str(k): int(v) for k, v in sorted(found.items())}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise ProjectError(
            str(path),
            must="say the number of a job for each alias",
            got="something else",
            remedy="Remove it; `cryopick run` names the jobs of the steps again",
        ) from error


def write_aliases(project: Path, aliases: Mapping[str, int]) -> None:
    """Write the aliases, whole or not at all, and make the links follow.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    write_json(Path(project, ALIASES), dict(sorted(aliases.items())))
    update_links(project, aliases)


def require_alias_name(project: Path, name: str) -> str:
    """Refuse a name that a file of the project has, or that is awkward in a path.

    Raises
    ------
    ProjectError
        If it cannot be an alias.
    """
    path = Path(project, name)
    got = ""
    if not _NAME.fullmatch(name):
        got = f"{name!r}, and only letters, digits, _ and - are allowed, a letter first"
    elif name in RESERVED or (os.path.lexists(path) and _target(path) is None):
        got = f"{name}, which is there"
    if got:
        raise ProjectError(
            "an alias",
            must="be a name that no file of the project has",
            got=got,
            remedy="Choose another name",
        )
    return name


def update_links(project: Path, aliases: Mapping[str, int]) -> None:
    """Make the links of a project agree with its aliases.

    Each link is replaced in one step, so that it always leads to a job. Nothing happens on a disk
    without links: the file of aliases is enough for everything but a person's comfort.
    """
    wanted = _wanted(project, aliases)
    found = _links(project)
    for name, target in wanted.items():
        path = Path(project, name)
        if found.get(name) == target or (os.path.lexists(path) and name not in found):
            continue
        aside = aside_path(path)
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
            aside.symlink_to(target)
            aside.replace(path)
    for name in set(found) - set(wanted):
        with output_errors(Path(project, name)):
            Path(project, name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        sync_folder(Path(project))


def wrong_links(project: Path, aliases: Mapping[str, int]) -> dict[str, str]:
    """Say of each link that does not lead to the job of its alias where it leads instead."""
    wanted, found = _wanted(project, aliases), _links(project)
    return {
        name: found.get(name, "nowhere")
        for name in sorted(set(wanted) | set(found))
        if found.get(name) != wanted.get(name)
    }


def _wanted(project: Path, aliases: Mapping[str, int]) -> dict[str, str]:
    folders = list_job_folders(Path(project))
    return {n: f"{JOBS}/{folders[k].name}" for n, k in aliases.items() if k in folders}


def _links(project: Path) -> dict[str, str]:
    """Targets of the links of a project that lead, or once led, to jobs."""
    targets = {entry.name: _target(entry) for entry in Path(project).iterdir()}
    return {
        name: target
        for name, target in targets.items()
        if target is not None and not name.startswith(".")
    }


def _target(path: Path) -> str | None:
    """Where a link to a job leads; None where there is no such link."""
    if not path.is_symlink():
        return None
    target = os.readlink(path)  # noqa: PTH115 (as it was written)
    return target if target.startswith(f"{JOBS}/") else None
