"""Map a function over items: in this process, in worker processes, or on a cluster.

A task is a picklable function and one item. The function goes to each worker once, so it may carry
data that all items share (`functools.partial`). Results come back in the order they finish; the
caller keeps order by the index. An error the user can mend (`CryopickError`, or one of the
operating system) belongs to its item and the rest goes on, and so does the death of a worker;
any other exception is a bug and stops the run.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import platform
import re
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from cryopick.errors import CryopickError, DataError, ParameterError, ProjectError
from cryopick.execution.parameters import ComputeParameters
from cryopick.execution.retries import Attempt

if TYPE_CHECKING:
    from cryopick.execution.cluster import ClusterExecutor

__all__ = [
    "Executor",
    "LocalExecutor",
    "Outcome",
    "SerialExecutor",
    "count_cores",
    "forking_context",
    "make_executor",
    "require_devices",
    "run_item",
    "set_threads",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

_function: Callable[..., Any] | None = None  # of this worker process
_NO_MEMORY = re.compile("allocate memory|out of memory", re.IGNORECASE)  # as torch says it


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of one item: a value, or the error that belongs to it."""

    index: int
    value: Result | None = None
    error: CryopickError | None = None
    attempts: tuple[Attempt, ...] = ()  # that ended with the death of a worker


class Executor(Protocol):
    """Anything that can map a function over items."""

    def map_unordered(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[Outcome[Result], None, None]:
        """Yield one outcome per item, as they finish."""
        ...


def run_item(function: Callable[[Item], Result], index: int, item: Item) -> Outcome[Result]:
    """Run one item; errors that belong to it are its outcome, others are raised."""
    try:
        return Outcome(index, value=function(item))
    except CryopickError as error:
        return Outcome(index, error=error)
    except OSError as error:
        return Outcome(index, error=_as_data_error(error))
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or _NO_MEMORY.search(str(error))):
            raise
        return Outcome(index, error=_memory_error("too little of it"))


def _run_here(index: int, item: Any) -> Outcome[Any]:
    """Run an item in a worker, with the function that the worker was started with."""
    assert _function is not None
    return run_item(_function, index, item)


def _memory_error(got: str) -> DataError:
    return DataError(
        "this item",
        must="fit in the memory that is free",
        got=got,
        remedy="Run the same command again with fewer --workers; finished work is kept",
    )


def _as_data_error(error: OSError) -> DataError:
    return DataError(
        str(error.filename or "a file of this item"),
        must="be readable",
        got=error.strerror or str(error) or type(error).__name__,
        remedy="Check the disk and the permissions",
    )


def set_threads(threads: int) -> None:
    """Let torch use so many threads in this process."""
    import torch

    torch.set_num_threads(threads)


def _start_worker(threads: int, function: Callable[..., object]) -> None:
    """Prepare a worker: it ends with its parent, and Ctrl-C is for the parent alone."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_threads(threads)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a parent that was killed cannot say so, and its workers would wait for ever


def forking_context() -> ForkServerContext:
    """Give the context that forks processes from a server, which Ctrl-C does not reach.

    Nor does it reach them from their first moment on: one that still loads its modules would end
    with a traceback.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cryopick.execution.preload"])
    resource_tracker.ensure_running()  # which lets signals through again when it has begun
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()  # what is blocked here stays so in its processes
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextlib.contextmanager
def _unguarded_main(function: Callable[..., object]) -> Iterator[None]:
    """Keep new workers from running the user's script again to get at its functions.

    They need none of it, unless `function` is defined there; so a script that calls cryopick
    needs no ``if __name__ == "__main__"``.
    """
    main = sys.modules["__main__"]
    if getattr(getattr(function, "func", function), "__module__", "") == "__main__":
        yield
        return
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class SerialExecutor:
    """Run every item in this process, one after the other."""

    def __init__(self, *, threads: int) -> None:
        self._threads = threads

    def map_unordered(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[Outcome[Result], None, None]:
        """Yield one outcome per item, in order."""
        set_threads(self._threads)
        for index, item in enumerate(items):
            yield run_item(function, index, item)


class LocalExecutor:
    """Run items in `workers` processes of `threads` threads each."""

    def __init__(self, *, workers: int, threads: int) -> None:
        self._workers = workers
        self._threads = threads

    def map_unordered(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[Outcome[Result], None, None]:
        """Yield one outcome per item, as they finish; a few items a worker are in flight.

        Where a worker is killed, the items in flight are tried again one at a time, and the one
        that kills its worker again gets the error.

        Raises
        ------
        ProjectError
            If no worker process can be started.
        """
        waiting = deque(enumerate(items))
        while waiting:
            in_flight: dict[int, Item] = {}
            try:
                yield from self._map(function, waiting, in_flight)
            except BrokenProcessPool:
                suspects = sorted(in_flight.items())
                yield from (self._run_alone(function, *suspect) for suspect in suspects)

    def _map(
        self,
        function: Callable[[Item], Result],
        waiting: deque[tuple[int, Item]],
        in_flight: dict[int, Item],
    ) -> Generator[Outcome[Result], None, None]:
        """Work until nothing waits; `in_flight` holds what was begun and not yielded."""
        with self._pool(self._workers, function) as pool:
            running: set[Future[Outcome[Result]]] = set()
            while waiting or running:
                while waiting and len(running) < 3 * self._workers:
                    index, item = waiting.popleft()
                    in_flight[index] = item
                    with _unguarded_main(function):  # workers start as they are needed
                        running.add(pool.submit(_run_here, index, item))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    outcome = future.result()
                    del in_flight[outcome.index]
                    yield outcome

    def _run_alone(
        self, function: Callable[[Item], Result], index: int, item: Item
    ) -> Outcome[Result]:
        """Run one item in a worker of its own, after a worker was killed."""
        try:
            with self._pool(1, function) as pool, _unguarded_main(function):
                _require_worker(pool)
                return pool.submit(_run_here, index, item).result()
        except BrokenProcessPool:
            died = Attempt(host=platform.node(), reason="its worker died")
            killed = _memory_error("a worker process that was killed")
            return Outcome(index, error=killed, attempts=(died, died))

    @contextlib.contextmanager
    def _pool(self, workers: int, function: Callable[..., object]) -> Iterator[ProcessPoolExecutor]:
        pool = ProcessPoolExecutor(
            workers,
            forking_context(),
            initializer=_start_worker,
            initargs=(self._threads, function),
        )
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _require_worker(pool: ProcessPoolExecutor) -> None:
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise ProjectError(
            "a worker process",
            must="start",
            got="a process that ended at once",
            remedy="Try --workers 1, and look for the reason above",
        ) from error


def make_executor(
    compute: ComputeParameters, *, n_items: int, bytes_per_item: int
) -> SerialExecutor | LocalExecutor | ClusterExecutor:
    """Choose where to run, and how many workers and threads from what the user asked for.

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
        If not even one item fits in the memory limit, a device is not there, or the file that
        says how to use Slurm is wrong.
    ProjectError
        If what a cluster needs is not installed.
    """
    if compute.is_remote:
        return _cluster_executor(compute)
    if compute.uses_gpu:
        require_devices(compute)
    cores = count_cores()
    workers = compute.workers or (cores if not compute.uses_gpu else len(compute.devices))
    workers = min(workers, compute.fitting(bytes_per_item), max(n_items, 1))
    if workers <= 1 or compute.execution == "serial":
        return SerialExecutor(threads=compute.threads or cores)
    return LocalExecutor(workers=workers, threads=compute.threads or max(1, cores // workers))


def _cluster_executor(compute: ComputeParameters) -> ClusterExecutor:
    kind, _, place = compute.execution.partition(":")
    try:
        from cryopick.execution.cluster import ClusterExecutor, NamedCluster

        if kind == "slurm":
            from cryopick.execution.slurm import slurm_executor

            return slurm_executor(compute, place)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"dask", "distributed", "dask_jobqueue"}:
            raise
        raise ProjectError(
            f"--execution {kind}",
            must="find dask.distributed and dask-jobqueue",
            got=f"no {error.name}",
            remedy="Install them: pip install 'cryopick[cluster]'",
        ) from error
    return ClusterExecutor(
        open_fleet=partial(NamedCluster, place),
        place=compute.execution,
        threads=compute.threads or 1,
        needs_gpu=compute.uses_gpu,
    )


def count_cores() -> int:
    """Cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1


def require_devices(compute: ComputeParameters) -> None:
    """Refuse devices that this machine has not; those of a cluster are its own affair.

    Raises
    ------
    ParameterError
        Naming the first.
    """
    if compute.is_remote or set(compute.devices) == {"cpu"}:  # torch takes long to import
        return
    import torch

    for device in compute.devices:
        kind, _, number = device.partition(":")
        there = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(kind, 0)
        if kind == "mps":
            there = int(torch.backends.mps.is_available())
        if int(number or 0) >= there:
            raise ParameterError(
                "device",
                must="be on this machine",
                got=f"{device}, while there are {there} {kind} devices",
                remedy="Change --device",
            )
