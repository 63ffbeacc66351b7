"""Who works on parts of the images: threads, each on one core; results come in order.

Others can take their place (`Run`). Work that all parts share is an object that can be pickled
(`ImageWork`): whoever sends it elsewhere leaves out the images that it names, and opens them there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch

from cryopick.alignment.search import Workspace
from cryopick.class2d.em_workers import ShardWorkers

if TYPE_CHECKING:
    from cryopick.class2d.stable_engine import StableEngine
    from cryopick.class2d.stable_start import PreparedSource

__all__ = ["BlockWorkers", "ImageWork", "Run"]

_AHEAD = 2  # parts waiting for each thread

Item = TypeVar("Item")
ItemOf = TypeVar("ItemOf", contravariant=True)
Result = TypeVar("Result")
ResultOf = TypeVar("ResultOf", covariant=True)


class ImageWork(Protocol[ItemOf, ResultOf]):
    """What is done to each part of the images; it changes nothing."""

    @property
    def engine(self) -> StableEngine:
        """Of the images."""
        ...

    def prepare(self) -> None:
        """Make what all parts need; called once, before the threads of a process begin."""
        ...

    def __call__(self, item: ItemOf, workspace: Workspace, /) -> ResultOf:
        """Work on a part, with buffers that no other thread has."""
        ...


class Run(Protocol):
    """Anything that can work on parts of the images; results do not depend on it."""

    def __call__(self, work: ImageWork[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
        """Results in the order of the items, whichever was first."""
        ...

    def shards(self, source: PreparedSource) -> ShardWorkers | None:
        """Make workers for a classification of prepared images; None: threads of its own."""
        ...

    def close(self) -> None:
        """Let go of what was needed for it."""
        ...


class BlockWorkers:
    """Threads of this process."""

    def __init__(self, threads: int, device: str = "cpu") -> None:
        self._count, self._device = threads, device
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(threads, initializer=self._begin)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)

    def shards(self, source: PreparedSource) -> None:
        """Leave it to the classification."""

    def __call__(self, work: ImageWork[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
        """Results in the order of the items, whichever thread was first."""
        work.prepare()
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(self._call, work, item))
                if len(waiting) > _AHEAD * self._count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _begin(self) -> None:
        self._local.workspace = Workspace(device=self._device)
        torch.set_num_threads(1)

    def _call(self, work: Callable[[Item, Workspace], Result], item: Item) -> Result:
        with torch.no_grad():
            return work(item, self._local.workspace)
