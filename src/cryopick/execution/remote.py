"""What runs on the workers and the scheduler of a cluster; imported there by name."""

from __future__ import annotations

import functools
import os
import pickle
import platform
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distributed import SchedulerPlugin, get_worker
from distributed.utils import sync

from cryopick.execution.local import Outcome, run_item, set_threads

__all__ = ["Blame", "HostFailure", "Load", "Remote", "deliver", "open_function", "topic_of", "work"]

_lock = threading.Lock()
_at_work: set[str] = set()  # names of the loads that threads of this process are at work on


@dataclass(frozen=True, kw_only=True)
class Remote:
    """What all items of a run share."""

    run: str  # unique
    function: bytes  # pickled
    folder: str  # relative paths start there
    threads: int


@dataclass(frozen=True, kw_only=True)
class HostFailure:
    """Why a host cannot work on any item."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Load:
    """One item on its way; `name` is its key, for the note that it was begun."""

    index: int
    name: str
    item: Any


def deliver(remote: Remote) -> Remote:
    """Be the task whose result every worker fetches once, and that can be done again."""
    return remote


def topic_of(run: str) -> str:
    """Name of the events that tell which items were begun."""
    return f"cryopick-{run}"


def work(load: Load, remote: Remote) -> Outcome[Any] | HostFailure:
    """Work on one item; the scheduler knows that it is begun before it can end the worker."""
    _at_work.add(load.name)
    try:
        _tell(load, remote)
        return _work(load, remote)
    finally:
        _at_work.discard(load.name)


def _tell(load: Load, remote: Remote) -> None:
    """Say what this worker is at work on: news of an end that is on its way dies with it."""
    worker = get_worker()
    note = {
        "name": load.name,
        "worker": worker.address,
        "host": platform.node(),
        "at_work": sorted(_at_work),
    }
    sync(worker.loop, worker.scheduler.log_event, topic=topic_of(remote.run), msg=note)


def _work(load: Load, remote: Remote) -> Outcome[Any] | HostFailure:
    try:
        function = open_function(remote)
    except OSError as error:
        return HostFailure(reason=f"{error.filename}: {error.strerror}")
    except (ImportError, AttributeError) as error:
        return HostFailure(reason=f"another cryopick there: {error}")
    return run_item(function, load.index, load.item)


@functools.lru_cache(maxsize=2)
def _opened(run: str, function: bytes, folder: str, threads: int) -> Callable[[Any], Any]:
    os.chdir(folder)
    set_threads(threads)
    opened: Callable[[Any], Any] = pickle.loads(function)
    return opened


def open_function(remote: Remote) -> Callable[[Any], Any]:
    """Read the function of a run, once in each process, and move to its folder."""
    with _lock:  # two threads of a worker would both unpickle it
        return _opened(remote.run, remote.function, remote.folder, remote.threads)


class Blame(SchedulerPlugin):  # type: ignore[misc]
    """Keep a scheduler from trying items of a run again on its own: the manager counts attempts.

    Without it a scheduler tries four workers, and blames every item that waited on a dead one.
    """

    def __init__(self, prefix: str) -> None:
        self.name = prefix
        self._prefix = prefix
        self._scheduler: Any = None

    async def start(self, scheduler: Any) -> None:
        """Remember the scheduler."""
        self._scheduler = scheduler

    def transition(self, key: Any, start: str, finish: str, *_: object, **__: object) -> None:
        """Let the death of its worker be the end of an attempt."""
        if finish == "processing" and str(key).startswith(self._prefix):
            self._scheduler.tasks[key].suspicious = self._scheduler.allowed_failures
