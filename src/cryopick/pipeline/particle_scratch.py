"""Copy the images of a table to a fast disk: one file, in the order of the table."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import math
import shutil
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, OutputError
from cryopick.io.atomic import aside_path, make_folder, remove_leftovers, writing
from cryopick.io.image_stacks import ImageStacks, is_packed, runs
from cryopick.io.mrc import MrcHeader
from cryopick.pipeline.job import ProgressCallback, identity_of

__all__ = ["copy_to_scratch"]

_FOLDER = "cryopick_particles"
_VERSION = 1  # of what the file holds; a change makes old copies useless


def copy_to_scratch(
    folder: Path,
    stacks: ImageStacks,
    stack_of: NDArray[np.int64],
    index_of: NDArray[np.int64],
    *,
    progress: ProgressCallback | None = None,
) -> ImageStacks:
    """Copy images into one file, which appears when it is whole; one that is there is used.

    The file is a ``.npy`` of the stacks' own type of numbers (float32 if they differ), named
    after paths, sizes and times of the stacks and the order of the images.

    Parameters
    ----------
    folder
        On a fast disk; the file goes to a folder of its own below it.
    stacks
        Where the images are; compressed ones are unpacked one at a time.
    stack_of, index_of
        (n,) int: the stack of each image, and its place there.
    progress
        Called with the number of images copied and in all.

    Returns
    -------
    ImageStacks
        One stack, of the n images in order.

    Raises
    ------
    FormatError
        If a stack is broken.
    OutputError
        If the disk has no room, or cannot be written.
    """
    count = len(stack_of)
    dtypes = {h.dtype.newbyteorder("=") for h in stacks.headers}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
    side = stacks.headers[0].shape[1]
    make_folder(folder, option="--scratch")
    home = make_folder(Path(folder) / _FOLDER, option="--scratch")
    path = home / f"particles_{_identity(stacks, stack_of, index_of, dtype)}.npy"
    if not path.exists():
        remove_leftovers(home)
        _require_room(home, stacks, count * side * side * dtype.itemsize)
        try:
            _copy(path, stacks, stack_of, index_of, dtype, progress)
        except OutputError as error:
            remedy = "Free some space, or choose another --scratch"
            raise OutputError(error.what, must=error.must, got=error.got, remedy=remedy) from error
    header = MrcHeader(
        shape=(count, side, side),
        dtype=dtype,
        pixel_size=stacks.headers[0].pixel_size,
        data_offset=path.stat().st_size - count * side * side * dtype.itemsize,
        is_volume=False,
    )
    return ImageStacks([path], [header])


def _identity(
    stacks: ImageStacks,
    stack_of: NDArray[np.int64],
    index_of: NDArray[np.int64],
    dtype: np.dtype[Any],
) -> str:
    """Name what the copy is made from."""
    text = hashlib.sha256(f"{_VERSION} {dtype.str} {stacks.headers[0].shape[1:]}\n".encode())
    for path in stacks.paths:
        text.update(f"{path.absolute()}\n{identity_of(path)}\n".encode())
    text.update(np.ascontiguousarray(stack_of, "<i8").data)
    text.update(np.ascontiguousarray(index_of, "<i8").data)
    return text.hexdigest()[:20]


def _require_room(home: Path, stacks: ImageStacks, size: int) -> None:
    unpacked = [
        math.prod(header.shape) * header.dtype.itemsize
        for path, header in zip(stacks.paths, stacks.headers, strict=True)
        if is_packed(path)
    ]
    wanted, free = size + max(unpacked, default=0), shutil.disk_usage(home).free
    if wanted > free:
        raise OutputError(
            str(home),
            must=f"have {wanted / 1e9:.1f} GB free for the copy of the images",
            got=f"{free / 1e9:.1f} GB",
            remedy="Free some space, or choose another --scratch",
        )


def _copy(
    path: Path,
    stacks: ImageStacks,
    stack_of: NDArray[np.int64],
    index_of: NDArray[np.int64],
    dtype: np.dtype[Any],
    progress: ProgressCallback | None,
) -> None:
    """Go through the stacks in order and put each image in its place."""
    side, done = stacks.headers[0].shape[1], 0
    kind = np.lib.format.dtype_to_descr(dtype)
    with writing(path) as handle:
        np.lib.format.write_array_header_1_0(
            handle, {"descr": kind, "fortran_order": False, "shape": (len(stack_of), side, side)}
        )
        start = handle.tell()
        with contextlib.closing(_all_chunks(path, stacks, stack_of, index_of)) as chunks:
            for positions, images in chunks:
                _put(handle, start, positions, images.astype(dtype, copy=False))
                done += len(positions)
                if progress is not None:
                    progress(done, len(stack_of))


def _put(handle: IO[Any], start: int, positions: NDArray[np.int64], images: NDArray[Any]) -> None:
    for first, last in runs(positions, step=1):
        handle.seek(start + int(positions[first]) * images[0].nbytes)
        handle.write(images[first:last].data)


def _all_chunks(
    path: Path, stacks: ImageStacks, stack_of: NDArray[np.int64], index_of: NDArray[np.int64]
) -> Generator[tuple[NDArray[np.int64], NDArray[Any]], None, None]:
    """Read plain stacks as they are, then compressed ones from a plain copy of each in turn."""
    packed = np.array([is_packed(p) for p in stacks.paths], bool)
    plain = np.flatnonzero(~packed[stack_of])
    for positions, images in stacks.chunks(stack_of[plain], index_of[plain]):
        yield plain[positions], images
    for stack in np.flatnonzero(packed):
        rows = np.flatnonzero(stack_of == stack)
        unpacked = _unpack(path, stacks.paths[stack], stacks.headers[stack])
        try:
            for positions, images in unpacked.chunks(np.zeros_like(rows), index_of[rows]):
                yield rows[positions], images
        finally:
            unpacked.close()
            unpacked.paths[0].unlink()


def _unpack(beside: Path, packed: Path, header: MrcHeader) -> ImageStacks:
    """Write a compressed stack plainly beside the copy."""
    target = aside_path(beside.with_suffix(".stack"))
    try:
        opener = gzip.open if packed.suffix == ".gz" else bz2.open
        with opener(packed, "rb") as source, target.open("wb") as handle:
            shutil.copyfileobj(source, handle, 1 << 22)
    except (EOFError, OSError, zlib.error) as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise FormatError(
            str(packed),
            must="be a whole compressed stack",
            got=str(error).lower(),
            remedy="Copy the file again",
        ) from error
    wanted = header.data_offset + math.prod(header.shape) * header.dtype.itemsize
    if target.stat().st_size < wanted:
        target.unlink()
        raise FormatError(
            str(packed),
            must=f"hold {wanted:,} bytes when unpacked",
            got="fewer",
            remedy="It may still be being copied; start again when it is whole",
        )
    return ImageStacks([target], [header])
