"""Choices of people: a file of lines that is only ever added to."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryopick.io.atomic import output_errors, sync_folder
from cryopick.pipeline.project_layout import DECISIONS, now

__all__ = ["Decision", "add_decision", "read_decisions", "user_name"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Who chose what, and when."""

    when: str
    who: str
    what: str  # the kind of choice, for example "clean"
    values: Mapping[str, Any] = field(default_factory=dict)


def read_decisions(project: Path) -> list[Decision]:
    """Read all choices, oldest first; a line that was cut off by a kill is left out."""
    try:
        lines = Path(project, DECISIONS).read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            found.append(Decision(**json.loads(line)))
    return found


def add_decision(project: Path, what: str, values: Mapping[str, Any]) -> Decision:
    """Add a choice; it is on the disk when this returns.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    decision = Decision(when=now(), who=user_name(), what=what, values=dict(values))
    path = Path(project, DECISIONS)
    with output_errors(path):
        is_new = not path.exists()
        with path.open("ab") as handle:
            with contextlib.suppress(OSError):  # some network disks have no locks
                fcntl.flock(handle, fcntl.LOCK_EX)  # people choose while a run goes on
            handle.write((b"" if _ends_whole(path) else b"\n") + _line(decision))
            handle.flush()
            os.fsync(handle.fileno())
        if is_new:
            sync_folder(path.parent)
    return decision


def _line(decision: Decision) -> bytes:
    return json.dumps(asdict(decision), allow_nan=False).encode() + b"\n"


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as handle:
        if not handle.seek(0, os.SEEK_END):
            return True
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) == b"\n"


def user_name() -> str:
    """Name who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return str(os.getuid())
