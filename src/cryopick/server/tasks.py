"""What was started from the page: records, logs, and the processes that are at work."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryopick.io.atomic import make_folder, write_json
from cryopick.pipeline.project_holder import Holder, this_place
from cryopick.pipeline.project_layout import now
from cryopick.pipeline.project_places import TASKS
from cryopick.server.answers import Conflict, Missing
from cryopick.server.commands import environment
from cryopick.server.served import Served, command_line

__all__ = ["log_of", "new_folder", "read_tasks", "restart_task", "start_task", "stop_task"]

_RECORD = re.compile(r"(\d{4,})_([a-z0-9_]+)\.json")
_PLACE = ("host", "pid", "boot_id", "pid_space", "process_start")


def read_tasks(served: Served) -> dict[str, dict[str, Any]]:
    """Read all records by id, oldest first; a task whose process has died is said to be stopped."""
    folder = served.folder / TASKS
    found = {}
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        match = _RECORD.fullmatch(path.name)
        try:
            record = json.loads(path.read_bytes()) if match else None
        except (OSError, ValueError):
            continue
        if match and isinstance(record, dict):
            if record.get("state") in ("starting", "running") and not _is_alive(record):
                record["state"] = "stopped"
            found[f"t{int(match[1])}"] = record | {"record": path}
    return found


def new_folder(served: Served, command: str) -> tuple[int, Path]:
    """Name the next task and the folder for its results, which is not made yet."""
    folder = make_folder(served.folder / TASKS, option="folder")
    numbers = [int(m[1]) for p in folder.glob("*.json") if (m := _RECORD.fullmatch(p.name))]
    number = max(numbers, default=0) + 1
    word = command.replace(" ", "_")
    return number, folder / f"{number:04d}_{word}"


def start_task(
    served: Served, command: str, words: Sequence[object], *, number: int, out: Path
) -> str:
    """Begin a command in a process of its own.

    Parameters
    ----------
    served
        The project.
    command
        Its name, ``pick blob``.
    words
        Behind ``cryopick``.
    number, out
        From `new_folder`; `out` is where its results go.

    Returns
    -------
    str
        Id of the task.
    """
    path = out.with_suffix(".json")
    record = {
        "command": command,
        "words": [str(w) for w in words],
        "line": command_line(*words),
        "cwd": str(Path.cwd()),
        "state": "starting",
        "started": now(),
        "seconds": 0.0,
    }
    write_json(path, record)
    _begin(served, path, record)
    return f"t{number}"


def restart_task(served: Served, identity: str) -> str:
    """Begin a task again that has ended: the same command goes on where it was.

    Raises
    ------
    Missing, Conflict
        If there is no such task, or it is at work.
    """
    record = _find(served, identity)
    if record["state"] in ("starting", "running"):
        raise Conflict("This job is at work.")
    path = record.pop("record")
    record |= {"state": "starting"}
    write_json(path, record)
    _begin(served, path, record)
    return identity


def stop_task(served: Served, identity: str) -> None:
    """Ask a task to end; finished work is kept.

    Raises
    ------
    Missing, Conflict
        If there is no such task, or nobody is at work on it here.
    """
    record = _find(served, identity)
    if record["state"] != "running" or not _is_alive(record):
        raise Conflict("This job is not at work.")
    os.kill(int(record["place"]["pid"]), signal.SIGTERM)


def log_of(record: dict[str, Any]) -> Path:
    """Name the log of a task."""
    path: Path = record["record"]
    return path.with_suffix(".log")


def _find(served: Served, identity: str) -> dict[str, Any]:
    record = read_tasks(served).get(identity)
    if record is None:
        raise Missing("There is no such job that was started here.")
    return record


def _begin(served: Served, path: Path, record: dict[str, Any]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cryopick.server.task", str(path.resolve())],
        env=environment(),
        cwd=record["cwd"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with served.lock:  # asked for its end now and then, so that none is left as a zombie
        begun: list[subprocess.Popen[bytes]] = served.kept.setdefault("processes", [])
        begun[:] = [p for p in begun if p.poll() is None]
        begun.append(process)


def _is_alive(record: dict[str, Any]) -> bool:
    place = record.get("place")
    if record.get("state") == "starting":
        return True
    if not isinstance(place, dict) or any(name not in place for name in _PLACE):
        return False
    said = {name: place[name] for name in _PLACE}
    holder = Holder(**said, uuid="task", seq=0, since="", command="")
    return holder.is_alive if this_place().sees(holder) else True
