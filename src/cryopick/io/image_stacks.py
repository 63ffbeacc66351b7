"""Read images of many stacks by plain reads: few open files, bounded memory, any order.

Reads take the place of memory maps. They are as fast, let other threads run meanwhile, count
nothing as memory of the process, and a file that gets shorter is an error, not a crash.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.mrc import MrcHeader, read_mrc_header

__all__ = ["ImageStacks", "is_packed", "runs"]

_CHUNK_BYTES = 1 << 22  # read at once: what is done to it next finds it in the cache
_READERS = 8  # headers read side by side, for disks that answer slowly


def is_packed(path: Path) -> bool:
    """Whether a stack is compressed, so that no image can be read without all before it."""
    return path.suffix in (".gz", ".bz2")


class ImageStacks:
    """Images of stacks of one box size; a file is opened when needed and a few stay open.

    Parameters
    ----------
    paths, headers
        The files, not compressed, and where their pixels lie. All images have one (y, x).
    max_open
        Most files open at a time.
    """

    def __init__(
        self, paths: Sequence[Path], headers: Sequence[MrcHeader], *, max_open: int = 64
    ) -> None:
        self.paths = tuple(paths)
        self.headers = tuple(headers)
        self._max_open = max_open
        self._kinds = list(dict.fromkeys(h.dtype for h in self.headers))
        kinds = [self._kinds.index(h.dtype) for h in self.headers]
        self._kind_of = np.array(kinds, np.int64)
        self._lock = threading.Lock()
        self._open: OrderedDict[int, FileIO] = OrderedDict()
        weakref.finalize(self, _close_all, self._open)

    @classmethod
    def open(cls, paths: Sequence[Path], *, max_open: int = 64) -> Self:
        """Read the header of every stack.

        Raises
        ------
        FormatError
            If stacks are missing or broken; it names the first and counts the others.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            found = list(pool.map(_header_or_error, paths))
        errors = [e for e in found if isinstance(e, FormatError)]
        if errors:
            first = errors[0]
            others = f"; {len(errors) - 1} more of {len(paths)} stacks cannot be read either"
            raise FormatError(
                first.what,
                must=first.must,
                got=first.got + (others if len(errors) > 1 else ""),
                remedy=first.remedy,
            )
        return cls(paths, [h for h in found if isinstance(h, MrcHeader)], max_open=max_open)

    def chunks(
        self, stacks: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Read images in the order of the files, some megabytes at a time.

        Parameters
        ----------
        stacks, indices
            (n,) int: the stack of each image, as counted in `paths`, and its place there.

        Yields
        ------
        positions
            (m,) int: which of the n images these are.
        images
            (m, y, x), of the file's type in native byte order. The caller may change them, and
            the next ones take their place.

        Raises
        ------
        FormatError
            If a stack has become shorter or cannot be read any more.
        """
        order = np.lexsort((indices, stacks))
        kinds = self._kind_of[stacks[order]]
        for first, last in runs(kinds, step=0):
            dtype = self._kinds[int(kinds[first])]
            image_bytes = dtype.itemsize * math.prod(self.headers[0].shape[1:])
            size = min(max(1, _CHUNK_BYTES // image_bytes), last - first)
            buffer = np.empty((size, *self.headers[0].shape[1:]), dtype)
            for start in range(first, last, size):
                positions = order[start : min(start + size, last)]
                images = buffer[: len(positions)]
                yield positions, self._read(stacks[positions], indices[positions], images)

    def _read(
        self, stacks: NDArray[np.int64], indices: NDArray[np.int64], images: NDArray[Any]
    ) -> NDArray[Any]:
        """Fill `images`, of the file's type; neighbours in a file in one go."""
        with self._lock:
            for first, last in runs(indices, step=1, same=stacks):
                self._read_run(int(stacks[first]), int(indices[first]), images[first:last])
        if images.dtype.isnative:
            return images
        return images.byteswap(inplace=True).view(images.dtype.newbyteorder("="))

    def _read_run(self, stack: int, first: int, images: NDArray[Any]) -> None:
        path, header = self.paths[stack], self.headers[stack]
        image_bytes = header.dtype.itemsize * math.prod(header.shape[1:])
        left = images.reshape(-1).view(np.uint8).data
        try:
            handle = self._handle(stack)
            handle.seek(header.data_offset + first * image_bytes)
            while left:
                count = handle.readinto(left)
                if not count:
                    break
                left = left[count:]
        except OSError as error:
            raise FormatError(
                str(path),
                must="stay readable while it is in use",
                got=(error.strerror or str(error)).lower(),
                remedy="Check the disk and start again",
            ) from error
        if left:
            raise FormatError(
                str(path),
                must=f"hold image {first + len(images)}, as it did at the start",
                got=f"{image_bytes * len(images) - len(left):,} bytes of the last images",
                remedy="Do not change stacks while they are in use; start again",
            )

    def _handle(self, stack: int) -> FileIO:
        """Open a stack, and close the one not used for longest if too many are open."""
        if stack in self._open:
            self._open.move_to_end(stack)
            return self._open[stack]
        while len(self._open) >= self._max_open:
            self._open.popitem(last=False)[1].close()
        self._open[stack] = FileIO(self.paths[stack])
        return self._open[stack]

    @property
    def n_open(self) -> int:
        """Files open now."""
        return len(self._open)

    def close(self) -> None:
        """Close all files; they are opened again when needed."""
        with self._lock:
            _close_all(self._open)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.paths, self.headers, self._max_open)


def _rebuild(
    paths: Sequence[Path], headers: Sequence[MrcHeader], max_open: int
) -> ImageStacks:  # in another process, where files and locks are others
    return ImageStacks(paths, headers, max_open=max_open)


def _close_all(handles: OrderedDict[int, FileIO]) -> None:
    while handles:
        with contextlib.suppress(OSError):
            handles.popitem()[1].close()


def _header_or_error(path: Path) -> MrcHeader | FormatError:
    try:
        return read_mrc_header(path)
    except FormatError as error:
        return error


def runs(
    values: NDArray[np.int64], *, step: int, same: NDArray[np.int64] | None = None
) -> list[tuple[int, int]]:
    """Cut a list into runs within which each value is the one before plus `step`.

    Parameters
    ----------
    values
        (n,) int.
    step
        From one value to the next.
    same
        (n,) int that must not change within a run.

    Returns
    -------
    list of (int, int)
        Start and end of each run.

    Examples
    --------
    >>> runs(np.array([3, 4, 5, 9, 10]), step=1)
    [(0, 3), (3, 5)]
    """
    if not len(values):
        return []
    is_cut = np.diff(values) != step
    if same is not None:
        is_cut |= np.diff(same) != 0
    edges = [0, *(np.flatnonzero(is_cut) + 1).tolist(), len(values)]
    return list(itertools.pairwise(edges))
