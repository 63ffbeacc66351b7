"""Find Topaz and run it: a program of its own (GPL-3), whose lines are read as they come."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, Self

from cryopick.errors import ProjectError
from cryopick.io.atomic import output_errors

__all__ = ["TopazProgram", "TopazRun", "find_topaz", "telling_line"]

_VARIABLE = "CRYOPICK_TOPAZ_EXECUTABLE"
_VERSION = re.compile(r"\b(\d+\.\d+(?:\.\w+)*)\b")
_TELLING = (
    re.compile(r"^[\w.]*(Error|Exception|Interrupt)\b"),  # the last line of a traceback
    re.compile(r"\b(error|killed|not found|no such file|cannot|failed)\b", re.IGNORECASE),
)
_PATIENCE = 600  # seconds for the first start of a program on a slow disk
_COLUMNS = 4  # of every table that Topaz prints, at least
_KEPT = 60  # lines that an error is sought in
_WIDEST = 200  # characters of a sentence's evidence


class TopazProgram(NamedTuple):
    """Topaz as it is installed."""

    path: Path
    version: str


def find_topaz(executable: str = "") -> TopazProgram:
    """Find the program and ask for its version.

    Parameters
    ----------
    executable
        Path or name of the program; without it the variable CRYOPICK_TOPAZ_EXECUTABLE says it,
        else ``topaz`` is sought on the PATH.

    Raises
    ------
    ProjectError
        If there is none, or it does not start.
    """
    named = executable or os.environ.get(_VARIABLE, "")
    found = shutil.which(str(Path(named).expanduser()) if named else "topaz")
    if found is None:
        raise ProjectError(
            "Topaz",
            must=f"be named by --executable or ${_VARIABLE}, or lie on the PATH",
            got=f"{named}, which is no program" if named else "none of them",
            remedy="Install it with: cryopick pick topaz setup --out FOLDER",
        )
    path = Path(found).absolute()
    try:
        asked = subprocess.run(
            [str(path), "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(getattr(error, "strerror", "") or f"no answer in {_PATIENCE} s")
        raise _no_start(path, reason) from error
    said = _VERSION.search(asked.stdout) or _VERSION.search(asked.stderr)
    if asked.returncode or said is None:
        lines = (asked.stdout + "\n" + asked.stderr).splitlines()
        raise _no_start(path, telling_line(lines) or f"exit code {asked.returncode}")
    return TopazProgram(path, said.group(1))


def _no_start(path: Path, reason: str) -> ProjectError:
    return ProjectError(
        str(path),
        must="be Topaz and tell its version",
        got=reason,
        remedy="Install it with: cryopick pick topaz setup --out FOLDER",
    )


def telling_line(lines: Iterable[str]) -> str:
    """Choose the line of a failed program that says most: an exception, an error, or the last.

    Examples
    --------
    >>> telling_line(["# Loading", "ValueError: no images", "  0%|    |"])
    'ValueError: no images'
    """
    said = [line.strip() for line in lines if line.strip()]
    for pattern in _TELLING:
        for line in reversed(said):
            if pattern.search(line):
                return line[:_WIDEST].rstrip(".")
    return said[-1][:_WIDEST].rstrip(".") if said else ""


class TopazRun:
    """One process of Topaz. Use as a context manager: it never outlives it.

    Parameters
    ----------
    program
        The program.
    arguments
        The subcommand and what follows it.
    folder
        Where it runs: names of files may be relative, so that blanks in folders do no harm.
    log
        Gets the command and every line that is not data.
    threads
        On the CPU; 0 leaves it to Topaz.
    needs_gpu
        Whether to stop it as soon as it says that it goes on without one.

    Raises
    ------
    ProjectError
        If it cannot be started.
    OutputError
        If the log cannot be written.
    """

    def __init__(
        self,
        program: TopazProgram,
        arguments: Sequence[str],
        *,
        folder: Path,
        log: Path,
        threads: int = 0,
        needs_gpu: bool = False,
    ) -> None:
        self.program = program
        self.arguments = [str(a) for a in arguments]
        self._folder = folder
        self._log_path = log
        self._threads = threads
        self._needs_gpu = needs_gpu
        self._last: deque[str] = deque(maxlen=_KEPT)

    def __enter__(self) -> Self:
        with output_errors(self._log_path):
            self._log = self._log_path.open("a", encoding="utf-8")
        self._write(f"$ {self.program.path} {' '.join(self.arguments)}")
        threads = {"OMP_NUM_THREADS": str(self._threads)} if self._threads else {}
        try:
            self._process = subprocess.Popen(
                [str(self.program.path), *self.arguments],
                cwd=self._folder,
                env={**os.environ, **threads, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # a wrapper script and what it starts end together
            )
        except OSError as error:
            self._log.close()
            raise _no_start(self.program.path, error.strerror or str(error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        self._log.close()

    @property
    def input(self) -> IO[str]:
        """What the process reads."""
        assert self._process.stdin is not None
        return self._process.stdin

    def lines(self) -> Iterator[str]:
        """Yield what the process says, its errors included, line by line.

        Lines that are no rows of a table go to the log as well.

        Raises
        ------
        ProjectError
            If it falls back to the CPU and must not.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.rstrip("\n")
            if text.count("\t") < _COLUMNS - 1 or text.startswith("#"):
                self._write(text)
                self._last.append(text)
            if self._needs_gpu and "Falling back to CPU" in text:
                raise ProjectError(
                    "Topaz",
                    must="find the GPU that --device names",
                    got=telling_line(list(self._last)[:-1]) or "none",
                    remedy="Install Topaz with a CUDA build of PyTorch, or use --device cpu",
                )
            yield text

    def finish(self) -> None:
        """Wait for the end.

        Raises
        ------
        ProjectError
            If the process failed, with the line of its own that says why.
        """
        code = self._process.wait()
        if code:
            raise self.error(self._reason(code))

    def error(self, got: str) -> ProjectError:
        """Make the error of a run that went wrong."""
        name = self.arguments[0] if self.arguments else ""
        return ProjectError(
            f"`topaz {name}`",
            must="end without an error",
            got=got,
            remedy=f"See {self._log_path} for all it said",
        )

    def _reason(self, code: int) -> str:
        number = -code if code < 0 else code - 128
        if number == signal.SIGKILL:
            return "a process that was killed, as systems do that run out of memory"
        if code < 0:
            return f"a process that was ended by signal {number}"
        return telling_line(self._last) or f"exit code {code}"

    def _write(self, line: str) -> None:
        with output_errors(self._log_path):
            self._log.write(line + "\n")
            self._log.flush()
