"""Threads that align shards: one for each device, or several on the CPU."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.alignment.search import Workspace
from cryopick.class2d.em_expect import Expectation, ShardResult, expect_shard

__all__ = ["Workers"]

_AHEAD = 2  # shards waiting for each worker


class Workers:
    """Aligns shards side by side and hands their results out in order."""

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = deque(devices)
        self._count = len(devices)
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(self._count, initializer=self._take_device)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)

    def map(
        self, works: Mapping[str, Expectation], shards: Iterable[tuple[NDArray[np.int64], int]]
    ) -> Iterator[ShardResult]:
        """Align shards, given with the size of their tiles; results come in the order given.

        Within a thread, products run on one core: their results do not depend on how many cores
        there are.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        waiting: deque[Future[ShardResult]] = deque()
        try:
            for indices, tile_size in shards:
                waiting.append(self._pool.submit(self._align, works, indices, tile_size))
                if len(waiting) > _AHEAD * self._count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(before)

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
