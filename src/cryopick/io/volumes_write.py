"""Write a volume box by box; it appears under its name when it is whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import mrcfile
import numpy as np
from numpy.typing import DTypeLike, NDArray

from cryopick.errors import ShapeError
from cryopick.io.atomic import aside_path, commit_file, output_errors, sync_folder

__all__ = ["VolumeWriter"]

_MOST_READ = 8  # times what is written, to write rows together
_COPIED = 1 << 18  # voxels
_HEADER_BYTES = 1024
_MODES = {np.dtype("f4"): 2, np.dtype("f2"): 12, np.dtype("u2"): 6, np.dtype("i2"): 1}
_CHUNK = 64  # voxels along each side of a Zarr chunk


class VolumeWriter:
    """Write a volume in boxes that together cover it once.

    Use as a context manager. The room on the disk is taken at the beginning, so a disk that is
    full refuses before anything is computed.

    Parameters
    ----------
    path
        ``.mrc``, or ``.zarr`` for OME-Zarr.
    shape
        (z, y, x).
    dtype
        float32, float16, int16, uint16, or uint8. MRC has no unsigned bytes that all programs
        read alike, so uint8 becomes uint16 there.
    voxel_size
        A.

    Raises
    ------
    OutputError
        If it cannot be written.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int, int], dtype: DTypeLike, voxel_size: float
    ) -> None:
        self.path = Path(path)
        self.shape = shape
        self._dtype = np.dtype(dtype)
        self._voxel_size = voxel_size
        is_zarr = self.path.suffix == ".zarr"
        self._file = (_ZarrFile if is_zarr else _MrcFile)(
            aside_path(self.path), self.path, shape, self._dtype, voxel_size
        )
        self._count = 0

    def __enter__(self) -> Self:
        with output_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._file.open()
            except BaseException:
                self._file.discard()
                raise
        return self

    def write(self, lower: tuple[int, int, int], voxels: NDArray[Any]) -> None:
        """Write a box.

        Parameters
        ----------
        lower
            (z, y, x) of its first voxel.
        voxels
            (z, y, x), of the volume's type.

        Raises
        ------
        OutputError
            If the disk is full.
        ShapeError
            If the box is not within the volume.
        """
        limits = zip(lower, voxels.shape, self.shape, strict=True)
        if not all(low >= 0 and low + size <= length for low, size, length in limits):
            raise ShapeError(
                f"the box of {voxels.shape} at {lower}",
                must=f"lie within {self.path.name}",
                got=f"a volume of {self.shape}",
                remedy="Cut the box at the faces of the volume",
            )
        with output_errors(self.path):
            self._file.write(lower, np.ascontiguousarray(voxels, self._dtype))
        self._count += voxels.size

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with output_errors(self.path):
                if kind is None:
                    assert self._count == int(np.prod(self.shape)), "a volume with holes"
                    self._file.commit()
        finally:
            self._file.discard()


class _MrcFile:
    """An MRC volume at its place on the disk, with zeros until a box is written."""

    def __init__(
        self,
        aside: Path,
        path: Path,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        voxel_size: float,
    ) -> None:
        self._aside, self._path, self._shape, self._voxel_size = aside, path, shape, voxel_size
        self._dtype = dtype if dtype in _MODES else np.dtype("u2" if dtype.kind == "u" else "f4")
        self._handle = -1
        self._sums = np.zeros(2)
        self._limits = (np.inf, -np.inf)

    def open(self) -> None:
        self._handle = os.open(self._aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        size = _HEADER_BYTES + int(np.prod(self._shape)) * self._dtype.itemsize
        os.posix_fallocate(self._handle, 0, size)

    def write(self, lower: tuple[int, int, int], voxels: NDArray[Any]) -> None:
        data = voxels.astype(self._dtype, copy=False)
        _, height, width = self._shape
        self._add_statistics(data)
        if data.shape[1:] == (height, width):
            self._write_all(data, lower[0] * height * width)
            return
        for z, plane in enumerate(data):
            start = ((lower[0] + z) * height + lower[1]) * width
            if plane.shape[1] == width:
                self._write_all(plane, start)
            elif plane.shape[1] * _MOST_READ >= width:  # one call for many short rows
                rows = self._read(start, len(plane))
                rows[:, lower[2] : lower[2] + plane.shape[1]] = plane
                self._write_all(rows, start)
            else:
                for y, row in enumerate(plane):
                    self._write_all(row, start + y * width + lower[2])

    def _read(self, start: int, rows: int) -> NDArray[Any]:
        """Read whole rows that are there already, from the voxel `start` on."""
        count = rows * self._shape[2] * self._dtype.itemsize
        there = os.pread(self._handle, count, _HEADER_BYTES + start * self._dtype.itemsize)
        return np.frombuffer(there, self._dtype).reshape(rows, -1).copy()

    def _write_all(self, run: NDArray[Any], start: int) -> None:
        """Write voxels that lie together in the file, from the voxel `start` on."""
        left = memoryview(run.reshape(-1).view(np.uint8).data)
        offset = _HEADER_BYTES + start * self._dtype.itemsize
        while left:
            written = os.pwrite(self._handle, left, offset)
            left, offset = left[written:], offset + written

    def _add_statistics(self, data: NDArray[Any]) -> None:
        at_once = max(1, _COPIED // max(1, data[:1].size))  # planes, for their copy in float64
        for first in range(0, len(data), at_once):
            level = data[first : first + at_once].astype(np.float64)
            self._sums += level.sum(), np.square(level).sum()
        if data.size:
            low, high = self._limits
            self._limits = (min(low, float(data.min())), max(high, float(data.max())))

    def commit(self) -> None:
        os.pwrite(self._handle, self._header(), 0)
        os.close(self._handle)
        self._handle = -1
        commit_file(self._aside, self._path)

    def _header(self) -> bytes:
        depth, height, width = self._shape
        mean, square = self._sums / (depth * height * width)
        header = np.zeros(1, mrcfile.dtypes.HEADER_DTYPE.newbyteorder("<"))[0]
        for name, length in zip("xyz", (width, height, depth), strict=True):
            header["n" + name] = header["m" + name] = length
            header["cella"][name] = length * self._voxel_size
        header["cellb"] = (90, 90, 90)
        header["mode"] = _MODES[self._dtype]
        header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
        header["ispg"] = 1
        header["dmin"], header["dmax"] = self._limits
        header["dmean"], header["rms"] = mean, max(square - mean**2, 0.0) ** 0.5
        header["nversion"] = 20140
        header["map"] = b"MAP "
        header["machst"] = [0x44, 0x44, 0, 0]
        return bytes(header.tobytes())

    def discard(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self._aside.unlink(missing_ok=True)


class _ZarrFile:
    """An OME-Zarr volume of one level, compressed."""

    def __init__(
        self,
        aside: Path,
        path: Path,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        voxel_size: float,
    ) -> None:
        self._aside, self._path, self._shape = aside, path, shape
        self._dtype, self._voxel_size = dtype, voxel_size
        self._array: Any = None

    def open(self) -> None:
        import zarr
        from numcodecs import Blosc

        from cryopick.io.volumes_zarr import ome_attributes

        shutil.rmtree(self._aside, ignore_errors=True)
        group = zarr.open_group(self._aside, mode="w", zarr_format=2)
        group.attrs.update(ome_attributes(self._voxel_size, name=self._path.stem))
        self._array = group.create_array(
            "0",
            shape=self._shape,
            dtype=self._dtype,
            chunks=tuple(min(_CHUNK, n) for n in self._shape),
            compressors=Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE),
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )

    def write(self, lower: tuple[int, int, int], voxels: NDArray[Any]) -> None:
        box = tuple(slice(a, a + n) for a, n in zip(lower, voxels.shape, strict=True))
        self._array[box] = voxels

    def commit(self) -> None:
        old = aside_path(self._path.with_name(self._path.name + ".old"))
        if self._path.exists():
            self._path.rename(old)
        self._aside.rename(self._path)
        sync_folder(self._path.parent)
        shutil.rmtree(old, ignore_errors=True)

    def discard(self) -> None:
        shutil.rmtree(self._aside, ignore_errors=True)
