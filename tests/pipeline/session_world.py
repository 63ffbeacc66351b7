"""Sessions on the small simulated fields of `run_world`, in this process or another.

Imported before pytest could rewrite it, by test modules that take its fixtures with
``pytest_plugins``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from run_world import ALONE, GENERAL, changed, results_of

from cryopick.errors import ProjectError
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.session import SessionResult, run_session
from cryopick.pipeline.session_layout import ask
from cryopick.pipeline.session_parameters import SessionParameters
from cryopick.pipeline.session_settings import SessionRequest

WATCHING = SessionParameters(
    poll=0.1, settle=0.2, idle=0.03, live_classes=False, report=0, first_batch=50
)
LENS = {"voltage": 300.0, "spherical_aberration": 2.7}
FIELDS = "data/micrographs"
TO_PARTICLES = changed(GENERAL, until="particles", **LENS)
OPEN = changed(WATCHING, idle=0)  # until somebody asks it to finish


def session(
    *inputs: str,
    parameters: RunParameters = GENERAL,
    watching: SessionParameters = WATCHING,
    out: str | Path = "project",
    **given: Any,
) -> SessionResult:
    """Run a session in this process, on one core, until it closes."""
    request = SessionRequest(
        inputs=tuple(inputs), parameters=parameters, session=watching, compute=ALONE, **given
    )
    return run_session(Path(out), request)


def comparable(project: str | Path) -> dict[str, Any]:
    """Gather what a session or a run has made, less what only a session has."""
    found = results_of(project)
    return {n: v for n, v in found.items() if not n.startswith("session/") and "live_" not in n}


def by_step(made: dict[str, Any], *steps: str) -> dict[str, Any]:
    """Results of steps that name no job, whatever its number: stacks, picks and networks."""
    kept = (".mrcs", "_autopick.star", "_peaks.star", ".npz")
    found = {}
    for name, value in made.items():
        words = name.split("/", 2)
        if words[0] == "jobs" and words[1][5:] in steps and name.endswith(kept):
            found[f"{words[1][5:]}/{words[2]}"] = value
    return found


def status_of(project: str | Path) -> dict[str, Any]:
    """Read the status; empty while there is none."""
    try:
        return dict(json.loads((Path(project) / "session" / "status.json").read_bytes()))
    except FileNotFoundError:
        return {}


def wait_for(
    holds: Callable[[dict[str, Any]], Any], *, project: str = "project", seconds: float = 240
) -> dict[str, Any]:
    """Wait until something holds of the status."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        status = status_of(project)
        if status and holds(status):
            return status
        time.sleep(0.05)
    raise AssertionError(f"still {status_of(project)}")


@contextlib.contextmanager
def meanwhile(*steps: Callable[[], object], project: str = "project") -> Iterator[None]:
    """Do things one after the other beside a session, and ask it to finish then."""
    trouble: list[BaseException] = []

    def do_all() -> None:
        try:
            for step in steps:
                step()
        except BaseException as error:
            trouble.append(error)
        finally:
            _asked_to_finish(project)

    thread = threading.Thread(target=do_all)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if trouble:
        raise trouble[0]


def _asked_to_finish(project: str) -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until:
        with contextlib.suppress(ProjectError):
            ask(Path(project), "stop", finish=True)
            return
        time.sleep(0.05)


def until(project: str = "project", **counts: int) -> Callable[[], object]:
    """Wait for counts of the status to be as large as these."""

    def holds(status: dict[str, Any]) -> bool:
        found = status.get("counts") or {}
        return all(found.get(name, 0) >= number for name, number in counts.items())

    return lambda: wait_for(holds, project=project)


@contextlib.contextmanager
def beside(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``cryopick session start`` in a process of its own, and end it."""
    program = "from cryopick.cli.app import main; main()"
    command = [sys.executable, "-c", program, "session", "start", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def spoil(path: Path) -> None:
    """Leave the header of a field, and nothing of use after it; it still counts as complete."""
    pixels = path.read_bytes()
    path.write_bytes(pixels[:1024] + b"\xff" * (len(pixels) - 1024))
    make_older(path)


def make_older(path: str | Path) -> None:
    """Let a file count as complete at the first look at it.

    It was changed before it came here, whatever the step of the clock of the file system. Else
    a field that was renamed within that step has to settle, and others go before it.
    """
    then = time.time() - 60
    os.utime(path, (then, then))


def bring(*numbers: int, into: str = "incoming") -> None:
    """Copy fields into a folder, each whole at once, and one right after the other."""
    folder = Path(into)
    folder.mkdir(exist_ok=True)
    names = [f"sim_{number:05d}.mrc" for number in numbers]
    for name in names:
        shutil.copyfile(Path(FIELDS) / name, folder / f".{name}")
        make_older(folder / f".{name}")
    for name in names:
        (folder / f".{name}").rename(folder / name)
