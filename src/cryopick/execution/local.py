"""Map a function over items: in this process, or in worker processes on this machine.

A task is a picklable function and one item. Results come back in the order they finish; the
caller keeps order by the index. An error the user can mend (`CryopickError`) belongs to its item
and the rest goes on; any other exception is a bug and stops the run.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cryopick.errors import CryopickError, ProjectError
from cryopick.execution.parameters import ComputeParameters

__all__ = ["Executor", "LocalExecutor", "Outcome", "SerialExecutor", "make_executor"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of one item: a value, or the error that belongs to it."""

    index: int
    value: Result | None = None
    error: CryopickError | None = None


class Executor(Protocol):
    """Anything that can map a function over items."""

    def map_unordered(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[Outcome[Result]]:
        """Yield one outcome per item, as they finish."""
        ...


def _run(function: Callable[[Item], Result], index: int, item: Item) -> Outcome[Result]:
    try:
        return Outcome(index, value=function(item))
    except CryopickError as error:
        return Outcome(index, error=error)


def _start_worker(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


class SerialExecutor:
    """Run every item in this process, one after the other."""

    def __init__(self, *, threads: int) -> None:
        self._threads = threads

    def map_unordered(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[Outcome[Result]]:
        """Yield one outcome per item, in order."""
        _start_worker(self._threads)
        for index, item in enumerate(items):
            yield _run(function, index, item)


class LocalExecutor:
    """Run items in `workers` processes of `threads` threads each."""

    def __init__(self, *, workers: int, threads: int) -> None:
        self._workers = workers
        self._threads = threads

    def map_unordered(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[Outcome[Result]]:
        """Yield one outcome per item, as they finish; a few items a worker are in flight.

        Raises
        ------
        ProjectError
            If a worker process was killed, as a machine out of memory does.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["cryopick.execution.preload"])
        waiting = iter(enumerate(items))
        pool = ProcessPoolExecutor(
            self._workers, context, initializer=_start_worker, initargs=(self._threads,)
        )
        running: set[Future[Outcome[Result]]] = set()
        try:
            while True:
                for index, item in waiting:
                    running.add(pool.submit(_run, function, index, item))
                    if len(running) >= 3 * self._workers:
                        break
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise ProjectError(
                "a worker process",
                must="live until its work is done",
                got="a process that was killed, probably for want of memory",
                remedy="Run the same command again with fewer --workers; finished work is kept",
            ) from error
        finally:
            for future in running:
                future.cancel()
            pool.shutdown(wait=True, cancel_futures=True)


def make_executor(
    compute: ComputeParameters, *, n_items: int, bytes_per_item: int
) -> SerialExecutor | LocalExecutor:
    """Choose workers and threads from what the user asked for and what the machine has.

    Parameters
    ----------
    compute
        Workers, threads and memory as given; 0 means as many as there are.
    n_items
        Items to work on; there are never more workers than items.
    bytes_per_item
        Peak memory of one item. With a memory limit, there are only as many workers as fit.

    Raises
    ------
    ParameterError
        If not even one item fits in the memory limit.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    workers = compute.workers or (cores if not compute.uses_gpu else len(compute.devices))
    workers = min(workers, compute.fitting(bytes_per_item), max(n_items, 1))
    if workers <= 1:
        return SerialExecutor(threads=compute.threads or cores)
    return LocalExecutor(workers=workers, threads=compute.threads or max(1, cores // workers))
