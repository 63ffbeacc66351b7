"""Work on parts of prepared images on a cluster: the passes of a stable classification.

The images are written once to a file in the folder of the run, from which a worker reads those
that a part names. What all parts of a pass need (averages, poses) is a file, too. Tasks name parts,
and their results are small: poses, or the sums of few classes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.moving import moved
from cryopick.alignment.search import Workspace
from cryopick.class2d.stable_images import Pixels, StableImages
from cryopick.class2d.stable_start import PreparedSource
from cryopick.class2d.stable_workers import ImageWork
from cryopick.errors import FormatError
from cryopick.execution.cluster import ClusterSession
from cryopick.execution.reduction import map_in_order
from cryopick.io.atomic import writing
from cryopick.pipeline.class2d_shards import ClusterShards
from cryopick.pipeline.shared_files import SharedFiles, files_lock, opened_work

__all__ = ["ClusterBlocks", "PixelFile", "write_pixels"]

_LARGEST_GROUP = 4  # parts of a task
_FEWEST_GROUPS = 64  # tasks, as long as there are parts for them

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PixelFile:
    """Images (n, size, size) float16 in a file of nothing else."""

    path: Path
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.int64], /) -> Tensor:
        """Read some images; the file is mapped no longer than that, so it takes no memory.

        Raises
        ------
        FormatError
            If the file has another size.
        """
        wanted, size = 2 * int(np.prod(self.shape, dtype=np.int64)), self.path.stat().st_size
        if size != wanted:
            raise FormatError(
                str(self.path),
                must=f"hold {wanted} bytes",
                got=f"{size}",
                remedy="Check the disk, and run the same command again",
            )
        mapped = np.memmap(self.path, np.float16, mode="r", shape=self.shape)
        return torch.from_numpy(np.asarray(mapped)[rows])


def write_pixels(pixels: Tensor, path: Path) -> PixelFile:
    """Write images (n, size, size) float16.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    n, height, width = pixels.shape
    with writing(path) as file:
        file.write(pixels.contiguous().numpy().data)
    return PixelFile(path, (n, height, width))


class ClusterBlocks:
    """Works on parts of images on a cluster; what `cryopick.class2d.stable_workers.Run` asks for.

    Parameters
    ----------
    session
        The cluster.
    folder
        For files that the workers read; removed by `close`.
    device
        Of each worker.
    """

    def __init__(self, session: ClusterSession, folder: Path, device: str = "cpu") -> None:
        self._session, self._files, self._device = session, SharedFiles(folder), device
        self._pixels: dict[int, tuple[Pixels, PixelFile]] = {}  # by id

    def __call__(self, work: ImageWork[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
        """Results in the order of the items, whichever was first.

        Raises
        ------
        ProjectError
            If workers keep dying, or the scheduler is lost.
        OutputError
            If the folder cannot be written.
        """
        if not items:
            return
        self._share(work.engine.images)
        path, groups = self._files.write(work), _groups(items)
        do = partial(_do_group, path=path, device=self._device)
        try:
            for results in map_in_order(
                self._session, do, groups, place=lambda group: group[0] / len(groups)
            ):
                yield from results
        finally:
            self._files.remove(path)

    def shards(self, source: PreparedSource) -> ClusterShards:
        """Make workers for a classification of prepared images."""
        self._share(source.images)
        return ClusterShards(self._session, source, self._files, self._device)

    def close(self) -> None:
        """Remove the files."""
        self._files.close()
        self._pixels.clear()

    def _share(self, images: StableImages) -> None:
        """Write images, if that has not been done; the same pixels are written once."""
        if self._files.is_shared(images):
            return
        known = self._pixels.get(id(images.pixels))
        if known is None:
            pixels = images.pixels
            assert isinstance(pixels, Tensor)
            known = (pixels, write_pixels(pixels, self._files.new_path(".pixels")))
            self._pixels[id(pixels)] = known
        self._files.share(images, replace(images, pixels=known[1]))


def _groups(items: Sequence[Any]) -> list[tuple[int, list[Any]]]:
    """Put neighbours together, and say which group it is."""
    size = min(max(len(items) // _FEWEST_GROUPS, 1), _LARGEST_GROUP)
    starts = range(0, len(items), size)
    return [(n, list(items[start : start + size])) for n, start in enumerate(starts)]


def _do_group(group: tuple[int, list[Any]], path: Path, device: str) -> list[Any]:
    """Work on neighbouring parts, on a worker."""
    with files_lock:  # two threads of a worker would both read the file
        work = opened_work(path) if device == "cpu" else _opened_on(path, device)
        work.prepare()
    workspace = Workspace(device=device)
    with torch.no_grad():
        return [moved(work(item, workspace), "cpu") for item in group[1]]


@functools.lru_cache(maxsize=1)
def _opened_on(path: Path, device: str) -> ImageWork[Any, Any]:
    work: ImageWork[Any, Any] = opened_work(path)
    return moved(work, device)
