"""Map a function over items on a dask cluster: workers on many machines, which come and go.

A few items a worker are in flight at any time, and results are taken as they come. Each attempt at
an item is one task; when its worker dies the attempt ends, and the retry ledger decides what is
next. Effects are files that are committed by rename, so an item that a frozen worker finishes late
does no harm. When the scheduler is lost, what was finished is in the ledger of the job.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import queue
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from distributed import Client, Future, KilledWorker
from distributed.comm import get_address_host

from cryopick.errors import ProjectError
from cryopick.execution.kept import kept_or_new
from cryopick.execution.local import Outcome
from cryopick.execution.remote import Blame, HostFailure, Load, Remote, deliver, topic_of, work
from cryopick.execution.retries import Attempt, RetryBook, killed_error

__all__ = ["ClusterExecutor", "ClusterSession", "Fleet", "NamedCluster"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4  # items in flight for each thread of a worker
_REFILL = 0.25  # of them that have ended before others follow
_FEWEST = 4  # items in flight while no worker is known
_TICK = 0.2  # s, that the loop sleeps at most
_LOOK = 1.0  # s, between looks at the workers
_GATHER = 5.0  # s, for results of finished items to arrive
_CONNECT = 10.0  # s, for the scheduler to answer
_log = logging.getLogger("cryopick.execution")


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine of the cluster."""

    address: str
    name: str

    def __str__(self) -> str:
        return self.name if self.name == self.address else f"{self.name} ({self.address})"


class Fleet(Protocol):
    """Where the workers come from."""

    @property
    def address(self) -> str:
        """Of the scheduler."""
        ...

    def look(self, workers: Sequence[str]) -> None:
        """See to it that there are workers, given the names of those that are; often called."""
        ...

    def expect(self) -> None:
        """Count from now how long there have been no workers: work begins."""
        ...

    def avoid(self, host: str) -> None:
        """Ask for no more workers on a host."""
        ...

    def close(self) -> None:
        """Give the workers back."""
        ...


class NamedCluster:
    """A cluster that somebody else runs; its workers must appear within `patience` s."""

    def __init__(self, address: str, *, patience: float = 60.0) -> None:
        self.address = address
        self._patience = patience
        self._since = time.monotonic()

    def expect(self) -> None:
        """Count from now how long there have been no workers."""
        self._since = time.monotonic()

    def look(self, workers: Sequence[str]) -> None:
        """Wait for workers, but not for ever.

        Raises
        ------
        ProjectError
            If there have been none for long.
        """
        now = time.monotonic()
        if workers:
            self._since = now
        elif now - self._since > self._patience:
            raise ProjectError(
                f"the cluster at {self.address}",
                must="have workers that can do the work",
                got=f"none for {self._patience:.0f} s",
                remedy="Start workers, with --resources GPU=1 for --device cuda, and run the same "
                "command again; finished work is kept",
            )

    def avoid(self, host: str) -> None:
        """Leave it to the others: its workers are asked to end, and this fleet starts none."""

    def close(self) -> None:
        """Leave the cluster as it is."""


@dataclass(frozen=True, kw_only=True)
class ClusterExecutor:
    """Run items on a cluster that is opened for each map, or kept (`kept.keeping_fleets`).

    Parameters
    ----------
    open_fleet
        Opens it.
    place
        Names it among those that are kept; empty is never kept.
    threads
        Of each item on the CPU.
    needs_gpu
        Items go to workers that were started with the resource GPU, one item for each.
    """

    open_fleet: Callable[[], Fleet]
    place: str = ""
    threads: int = 1
    needs_gpu: bool = False

    def map_unordered(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[Outcome[Result], None, None]:
        """Yield one outcome per item, as they finish.

        Raises
        ------
        ProjectError
            If the scheduler cannot be reached or is lost, or there are no workers.
        """
        if not items:
            return
        with self.session() as session:
            yield from session.map_unordered(function, items)

    @contextlib.contextmanager
    def session(self) -> Iterator[ClusterSession]:
        """Keep the cluster open for several maps."""
        with kept_or_new(self.place, partial(Connection, self.open_fleet)) as connection:
            connection.fleet.expect()
            yield ClusterSession(connection, threads=self.threads, needs_gpu=self.needs_gpu)


class Connection:
    """A fleet, the way to its scheduler, and the hosts that get no more of its work.

    Parameters
    ----------
    open_fleet
        Opens the fleet.

    Raises
    ------
    ProjectError
        If there is none, or its scheduler cannot be reached.
    """

    def __init__(self, open_fleet: Callable[[], Fleet]) -> None:
        self.drained: set[Host] = set()
        with contextlib.ExitStack() as stack:
            stack.enter_context(_quiet_logs())
            self.fleet = open_fleet()
            stack.callback(self.fleet.close)
            address = self.fleet.address
            try:
                self.client = Client(address, timeout=_CONNECT, set_as_default=False)
            except (OSError, ValueError) as error:
                raise _lost(address, f"no answer ({str(error).splitlines()[0]})") from error
            stack.callback(self.client.close, timeout=5)
            self._opened = stack.pop_all()

    @property
    def is_alive(self) -> bool:
        """Whether the scheduler still answers."""
        return bool(self.client.status == "running")

    def close(self) -> None:
        """End the connection, and give the workers back."""
        self._opened.close()


class ClusterSession:
    """Work of one kind on a fleet."""

    def __init__(self, connection: Connection, *, threads: int, needs_gpu: bool) -> None:
        self.fleet, self.client, self.threads = connection.fleet, connection.client, threads
        self.resources = {"GPU": 1} if needs_gpu else None
        self._connection = connection

    def map_unordered(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[Outcome[Result], None, None]:
        """Yield one outcome per item, as they finish."""
        run = _Run(self, function, items)
        try:
            yield from run.outcomes()
        finally:
            run.close()

    def look(self) -> dict[str, dict[str, Any]]:
        """Look after the workers; returns those that can do the work, by address.

        Raises
        ------
        ProjectError
            If the scheduler is lost, or the fleet has no hope of workers.
        """
        if not self._connection.is_alive:
            raise self.lost()
        workers = self.able_workers()
        self.fleet.look([str(w["name"]) for w in workers.values()])
        return workers

    def lost(self) -> ProjectError:
        """Say that the scheduler is lost."""
        return _lost(self.fleet.address, "a lost connection")

    def able_workers(self) -> dict[str, dict[str, Any]]:
        """Workers that can do the work, by address."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        if self.resources:
            return {a: w for a, w in workers.items() if w["resources"].get("GPU")}
        return dict(workers)

    def drain(self, host: Host, workers: Mapping[str, Mapping[str, Any]]) -> None:
        """Give a host no more work, unless it is the only one."""
        there = [address for address, w in workers.items() if w["host"] == host.address]
        if not there or len(there) == len(workers):
            return
        drained = self._connection.drained
        if host not in drained:
            _log.warning("Items fail on %s that go through elsewhere; it gets no more work.", host)
            drained.add(host)
            self.fleet.avoid(host.name)
        self.client.retire_workers(there, close_workers=True)


class _Run:
    """One map: what waits, what is in flight, and what has failed."""

    def __init__(
        self, session: ClusterSession, function: Callable[..., Any], items: Sequence[Any]
    ) -> None:
        self._session, self._client, self._items = session, session.client, items
        self._run = uuid.uuid4().hex
        self._prefix = f"cryopick-item-{self._run}"
        self._waiting = deque(range(len(items)))
        self._again: deque[int] = deque()  # after a worker's death, before others
        self._flying: dict[str, tuple[int, Future]] = {}
        self._done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._begun: dict[str, str] = {}  # on which worker each item in flight was begun
        self._at_work: dict[str, list[str]] = {}  # what each worker said last it works on
        self._guilty: set[str] = set()  # dead workers whose last item is known
        self._hosts: dict[str, Host] = {}  # by address, as far as workers have begun items there
        self._book = RetryBook()
        self._count = 0
        self._room = _FEWEST
        self._looked = 0.0
        remote = Remote(
            run=self._run,
            function=pickle.dumps(function, pickle.HIGHEST_PROTOCOL),
            folder=str(Path.cwd()),
            threads=session.threads,
        )
        self._client.register_plugin(Blame(self._prefix), name=self._prefix)
        self._client.subscribe_topic(topic_of(self._run), self._on_note)
        with _large_graphs():
            self._remote = self._client.submit(deliver, remote, key=f"cryopick-run-{self._run}")

    def close(self) -> None:
        """Cancel what is in flight."""
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            self._client.cancel([f for _, f in self._flying.values()])
            self._client.unsubscribe_topic(topic_of(self._run))
            self._client.unregister_scheduler_plugin(self._prefix)
        self._flying.clear()

    def outcomes(self) -> Generator[Outcome[Any], None, None]:
        """Feed and take until nothing is left."""
        while self._waiting or self._again or self._flying:
            self._look()
            self._feed()
            yield from self._take(self._finished())

    def _feed(self) -> None:
        """Put items in flight when there is room for several: each time costs, an item little."""
        loads: list[Load] = []
        if len(self._flying) > (1 - _REFILL) * self._room:
            return
        while (self._again or self._waiting) and len(self._flying) + len(loads) < self._room:
            index = self._again.popleft() if self._again else self._waiting.popleft()
            self._count += 1
            name = f"{self._prefix}-{self._count}"
            loads.append(Load(index=index, name=name, item=self._items[index]))
        if not loads:
            return
        if self._client.status != "running":
            raise self._session.lost()
        with _large_graphs():
            futures = self._client.map(
                work,
                loads,
                remote=self._remote,
                key=[load.name for load in loads],
                pure=False,
                resources=self._session.resources,
            )
        for load, future in zip(loads, futures, strict=True):
            self._flying[load.name] = (load.index, future)
            future.add_done_callback(self._done.put)

    def _finished(self) -> list[Future]:
        """Wait a little for attempts that have ended."""
        found = []
        with contextlib.suppress(queue.Empty):
            found.append(self._done.get(timeout=_TICK))
            while True:
                found.append(self._done.get_nowait())
        return [f for f in found if f.key in self._flying]

    def _take(self, futures: list[Future]) -> Generator[Outcome[Any], None, None]:
        whole = [f for f in futures if f.status == "finished"]
        values = self._gather(whole)
        for future in futures:
            index = self._flying[future.key][0]
            if future in values:
                found = values[future]
                if isinstance(found, HostFailure):
                    host = self._host_of(self._begun[future.key])
                    yield from self._failed(future, index, host, found.reason)
                    continue
                del self._flying[future.key]
                self._begun.pop(future.key, None)
                attempts = self._book.attempts(index)
                yield Outcome(index, value=found.value, error=found.error, attempts=attempts)
            elif future.status == "error":
                yield from self._erred(future, index)
            elif future.status == "cancelled":
                raise self._session.lost()
            else:  # its result was lost with its worker, and is made again
                future.add_done_callback(self._done.put)

    def _gather(self, futures: list[Future]) -> dict[Future, Any]:
        """Fetch results, as far as their workers still live."""
        if not futures:
            return {}

        async def fetch(some: list[Future]) -> list[Any]:
            return list(await self._client.gather(some, asynchronous=True))

        try:
            values = self._client.sync(fetch, futures, callback_timeout=_GATHER)
            return dict(zip(futures, values, strict=True))
        except (KilledWorker, TimeoutError):
            pass
        found = {}
        for future in futures:
            with contextlib.suppress(KilledWorker, TimeoutError):
                found[future] = future.result(timeout=1)
        return found

    def _erred(self, future: Future, index: int) -> Generator[Outcome[Any], None, None]:
        """Judge an attempt that brought no result: a bug, or a dead worker."""
        error = future.exception()
        if not isinstance(error, KilledWorker):
            assert error is not None
            raise error
        if error.task != future.key:  # the function was on its way
            self._put_back(future, index)
            return
        address = error.last_worker.address
        if future.key in self._at_work.get(address, ()) or not self._has_begun_other(address):
            self._guilty.add(address)
            yield from self._failed(future, index, self._host_of(address), "its worker died")
        else:
            self._put_back(future, index)  # it only waited there

    def _failed(
        self, future: Future, index: int, host: Host, reason: str
    ) -> Generator[Outcome[Any], None, None]:
        self._book.note(index, Attempt(host=str(host), reason=reason))
        if self._book.is_quarantined(index):
            del self._flying[future.key]
            attempts = self._book.attempts(index)
            yield Outcome(index, error=killed_error(attempts), attempts=attempts)
        else:
            self._put_back(future, index)

    def _put_back(self, future: Future, index: int) -> None:
        del self._flying[future.key]
        self._again.append(index)

    def _has_begun_other(self, address: str) -> bool:
        """Whether it was another attempt that a worker died on."""
        at_work = self._at_work.get(address, ())
        return address in self._guilty or any(name in self._flying for name in at_work)

    def _host_of(self, worker: str) -> Host:
        address = get_address_host(worker)
        return self._hosts.get(address, Host(address=address, name=address))

    def _on_note(self, event: tuple[float, dict[str, Any]]) -> None:
        note = event[1]
        address = get_address_host(note["worker"])
        self._hosts.setdefault(address, Host(address=address, name=note["host"]))
        self._begun[note["name"]] = note["worker"]
        self._at_work[note["worker"]] = note["at_work"]

    def _look(self) -> None:
        """Look after the workers, about once in a second."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        workers = self._session.look()
        failing = self._book.failing_hosts()
        for host in [h for h in list(self._hosts.values()) if str(h) in failing]:
            self._session.drain(host, workers)
        threads = sum(w["nthreads"] for w in workers.values())
        self._room = max(_AHEAD * threads, _FEWEST)


def _lost(address: str, got: str) -> ProjectError:
    return ProjectError(
        f"the scheduler at {address}",
        must="answer",
        got=got,
        remedy="Start it, and run the same command again; finished work is kept",
    )


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep dask's own messages away: what matters is said in a sentence."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _large_graphs() -> Iterator[None]:
    """Allow what all items share to be large: it goes out once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sending large graph")
        yield
