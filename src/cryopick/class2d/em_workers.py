"""Who aligns the shards of an iteration and adds their sums: threads, one for each device.

Others can take their place (`ShardWorkers`); the tree of the sums is the same for all.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.alignment.search import Workspace
from cryopick.class2d.em_expect import Expectation, ShardResult, expect_shard
from cryopick.class2d.em_shards import Shard
from cryopick.class2d.em_state import Poses
from cryopick.class2d.em_sums import IterationSums, merge_in_tree

__all__ = ["SHARDS_AHEAD", "See", "ShardWorkers", "Workers", "one_core"]

See = Callable[[NDArray[np.int64], Poses], None]  # called with particles and their new poses

SHARDS_AHEAD = 2  # shards waiting for each worker


@contextmanager
def one_core() -> Iterator[None]:
    """Run products on one core, so that results do not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ShardWorkers(Protocol):
    """Anything that can align the shards of an iteration."""

    @property
    def device(self) -> str:
        """Kind of device that it aligns on, which says how large tiles are: cpu, or another."""
        ...

    def expect(
        self, works: Mapping[str, Expectation], shards: Iterable[Shard], see: See
    ) -> IterationSums:
        """Align all shards; hand out poses in the order of the shards, and give their sums."""
        ...

    def close(self) -> None:
        """Let go of what was needed for it."""
        ...


class Workers:
    """Aligns shards side by side and hands their results out in order."""

    def __init__(self, devices: Sequence[str]) -> None:
        self._device, self._devices = devices[0], deque(devices)
        self._count = len(devices)
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(self._count, initializer=self._take_device)

    @property
    def device(self) -> str:
        """Of the first thread."""
        return self._device

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)

    def expect(
        self, works: Mapping[str, Expectation], shards: Iterable[Shard], see: See
    ) -> IterationSums:
        """Align all shards; hand out poses in the order of the shards, and give their sums."""

        def totals() -> Iterator[IterationSums]:
            for shard in self.map(works, shards):
                see(shard.indices, shard.poses)
                yield shard.totals

        return merge_in_tree(totals())

    def map(
        self, works: Mapping[str, Expectation], shards: Iterable[Shard]
    ) -> Iterator[ShardResult]:
        """Align shards, given with the size of their tiles; results come in the order given."""
        waiting: deque[Future[ShardResult]] = deque()
        try:
            for indices, tile_size in shards:
                waiting.append(self._pool.submit(self._align, works, indices, tile_size))
                if len(waiting) > SHARDS_AHEAD * self._count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _take_device(self) -> None:
        self._local.device = self._devices.popleft()
        self._local.workspace = Workspace(device=self._local.device)
        torch.set_num_threads(1)

    def _align(
        self, works: Mapping[str, Expectation], indices: NDArray[np.int64], tile_size: int
    ) -> ShardResult:
        with torch.inference_mode():
            return expect_shard(
                works[self._local.device],
                indices,
                tile_size=tile_size,
                workspace=self._local.workspace,
            )
