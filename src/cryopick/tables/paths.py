"""Where the files named in a table lie, and how results are named after micrographs."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath

from cryopick.errors import TableError

__all__ = ["micrograph_key", "rename_for", "require_unique_keys", "resolve_path"]

_JOB = re.compile(r"^(?:.*/)?job\d{3,}/(.+)$")


def resolve_path(name: str, table: Path | None) -> Path:
    """Find a file named in a table.

    A relative name is tried from the working folder, then from the folder of the table and each
    folder above it, so that a RELION project is readable from anywhere. When nothing is found the
    name comes back as it is, and opening it says so.
    """
    path = Path(name)
    if path.is_absolute() or path.exists() or table is None:
        return path
    for folder in table.resolve().parents:
        if (folder / path).exists():
            return folder / path
    return path


def rename_for(name: str, *, source: Path | None, target: Path) -> str:
    """Name a file of one table so that it is found from another table, too.

    A name that works from there stays as it is; else it becomes the path from the working folder.
    """
    found = resolve_path(name, source)
    there = resolve_path(name, target)
    if not found.exists() or (there.exists() and there.samefile(found)):
        return name
    return os.path.relpath(found)


@lru_cache(maxsize=1 << 16)
def micrograph_key(name: str) -> str:
    """Name the results of a micrograph: its path less job prefix and suffix, as RELION does.

    Examples
    --------
    >>> micrograph_key("MotionCorr/job002/Movies/a.mrc")
    'Movies/a'
    >>> micrograph_key("/data/session/a.mrc.gz")
    'data/session/a'
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.suffix in (".gz", ".bz2"):
        path = path.with_suffix("")
    text = str(path.with_suffix(""))
    match = _JOB.match(text)
    parts = PurePosixPath(match.group(1) if match else text).parts
    return "/".join(p for p in parts if p not in ("/", "..", "."))


def require_unique_keys(names: Iterable[str], *, table: str) -> None:
    """Refuse micrographs whose results would overwrite one another.

    Raises
    ------
    TableError
        If a name, or what is left of it without job prefix and suffix, occurs twice.
    """
    keys = Counter(micrograph_key(n) for n in names)
    twice = [key for key, count in keys.items() if count > 1]
    if twice:
        raise TableError(
            table,
            must="name each micrograph once",
            got=f"{twice[0]} {keys[twice[0]]} times"
            + (f" and {len(twice) - 1} more such names" if len(twice) > 1 else ""),
            remedy="Remove the duplicates with: cryopick select subset --remove-duplicates",
        )
