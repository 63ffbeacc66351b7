"""Ask something of the session that works on the project, and start it again when it has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryopick.execution.parameters import ComputeParameters
from cryopick.parameters import Parameters
from cryopick.pipeline.project_holder import read_holder
from cryopick.pipeline.project_layout import LOCK
from cryopick.pipeline.project_status import find_holder
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.session_layout import ask, read_settings
from cryopick.pipeline.session_parameters import SessionParameters
from cryopick.server.answers import Call, Conflict, WrongCall
from cryopick.server.forms import flags_of
from cryopick.server.served import Served, command_line
from cryopick.server.tasks import new_folder, start_task
from cryopick.server.watch import read_session

__all__ = ["session"]

_ASKED: Mapping[str, tuple[str, Mapping[str, bool]]] = {
    "pause": ("pause", {}),
    "resume": ("resume", {}),
    "retry": ("retry", {}),
    "stop": ("stop", {"finish": False}),
    "finish": ("stop", {"finish": True}),
}
_PARTS: Mapping[str, type[Parameters]] = {
    "parameters": RunParameters,
    "session": SessionParameters,
    "compute": ComputeParameters,
}
_PATTERN = "*?["
_ENDING = 30.0  # s that a session may take to end after it has said that it does


def session(call: Call) -> dict[str, Any]:
    """Ask something of the session, or start it again as it was."""
    wanted = call.said("do", str)
    if wanted != "start" and wanted not in _ASKED:
        raise WrongCall(f"do must be one of start, {', '.join(_ASKED)}.")
    settings = read_settings(call.served.folder)
    _, is_held = find_holder(call.served.project)
    if wanted == "start":
        if is_held and not _ends(call.served):
            raise Conflict("Somebody is at work on this project already.")
        return _start(call.served, settings)
    if not is_held:
        raise Conflict("No session is at work; start it again.")
    what, values = _ASKED[wanted]
    ask(call.served.folder, what, **values)
    words = ["session", what, call.served.folder, *(["--finish"] if wanted == "finish" else [])]
    return {"asked": wanted, "command": command_line(*words)}


def _ends(served: Served) -> bool:
    """Wait for a session that says that it has stopped to let go of the project."""
    said = read_session(served.folder) or {}
    holder = read_holder(served.folder / LOCK)
    manager = said.get("manager") or {}
    is_another = holder is not None and holder.pid != manager.get("pid")
    if said.get("state") not in ("stopped", "failed") or is_another:
        return False
    until = time.monotonic() + _ENDING
    while find_holder(served.project)[1]:
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _start(served: Served, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Begin the session in a process of its own, which outlives this server."""
    inputs = [str(name) for name in settings.get("inputs") or ()]
    if lost := [name for name in inputs if not _is_there(name)]:
        raise Conflict(
            f"{lost[0]} is not below the folder in which this server was started; "
            "start the session by hand, where it was started before."
        )
    words: list[object] = ["session", "start", *inputs, "--project", served.folder]
    for name, kind in _PARTS.items():
        words += flags_of(kind.from_dict(dict(settings.get(name) or {})), is_whole=True)
    if settings.get("pixel_size") is not None:
        words.append(f"--pixel-size={settings['pixel_size']}")
    number, out = new_folder(served, "session start")
    identity = start_task(served, "session start", words, number=number, out=out)
    served.hub.add("jobs", {"jobs": [identity]})
    return {"asked": "start", "job": identity, "command": command_line(*words)}


def _is_there(name: str) -> bool:
    """Tell whether a folder, a list or the beginning of a pattern is there."""
    path = Path(name)
    while any(sign in str(path) for sign in _PATTERN):
        path = path.parent
    return path.exists()
