"""Work beside the session: one process at a lower priority, which ends with the session.

Classes and training take minutes to hours. Done here, they leave the manager free to look for
micrographs and to pick them, and cost it neither its memory nor its life when they fail.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cryopick.errors import CryopickError, DataError
from cryopick.execution.local import forking_context

__all__ = ["Aside", "Tell"]

Tell = Callable[[str, float, str], None]  # what is done, its share, a note
_NICE = 10
_PATIENCE = 5.0  # s for a process to end by itself


class Aside:
    """A function at work in a process of its own.

    Parameters
    ----------
    name
        What it does, for people.
    function
        Called with `tell`, `say` and `arguments`; of a module, so that the process finds it.
    arguments
        Picklable.
    """

    def __init__(self, name: str, function: Callable[..., Any], *arguments: Any) -> None:
        self.name = name
        self.step, self.share, self.note = name, 0.0, ""
        self.sentences: list[str] = []  # for the user, not yet read
        self._result: tuple[str, Any] | None = None
        context = forking_context()
        self._mine, theirs = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_work,
            args=(theirs, str(Path.cwd()), function, arguments),
            name=f"cryopick {name}",
        )
        main = sys.modules["__main__"]  # the process must not run the user's script again
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            self._process.start()
        finally:
            sys.modules["__main__"] = main
            theirs.close()

    @property
    def is_over(self) -> bool:
        """Whether `result` can be asked for."""
        self._listen()
        return self._result is not None

    def result(self) -> Any:
        """Give what the function returned.

        Raises
        ------
        CryopickError
            That it raised, or that its process died.
        """
        self._listen()
        assert self._result is not None
        kind, value = self._result
        if kind == "error":
            raise value
        return value

    def end(self) -> None:
        """End the process, wherever it is; what it has committed stays."""
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(_PATIENCE)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
        self._mine.close()

    def _listen(self) -> None:
        if self._result is not None:
            return
        try:
            while self._mine.poll():
                kind, *values = self._mine.recv()
                if kind == "tell":
                    self.step, self.share, self.note = values
                elif kind == "say":
                    self.sentences.append(values[0])
                else:
                    self._result = (kind, values[0])
                    self._process.join(_PATIENCE)
                    return
        except (EOFError, OSError):
            self._process.join(_PATIENCE)
            self._result = ("error", _died(self.name, self._process.exitcode))


def _died(name: str, code: int | None) -> CryopickError:
    how = f"one killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return DataError(
        f"the process of {name}",
        must="live until its work is done",
        got=how,
        remedy="If memory was short, give the session less to do at once with --memory",
    )


def _work(
    connection: Connection,
    place: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """Be the process, in a working folder."""
    import signal

    os.chdir(place)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent alone
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    lock = threading.Lock()

    def send(*message: Any) -> None:
        with lock, contextlib.suppress(OSError):
            connection.send(message)

    try:
        value = function(
            *arguments,
            tell=lambda step, share, note: send("tell", step, share, note),
            say=lambda sentence: send("say", sentence),
        )
    except CryopickError as error:
        send("error", error)
    else:
        send("done", value)
    connection.close()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a parent that was killed cannot say so
