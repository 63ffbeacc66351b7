"""Topaz as an executor of a job: one process that is fed fields and gives back their peaks.

A thread prepares the fields a little ahead and tells Topaz their names on its input; Topaz
announces each field that it has finished and prints its peaks. So its start and its model are
paid for once, a field is stored as soon as it is done, and a job that was killed goes on.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from cryopick.errors import CryopickError
from cryopick.execution.local import Outcome
from cryopick.pipeline.topaz_fields import FieldFile, WrittenField, field_name, write_field
from cryopick.pipeline.topaz_program import TopazProgram, TopazRun

__all__ = ["TopazField", "TopazStream"]

_AHEAD = 16  # fields prepared and not yet picked, at most
_SILENCE = 1800.0  # s without a finished field, after which Topaz is told nothing more
_FINISHED = re.compile(r"# Extracted (\d+) particles from (\S+)$")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(kw_only=True)
class TopazField:
    """One task; the stream fills in what Topaz found before it is stored."""

    path: Path
    key: str
    pixel_size: float  # A/px
    written: WrittenField | None = None
    peaks: list[tuple[float, float, float]] = field(default_factory=list)  # x, y, score


@dataclass(frozen=True, kw_only=True)
class TopazStream:
    """Run fields through one process of Topaz."""

    program: TopazProgram
    arguments: tuple[str, ...]  # of `topaz extract`
    template: FieldFile  # how a field is prepared; its paths and pixel size are filled in
    folder: Path  # for the fields on their way
    log: Path
    threads: int = 0
    needs_gpu: bool = False

    def map_unordered(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[Outcome[Result], None, None]:
        """Yield one outcome per field, as they finish.

        Raises
        ------
        ProjectError
            If Topaz fails; what was finished before is kept.
        """
        if not items:
            return
        if self.threads:
            torch.set_num_threads(self.threads)
        run = TopazRun(
            self.program,
            ["extract", *self.arguments],
            folder=self.folder,
            log=self.log,
            threads=self.threads,
            needs_gpu=self.needs_gpu,
        )
        with run, _Feeder(self, run, items) as feeder:
            for name, peaks in _finished_fields(run):
                yield from feeder.refused()
                index, one = feeder.take(name)
                one.peaks = peaks
                yield _outcome(function, index, items[index])
            run.finish()
            feeder.join()
            yield from feeder.refused()
            if feeder.waiting:
                raise run.error(f"an end before {len(feeder.waiting)} micrographs were picked")


def _outcome(function: Callable[[Item], Result], index: int, item: Item) -> Outcome[Result]:
    try:
        return Outcome(index, value=function(item))
    except CryopickError as error:
        return Outcome(index, error=error)


def _finished_fields(
    run: TopazRun,
) -> Generator[tuple[str, list[tuple[float, float, float]]], None, None]:
    """Read the names of finished fields and their peaks out of what Topaz says."""
    name, wanted = "", 0
    peaks: list[tuple[float, float, float]] = []
    for line in run.lines():
        finished = _FINISHED.match(line)
        if finished is not None:
            name, wanted, peaks = finished.group(2), int(finished.group(1)), []
        elif name and line.startswith(f"{name}\t"):
            with contextlib.suppress(ValueError):
                x, y, score = map(float, line.split("\t")[1:4])
                if np.isfinite(score):
                    peaks.append((x, y, score))
                else:
                    wanted -= 1
        if name and len(peaks) == wanted:
            yield name, peaks
            name = ""


class _Feeder:
    """Prepares fields in a thread and tells Topaz their names."""

    def __init__(self, stream: TopazStream, run: TopazRun, items: Sequence[object]) -> None:
        self._stream, self._run = stream, run
        self._items = [item for item in items if isinstance(item, TopazField)]
        assert len(self._items) == len(items)
        self._room = threading.Semaphore(_AHEAD)
        self._is_stopped = threading.Event()
        self._errors: deque[tuple[int, CryopickError]] = deque()
        self._bug: BaseException | None = None
        self._heard = time.monotonic()  # when a field was finished last
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self.waiting: dict[str, int] = {}  # fields told to Topaz and not yet finished

    def __enter__(self) -> _Feeder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopped.set()
        self._room.release()
        self._thread.join()
        for name in self.waiting:
            self._target(name).unlink(missing_ok=True)

    def join(self) -> None:
        """Wait until all fields are told, and raise what went wrong."""
        self._thread.join()
        if self._bug is not None:
            raise self._bug

    def take(self, name: str) -> tuple[int, TopazField]:
        """Take back a field that Topaz has finished."""
        if name not in self.waiting:
            raise self._run.error(f"peaks of {name}, which it was not given")
        self._heard = time.monotonic()
        index = self.waiting.pop(name)
        self._target(name).unlink(missing_ok=True)
        self._room.release()
        return index, self._items[index]

    def refused(self) -> Generator[Outcome[Result], None, None]:
        """Yield the fields that could not be prepared."""
        while self._errors:
            index, error = self._errors.popleft()
            yield Outcome(index, error=error)

    def _target(self, name: str) -> Path:
        return self._stream.folder / f"{name}.mrc"

    def _feed(self) -> None:
        try:
            for index, item in enumerate(self._items):
                if not self._has_room() or self._is_stopped.is_set():
                    break
                self._feed_one(index, item)
        except (BrokenPipeError, ValueError) as error:  # the process ended, and will say why
            if isinstance(error, ValueError) and not self._run.input.closed:
                self._bug = error
        except BaseException as error:  # raised again where the caller sees it
            self._bug = error
        finally:
            with contextlib.suppress(OSError):
                self._run.input.close()

    def _has_room(self) -> bool:
        """Wait for room; False if Topaz has been silent for too long: its input ends then."""
        while not self._room.acquire(timeout=min(1.0, _SILENCE)):
            if time.monotonic() - self._heard > _SILENCE:
                return False
        return True

    def _feed_one(self, index: int, item: TopazField) -> None:
        name = field_name(index + 1)
        template = self._stream.template
        target = self._target(name)
        try:
            item.written = write_field(
                replace(template, path=item.path, target=target, pixel_size=item.pixel_size)
            )
        except CryopickError as error:
            self._errors.append((index, error))
            self._room.release()
            return
        self.waiting[name] = index
        self._run.input.write(f"{target.name}\n")
        self._run.input.flush()
