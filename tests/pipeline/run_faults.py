"""Faults at the changes of the disk that a run makes, one after the other, and real kills."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cryopick.pipeline import job
from cryopick.pipeline.runner import Runner

__all__ = ["CommandLine", "Fault", "Faults"]

CHANGES = ("replace", "rename", "mkdir", "symlink", "link")


class Fault(BaseException):
    """What nobody catches."""


class Faults:
    """Raises at the first change of the disk at which none was raised before.

    A change is known by the step that was at work, by what is done to which file, and how often
    that was done since the step began. Once raised, all goes on undisturbed, so that whoever
    cleans up can.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.raised: list[tuple[Any, ...]] = []
        self._was: set[tuple[Any, ...]] = set()
        self._counts: Counter[tuple[Any, ...]] = Counter()
        self._step = ""
        self._is_over = False
        for name in CHANGES:
            patch.setattr(os, name, self._wrapped(name, getattr(os, name)))
        patch.setattr(job, "_append", self._appended(job._append))
        patch.setattr(Runner, "_job_done", self._stepped(Runner._job_done))

    def begin(self) -> None:
        """Count from the start of a run."""
        self._counts.clear()
        self._step, self._is_over = "", False

    def _stepped(self, call: Any) -> Any:
        def step(runner: Any, step: Any, *given: Any) -> Any:
            self._counts.clear()
            self._step = step.name
            return call(runner, step, *given)

        return step

    def _wrapped(self, name: str, call: Any) -> Any:
        def change(*given: Any, **named: Any) -> Any:
            paths = [g for g in given if isinstance(g, str | os.PathLike)]
            if name != "mkdir" or not os.path.lexists(paths[0]):
                self._at(name, os.fspath(paths[-1]))
            return call(*given, **named)

        return change

    def _appended(self, call: Any) -> Any:
        def append(ledger: Any, record: Any) -> None:
            self._at("append", ledger.name, record.key)
            call(ledger, record)

        return append

    def _at(self, *what: str) -> None:
        if self._is_over or threading.current_thread() is not threading.main_thread():
            return
        self._counts[what] += 1
        change = (self._step, *what, self._counts[what])
        if change not in self._was:
            self._was.add(change)
            self.raised.append(change)
            self._is_over = True
            raise Fault(change)


_SERVER = """
import contextlib, importlib, os, pathlib, sys
import torch
torch.set_num_threads(1)
from cryopick.cli import app

sys.argv = ["cryopick", *sys.argv[1:]]
loaded = pathlib.Path("loaded.txt")

def run():
    os.close(0)
    os.dup2(os.open("out.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    try:
        app.main()
    finally:
        loaded.write_text(" ".join(sys.modules))

for line in sys.stdin:
    if loaded.exists():
        for name in loaded.read_text().split():
            if name.startswith(("cryopick", "matplotlib", "PIL", "scipy", "pandas", "pyarrow")):
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
        loaded.unlink()
    child = os.fork()
    if not child:
        run()
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class CommandLine:
    """Runs one command line again and again, each time in a process of its own.

    The processes are forked from one that has loaded what the first has used, which takes as
    long as all the rest.
    """

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._child = 0

    def __enter__(self) -> CommandLine:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, *, kill_after: float | None = None) -> int:
        """Run the command; give its exit code, minus the signal if it was killed.

        Parameters
        ----------
        kill_after
            s from its start.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        timer = threading.Timer(kill_after or 0, _kill, [child])
        if kill_after is not None:
            timer.start()
        code = int(self._process.stdout.readline())
        timer.cancel()
        return code

    @property
    def said(self) -> str:
        """All that the processes have printed."""
        return Path("out.txt").read_text()


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(process, signal.SIGKILL)
