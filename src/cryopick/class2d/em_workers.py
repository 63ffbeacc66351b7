"""Threads that align shards: one for each device, or several on the CPU."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.alignment.search import Workspace
from cryopick.class2d.em_expect import Expectation, ShardResult, expect_shard

__all__ = ["SHARDS_AHEAD", "Workers", "one_core"]

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
