"""The expectation step of a 2D classification on a cluster.

Nothing large goes through the scheduler: a task names its particles and two files in the folder of
the run, the table of the images and what the iteration does to each of them (references, noise,
poses). A worker reads each once, opens the images by itself, aligns eight shards and adds their
sums; with a GPU, whose shards are larger, one. It gets the same part of the images in each
iteration, while it keeps up with the others, and keeps those that it has room for
(`shard_images`). The sums of tasks are added on workers, in the tree that one machine uses too.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.alignment.search import Workspace
from cryopick.class2d.em_expect import Expectation, expect_shard
from cryopick.class2d.em_images import Geometry, WorkingImages
from cryopick.class2d.em_shards import Shard
from cryopick.class2d.em_state import ImageSource, Poses
from cryopick.class2d.em_sums import FAN_IN, IterationSums, fold_sums
from cryopick.class2d.em_workers import See
from cryopick.execution.cluster import ClusterSession
from cryopick.execution.reduction import map_and_merge
from cryopick.pipeline.shard_images import KeptImages, kept_bytes
from cryopick.pipeline.shared_files import SharedFiles, files_lock, opened_part, opened_work

__all__ = ["ClusterShards"]

Seen = list[tuple[NDArray[np.int64], Poses]]


class ClusterShards:
    """Aligns shards on a cluster; what `cryopick.class2d.em_workers.ShardWorkers` asks for.

    Parameters
    ----------
    session
        The cluster.
    source
        The images; it is pickled, and opens the same files on the workers.
    files
        What the workers read; `close` removes what was written here.
    device
        Of each worker.
    """

    def __init__(
        self, session: ClusterSession, source: ImageSource, files: SharedFiles, device: str = "cpu"
    ) -> None:
        self._session, self._source, self._files = session, source, files
        self._device = device

    @property
    def device(self) -> str:
        """Of each worker."""
        return self._device

    def expect(
        self, works: Mapping[str, Expectation], shards: Iterable[Shard], see: See
    ) -> IterationSums:
        """Align all shards; hand out poses in the order of the shards, and give their sums.

        Raises
        ------
        ProjectError
            If workers keep dying, or the scheduler is lost.
        OutputError
            If the folder cannot be written.
        """
        table = self._files.share(self._source)
        work = works["cpu"]
        iteration = self._files.write(replace(work, images=replace(work.images, keep_bytes=0)))
        groups = list(_groups(shards, FAN_IN if self._device == "cpu" else 1))

        def see_group(group: Seen) -> None:
            for indices, poses in group:
                see(indices, poses)

        try:
            return map_and_merge(
                self._session,
                partial(_expect_group, table=table, iteration=iteration, device=self._device),
                groups,
                merge=fold_sums,
                fan_in=FAN_IN,
                see=see_group,
                place=partial(_place, n_images=len(self._source)),
            )
        finally:
            self._files.remove(iteration)

    def close(self) -> None:
        """Remove the table of the images."""
        self._files.forget(self._source)


def _groups(shards: Iterable[Shard], size: int) -> Iterable[list[Shard]]:
    rest = iter(shards)
    while group := list(itertools.islice(rest, size)):
        yield group


def _place(group: list[Shard], n_images: int) -> float:
    """Tell where a group lies among all images, whatever the size of shards."""
    return int(group[0][0][0]) / n_images


def _expect_group(
    shards: list[Shard], table: Path, iteration: Path, device: str
) -> tuple[Seen, IterationSums]:
    """Align neighbouring shards, on a worker."""
    with files_lock:  # two threads of a worker would both read the files
        work = _opened_iteration(iteration, table, device)
    seen, totals = [], []
    workspace = Workspace(device=device)
    with torch.inference_mode():
        for indices, tile_size in shards:
            found = expect_shard(work, indices, tile_size=tile_size, workspace=workspace)
            seen.append((found.indices, found.poses))
            totals.append(found.totals)
        return seen, fold_sums(totals)


@functools.lru_cache(maxsize=1)
def _opened_iteration(path: Path, table: Path, device: str) -> Expectation:
    work: Expectation = opened_work(path)
    work = work.on(device)
    if type(work.images) is not WorkingImages:  # noise is made, not read
        return work
    return replace(work, images=_kept_images(table, work.images.geometry))


@functools.lru_cache(maxsize=1)
def _kept_images(table: Path, geometry: Geometry) -> KeptImages:
    return KeptImages(opened_part(table), geometry, keep_bytes=kept_bytes())
