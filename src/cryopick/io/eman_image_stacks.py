"""Read images of HDF stacks of EMAN2 as those of MRC stacks are read: few at a time, any order."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.eman_hdf import EmanStack, is_eman_database
from cryopick.io.image_stacks import ImageStacks
from cryopick.io.mrc import MrcHeader
from cryopick.io.stack_images import EMAN_SUFFIXES

__all__ = ["EMAN_SUFFIXES", "EmanImageStacks", "is_eman_stack"]

_CHUNK_BYTES = 1 << 22


def is_eman_stack(path: Path) -> bool:
    """Tell by its name whether a stack is one of EMAN2, HDF or BDB."""
    return Path(path).suffix in EMAN_SUFFIXES or is_eman_database(path)


class EmanImageStacks(ImageStacks):
    """Images of HDF stacks of one box size; compressed images are unpacked as they are read."""

    _stacks: dict[int, EmanStack]

    @classmethod
    def open(cls, paths: Sequence[Path], *, max_open: int = 64) -> Self:
        """Count the images of every stack, and look at its first.

        Raises
        ------
        FormatError
            If a stack is missing, broken, or a BDB.
        """
        headers = []
        for path in paths:
            with EmanStack(path) as stack:
                first = stack.read([0])
                headers.append(
                    MrcHeader(
                        shape=(len(stack), *first.shape[1:]),
                        dtype=np.dtype(np.float32),
                        pixel_size=stack.pixel_size,
                        data_offset=0,
                        is_volume=False,
                    )
                )
        return cls(paths, headers, max_open=max_open)

    def __init__(
        self, paths: Sequence[Path], headers: Sequence[MrcHeader], *, max_open: int = 64
    ) -> None:
        super().__init__(paths, headers, max_open=max_open)
        self._stacks = {}
        self._reading = threading.Lock()
        self._most = max_open

    def chunks(
        self, stacks: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Read images in the order of the files, some megabytes at a time; as the base class."""
        y, x = self.headers[0].shape[1:]
        size = max(1, _CHUNK_BYTES // (4 * y * x))
        order = np.lexsort((indices, stacks))
        for stack in np.unique(stacks):
            mine = order[stacks[order] == stack]
            for start in range(0, len(mine), size):
                positions = mine[start : start + size]
                with self._reading:
                    images = self._opened(int(stack)).read(indices[positions])
                if images.shape[1:] != (y, x):
                    raise FormatError(
                        str(self.paths[stack]),
                        must=f"hold images of {x} x {y} px",
                        got=f"{images.shape[2]} x {images.shape[1]} px",
                        remedy="Make the stack again with one box size",
                    )
                yield positions, images

    @property
    def n_open(self) -> int:
        """Files open now."""
        return len(self._stacks)

    def close(self) -> None:
        """Close all files; they are opened again when needed."""
        with self._reading:
            while self._stacks:
                self._stacks.popitem()[1].close()

    def _opened(self, stack: int) -> EmanStack:
        if stack not in self._stacks:
            while len(self._stacks) >= self._most:
                self._stacks.pop(next(iter(self._stacks))).close()
            count = self.headers[stack].shape[0]
            self._stacks[stack] = EmanStack(self.paths[stack], n_images=count)
        return self._stacks[stack]

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.paths, self.headers, self._most)


def _rebuild(paths: Sequence[Path], headers: Sequence[MrcHeader], max_open: int) -> EmanImageStacks:
    return EmanImageStacks(paths, headers, max_open=max_open)
