"""Map a function over shards on a cluster, and add what is large of it there, in a tree.

A shard gives something small, which comes back as it is, and maybe something large, of which only
the sum comes back. The tree depends on the number of shards alone. What a dead worker held is made
again by the scheduler, so nothing but time is lost.
"""

from __future__ import annotations

import pickle
import time
import uuid
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from distributed import KilledWorker

from cryopick.errors import ProjectError
from cryopick.execution.cluster import ClusterSession
from cryopick.execution.remote import Remote, deliver, open_function

__all__ = ["map_and_merge", "map_in_order"]

Item = TypeVar("Item")
Small = TypeVar("Small")
Large = TypeVar("Large")

_TRIES = 3  # of all shards, after the scheduler has tried some of them on several workers
_LOOK = 1.0  # s, between looks at the workers


def map_and_merge(
    session: ClusterSession,
    function: Callable[[Item], tuple[Small, Large]],
    items: Sequence[Item],
    *,
    merge: Callable[[Sequence[Large]], Large],
    fan_in: int,
    see: Callable[[Small], None],
    place: Callable[[Item], float] | None = None,
) -> Large:
    """Map, hand out what is small in the order of the items, and return the sum of what is large.

    Parameters
    ----------
    session
        The cluster.
    function
        Gives for an item a small value and a large one.
    items
        At least one.
    merge
        Adds up to `fan_in` neighbours.
    fan_in
        How many are added in each node of the tree.
    see
        Called once with each small value.
    place
        Tells where an item lies from 0 to 1; neighbours go to the same worker, and to the same
        one in the next map. A worker that is done takes items of others.

    Raises
    ------
    ProjectError
        If workers keep dying, one lacks a file, or the scheduler is lost.
    """
    seen = 0
    for attempt in range(_TRIES):
        run = _Reduction(session, function, items, merge=merge, fan_in=fan_in, place=place)
        try:
            for small in run.small(seen):
                see(small)
                seen += 1
            result: Large = run.sum()
            return result
        except KilledWorker as error:
            if attempt == _TRIES - 1:
                raise _too_many(error) from error
        finally:
            run.close()
    raise AssertionError


def map_in_order(
    session: ClusterSession,
    function: Callable[[Item], Small],
    items: Sequence[Item],
    *,
    place: Callable[[Item], float] | None = None,
) -> Iterator[Small]:
    """Map, and give the values in the order of the items, as they come.

    Parameters
    ----------
    session, place
        As for `map_and_merge`.
    function
        Gives something small for an item.
    items
        What to map.

    Raises
    ------
    ProjectError
        If workers keep dying, one lacks a file, or the scheduler is lost.
    """
    seen = 0
    for attempt in range(_TRIES):
        run = _Leaves(session, function, items[seen:], place=place)
        try:
            for value in run.values():
                seen += 1
                yield value
            return
        except KilledWorker as error:
            if attempt == _TRIES - 1:
                raise _too_many(error) from error
        finally:
            run.close()


def _too_many(error: KilledWorker) -> ProjectError:
    return ProjectError(
        "the workers",
        must="live through the work on a part of the images",
        got=f"several that died, the last on {error.last_worker.host}",
        remedy="Give each more memory, and run the same command again",
    )


class _Reduction:
    """The tasks of one map and its tree."""

    def __init__(
        self,
        session: ClusterSession,
        function: Callable[..., Any],
        items: Sequence[Any],
        *,
        merge: Callable[..., Any],
        fan_in: int,
        place: Callable[[Any], float] | None,
    ) -> None:
        self._leaves = _Leaves(session, function, items, place=place)
        submit = self._leaves.submit
        pairs = self._leaves.futures
        self._small = [submit(_first, f, name=f"a-{n}") for n, f in enumerate(pairs)]
        level = [submit(_second, f, name=f"b-{n}") for n, f in enumerate(pairs)]
        pairs.clear()  # what has been parted is let go
        depth = 0
        while len(level) > 1:
            depth += 1
            level = [
                submit(merge, level[n : n + fan_in], name=f"node{depth}-{n}")
                for n in range(0, len(level), fan_in)
            ]
        (self._root,) = level

    def small(self, start: int) -> Iterator[Any]:
        """Give the small values from one on, as they come, in order."""
        for place in range(start, len(self._small)):
            yield self._leaves.result(self._small[place])

    def sum(self) -> Any:
        """Give the sum."""
        return self._leaves.result(self._root)

    def close(self) -> None:
        """Let the scheduler forget all of it; to cancel what nobody wants any more breaks it."""
        for future in (*self._small, self._root):
            future.release()
        self._leaves.close()


class _Leaves:
    """The tasks of one map."""

    def __init__(
        self,
        session: ClusterSession,
        function: Callable[..., Any],
        items: Sequence[Any],
        *,
        place: Callable[[Any], float] | None,
    ) -> None:
        self._session, self._client = session, session.client
        self._looked = 0.0
        run = uuid.uuid4().hex
        remote = Remote(
            run=run,
            function=pickle.dumps(function, pickle.HIGHEST_PROTOCOL),
            folder=str(Path.cwd()),
            threads=1,  # results must not depend on them
        )
        self._prefix = f"cryopick-shard-{run}"
        self._remote = self._client.submit(deliver, remote, key=f"cryopick-run-{run}")
        needs = {"resources": session.resources} if session.resources else {}
        self.futures = [
            self.submit(_shard, n, item, self._remote, name=f"leaf-{n}", **needs, **worker)
            for n, (item, worker) in enumerate(zip(items, self._workers(items, place), strict=True))
        ]

    def submit(self, function: Callable[..., Any], *args: Any, name: str, **options: Any) -> Any:
        """Submit a task of this map."""
        key = f"{self._prefix}-{name}"
        return self._client.submit(function, *args, key=key, pure=False, **options)

    def values(self) -> Iterator[Any]:
        """Give what the tasks made, as it comes, in order; what has been given is let go."""
        while self.futures:
            yield self.result(self.futures[0])
            self.futures.pop(0).release()

    def _workers(
        self, items: Sequence[Any], place: Callable[[Any], float] | None
    ) -> list[dict[str, Any]]:
        """Say to which worker each item goes, if it can take it."""
        known = self._session.able_workers()
        if place is None or not known:
            return [{}] * len(items)
        order = sorted(known, key=lambda a: (known[a]["host"], str(known[a]["name"]), a))
        slots = [address for address in order for _ in range(known[address]["nthreads"])]
        chosen = (slots[min(int(place(i) * len(slots)), len(slots) - 1)] for i in items)
        return [{"workers": [address], "allow_other_workers": True} for address in chosen]

    def close(self) -> None:
        """Let the scheduler forget all of it; to cancel what nobody wants any more breaks it."""
        for future in (*self.futures, self._remote):
            future.release()

    def result(self, future: Any) -> Any:
        """Wait for a result; it is made again where its worker dies, however often it takes.

        Raises
        ------
        ProjectError
            If the scheduler is lost, or a worker lacks a file.
        """
        while True:
            if time.monotonic() - self._looked > _LOOK:
                self._looked = time.monotonic()
                self._session.look()
            try:
                return future.result(timeout=_LOOK)
            except TimeoutError:
                continue
            except CancelledError as error:
                raise self._session.lost() from error
            except FileNotFoundError as error:
                raise ProjectError(
                    "the workers",
                    must="see the files of the run under the same paths",
                    got=f"one without {error.filename}",
                    remedy="Keep particles and --out in folders that all machines share",
                ) from error


def _shard(number: int, item: Any, remote: Remote) -> Any:
    del number
    return open_function(remote)(item)


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _second(pair: tuple[Any, Any]) -> Any:
    return pair[1]
