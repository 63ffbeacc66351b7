"""What a session keeps in the folder of its project, and how people ask something of it."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryopick.errors import ProjectError
from cryopick.io.atomic import make_folder, write_json
from cryopick.io.json_files import read_object
from cryopick.pipeline.project_layout import SESSION

__all__ = [
    "ARRIVALS",
    "SETTINGS",
    "STATUS",
    "Request",
    "ask",
    "read_requests",
    "read_settings",
    "read_status",
    "remove_request",
    "session_folder",
]

SETTINGS, STATUS = "session.json", "status.json"
ARRIVALS, REQUESTS = "arrivals.jsonl", "requests"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody asks of a session."""

    what: str
    who: str = ""
    when: float = 0.0  # s since 1970
    values: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None  # of its file


def session_folder(project: Path) -> Path:
    """Where a session keeps its files."""
    return Path(project) / SESSION


def read_settings(project: Path) -> dict[str, Any]:
    """Read what is watched and with which parameters.

    Raises
    ------
    ProjectError
        If the project has no session.
    """
    path = session_folder(project) / SETTINGS
    found = read_object(path)
    if found is None:
        raise ProjectError(
            str(project),
            must="be a project with a session",
            got=f"no {SESSION}/{SETTINGS}",
            remedy="Start one with: cryopick session start FOLDER --project PROJECT",
        )
    return found


def read_status(project: Path) -> dict[str, Any]:
    """Read where a session stands.

    Raises
    ------
    ProjectError
        If the project has no session.
    """
    read_settings(project)
    return read_object(session_folder(project) / STATUS) or {}


def ask(project: Path, what: str, **values: Any) -> Request:
    """Ask something of a session; it is taken up at once, or when the session is started.

    Parameters
    ----------
    project
        The folder.
    what
        See docs/sessions.md.
    values
        As JSON takes them.

    Raises
    ------
    ProjectError
        If the project has no session.
    OutputError
        If the request cannot be written.
    """
    read_settings(project)
    folder = make_folder(session_folder(project) / REQUESTS)
    path = folder / f"{time.time_ns():020d}_{uuid.uuid4().hex[:8]}.json"
    request = Request(what=what, who=_user(), when=time.time(), values=values, path=path)
    write_json(path, {"what": what, "who": request.who, "when": request.when, **values})
    return request


def read_requests(project: Path) -> list[Request]:
    """List what is asked, oldest first; a file that holds no request is passed over."""
    found = []
    for path in sorted((session_folder(project) / REQUESTS).glob("[!.]*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
            values = json.loads(path.read_bytes())
            head = {k: values.pop(k) for k in ("what", "who", "when") if k in values}
            found.append(Request(**head, values=values, path=path))
    return found


def remove_request(request: Request) -> None:
    """Take a request away that was taken up."""
    if request.path is not None:
        with contextlib.suppress(OSError):
            request.path.unlink()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return str(os.getuid())
