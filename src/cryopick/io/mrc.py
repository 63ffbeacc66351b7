"""Read and write MRC images and stacks (MRC2014; modes 0, 1, 2, 6 and 12; gzip and bz2).

mrcfile does the bytes. This module adds what unattended work needs: headers without pixels,
one sentence for a broken file, stacks written image by image and committed whole.
"""

from __future__ import annotations

import bz2
import gzip
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

import mrcfile
import numpy as np
from numpy.typing import DTypeLike, NDArray

from cryopick.errors import FormatError, OutputError, ShapeError
from cryopick.io.atomic import aside_path, commit_file, output_errors
from cryopick.io.devices import require_no_device

__all__ = [
    "MrcHeader",
    "MrcStackWriter",
    "read_mrc",
    "read_mrc_header",
    "read_mrc_images",
    "write_mrc",
]

_HEADER_BYTES = 1024
_PIECE = 64 << 20  # bytes that are unpacked at a time
_DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("i1"),
    1: np.dtype("i2"),
    2: np.dtype("f4"),
    6: np.dtype("u2"),
    12: np.dtype("f2"),
}
_MODES: dict[np.dtype[Any], int] = {np.dtype("f4"): 2, np.dtype("f2"): 12}


@dataclass(frozen=True, kw_only=True)
class MrcHeader:
    """What the first 1024 bytes of an MRC file say."""

    shape: tuple[int, int, int]  # (n, y, x)
    dtype: np.dtype[Any]  # byte order of the file
    pixel_size: float  # A/px along x; 0 where the file does not say
    data_offset: int  # bytes before the first pixel
    is_volume: bool  # True for a volume (space group 1), False for images
    cell_sections: int = 1  # MZ: all sections in a map, 1 in a stack of images


def _opener(path: Path) -> IO[bytes]:
    require_no_device(path)
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.suffix == ".bz2":
        return bz2.open(path, "rb")
    return path.open("rb")


def _parse_header(raw: bytes, path: Path) -> MrcHeader:
    if len(raw) < _HEADER_BYTES:
        raise FormatError(
            str(path),
            must=f"begin with a header of {_HEADER_BYTES} bytes",
            got=f"{len(raw)} bytes",
            remedy="It may still be being copied; it is tried again in the next run",
        )
    is_little = 0 <= int(np.frombuffer(raw, "<i4", 1, 12)[0]) < 1000  # a mode is a small number
    if not any(raw[12:16]):  # mode 0 looks the same in both orders: the machine stamp tells
        is_little = raw[212] != 0x11
    order: Literal["<", ">"] = "<" if is_little else ">"
    words = np.frombuffer(raw, order + "i4", 56)
    columns, rows, sections, mode = (int(w) for w in words[:4])
    if mode not in _DTYPES:
        known = ", ".join(map(str, _DTYPES))
        raise FormatError(
            str(path),
            must=f"be an MRC file of mode {known}",
            got=f"mode {mode}",
            remedy="Check that it is an MRC image, or convert it",
        )
    if min(columns, rows, sections) < 1:
        raise FormatError(
            str(path),
            must="have at least one pixel along each axis",
            got=f"{columns} x {rows} x {sections}",
            remedy="Write the file again",
        )
    sampling = int(words[7])
    cell = float(np.frombuffer(raw, order + "f4", 1, 40)[0])
    return MrcHeader(
        shape=(sections, rows, columns),
        dtype=_DTYPES[mode].newbyteorder(order),
        pixel_size=cell / sampling if sampling > 0 and np.isfinite(cell) else 0.0,
        data_offset=_HEADER_BYTES + max(0, int(words[23])),
        is_volume=int(words[22]) == 1 and sections > 1,
        cell_sections=int(words[9]),
    )


def read_mrc_header(path: Path) -> MrcHeader:
    """Read size, type and pixel size without the pixels, and check the file's length.

    Raises
    ------
    FormatError
        If the file is no MRC file, has an unknown mode or stops before its last pixel.
    """
    path = Path(path)
    try:
        with _opener(path) as handle:
            header = _parse_header(handle.read(_HEADER_BYTES), path)
    except (EOFError, OSError) as error:
        raise _unreadable(path, error) from error
    if path.suffix not in (".gz", ".bz2"):
        _require_length(path, header)
    return header


def _unreadable(path: Path, error: Exception) -> FormatError:
    missing = isinstance(error, FileNotFoundError)
    return FormatError(
        str(path),
        must="be a readable file",
        got="no such file" if missing else _reason(error),
        remedy="Check the path" if missing else "Copy or write the file again",
    )


def _reason(error: Exception) -> str:
    known = error.strerror if isinstance(error, OSError) else None
    return (known or str(error) or type(error).__name__).lower()


def _require_length(path: Path, header: MrcHeader) -> None:
    wanted = math.prod(header.shape) * header.dtype.itemsize
    found = path.stat().st_size - header.data_offset
    if found < wanted:
        raise FormatError(
            str(path),
            must=f"hold {wanted:,} data bytes",
            got=f"{max(found, 0):,}",
            remedy="It may still be being copied; it is tried again in the next run",
        )


def read_mrc(path: Path, *, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Read all pixels of an MRC file.

    Parameters
    ----------
    path
        ``.mrc``, ``.mrcs``, ``.map``, also with ``.gz`` or ``.bz2``.
    dtype
        Convert to this type; the file's own type where it is left out.

    Returns
    -------
    numpy.ndarray
        (y, x) for a file of one section, else (n, y, x), native byte order, owned.

    Raises
    ------
    FormatError
        If the file is broken or truncated.
    """
    path = Path(path)
    header = read_mrc_header(path)
    size = math.prod(header.shape) * header.dtype.itemsize
    try:
        raw = _read_bytes(path, header.data_offset, size)
    except (EOFError, OSError) as error:
        raise _unreadable(path, error) from error
    if len(raw) < size:
        raise FormatError(
            str(path),
            must=f"hold {size:,} data bytes",
            got=f"{len(raw):,}",
            remedy="It may still be being copied; it is tried again in the next run",
        )
    pixels = raw.view(header.dtype).reshape(header.shape)
    if header.shape[0] == 1:
        pixels = pixels[0]
    native = np.dtype(dtype) if dtype is not None else header.dtype.newbyteorder("=")
    return pixels.astype(native, copy=not pixels.flags.writeable)


def _read_bytes(path: Path, offset: int, size: int) -> NDArray[np.uint8]:
    """Read up to `size` bytes; straight into the array where the file is not compressed."""
    if path.suffix not in (".gz", ".bz2"):
        return np.fromfile(path, np.uint8, size, offset=offset)
    pieces: list[bytes] = []
    with _opener(path) as handle:
        handle.seek(offset)
        while size and (piece := handle.read(min(size, _PIECE))):  # a header may claim anything
            pieces.append(piece)
            size -= len(piece)
    return np.frombuffer(b"".join(pieces), np.uint8)


def read_mrc_images(path: Path, indices: NDArray[np.int64]) -> NDArray[Any]:
    """Read some images of an uncompressed stack without reading the rest.

    Parameters
    ----------
    path
        A stack.
    indices
        (n,) int, 0-based, in any order.

    Returns
    -------
    numpy.ndarray
        (n, y, x), native byte order.

    Raises
    ------
    FormatError
        If the file is broken or has fewer images than an index asks for.
    """
    path = Path(path)
    if path.suffix in (".gz", ".bz2"):
        return np.atleast_3d(read_mrc(path))[indices]
    header = read_mrc_header(path)
    indices = np.asarray(indices, np.int64)
    if indices.size and (indices.min() < 0 or indices.max() >= header.shape[0]):
        raise FormatError(
            str(path),
            must=f"hold image {int(indices.max()) + 1}",
            got=f"{header.shape[0]} images",
            remedy="Check that the table belongs to this stack",
        )
    pixels = np.memmap(path, header.dtype, "r", header.data_offset, header.shape)
    return np.asarray(pixels[indices], header.dtype.newbyteorder("="))


def write_mrc(path: Path, pixels: NDArray[Any], *, pixel_size: float) -> None:
    """Write an image, a stack (suffix ``.mrcs``) or a volume, whole or not at all.

    Parameters
    ----------
    path
        Where to; a suffix of ``.mrcs`` makes it a stack of images.
    pixels
        (y, x) or (n, y, x); float32 and float16 are kept, other types become float32.
    pixel_size
        A/px.

    Raises
    ------
    OutputError
        If the file cannot be written.
    ShapeError
        If `pixels` has other axes.
    """
    path = Path(path)
    if pixels.ndim not in (2, 3):
        raise ShapeError(
            "pixels", must="have 2 or 3 axes", got=pixels.ndim, remedy="Pass an image or a stack"
        )
    data = pixels if pixels.dtype in _MODES else pixels.astype(np.float32)
    aside = aside_path(path)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # mrcfile on NaN statistics
                with mrcfile.new(aside, overwrite=True) as mrc:
                    mrc.set_data(np.ascontiguousarray(data))
                    if path.suffix == ".mrcs" and data.ndim == 3:
                        mrc.set_image_stack()
                    mrc.voxel_size = pixel_size
            commit_file(aside, path)
        finally:
            aside.unlink(missing_ok=True)


class MrcStackWriter:
    """Write a stack batch by batch with bounded memory; it appears under its name when complete.

    Parameters
    ----------
    path
        Where the finished stack goes.
    box_size
        Side of an image, px.
    pixel_size
        A/px.
    dtype
        float32 (mode 2) or float16 (mode 12).
    """

    def __init__(
        self, path: Path, *, box_size: int, pixel_size: float, dtype: DTypeLike = np.float32
    ) -> None:
        self._path = Path(path)
        self._aside = aside_path(self._path)
        self._box_size = box_size
        self._pixel_size = pixel_size
        self._dtype = np.dtype(dtype)
        self._count = 0
        self._sum = 0.0
        self._sum_squares = 0.0
        self._shift = np.float32(0)
        self._minimum = np.inf
        self._maximum = -np.inf

    def __enter__(self) -> Self:
        with output_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self._aside.open("wb")
            self._handle.write(bytes(_HEADER_BYTES))
        return self

    def append(self, images: NDArray[Any]) -> None:
        """Add images.

        Parameters
        ----------
        images
            (n, box_size, box_size); n may be zero.

        Raises
        ------
        OutputError
            If the disk is full.
        ShapeError
            If an image has another size.
        """
        if images.ndim != 3 or images.shape[1:] != (self._box_size, self._box_size):
            raise ShapeError(
                "images",
                must=f"have shape (n, {self._box_size}, {self._box_size})",
                got=images.shape,
                remedy="Crop the images first",
            )
        if not len(images):
            return
        data = np.ascontiguousarray(images, self._dtype)
        self._add_statistics(data)
        self._count += len(data)
        with output_errors(self._path):
            self._handle.write(data.data)

    def _add_statistics(self, data: NDArray[Any]) -> None:
        """Sum around the first image's mean, so that float32 is precise enough, and fast."""
        flat = data.reshape(len(data), -1).astype(np.float32, copy=False)
        if not self._count:
            self._shift = np.float32(flat[0].mean(dtype=np.float64))
        self._minimum = min(self._minimum, float(flat.min()))
        self._maximum = max(self._maximum, float(flat.max()))
        step = max(1, (1 << 16) // flat.shape[1])
        for start in range(0, len(flat), step):  # a few at a time stay in the cache
            level = (flat[start : start + step] - self._shift).ravel()
            self._sum += float(level.sum())
            self._sum_squares += float(np.dot(level, level))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with output_errors(self._path):
                if kind is None:
                    self._finish()
                else:
                    self._handle.close()
        finally:
            self._handle.close()
            self._aside.unlink(missing_ok=True)

    def _finish(self) -> None:
        if not self._count:
            raise OutputError(
                str(self._path), must="hold an image", got="none", remedy="Skip empty stacks"
            )
        self._handle.seek(0)
        self._handle.write(self._header())
        self._handle.close()
        commit_file(self._aside, self._path)

    def _header(self) -> bytes:
        size = self._box_size
        offset = self._sum / (self._count * size * size)
        mean = float(self._shift) + offset
        variance = self._sum_squares / (self._count * size * size) - offset**2
        header = np.zeros(1, mrcfile.dtypes.HEADER_DTYPE)[0]
        header["nx"], header["ny"], header["nz"] = size, size, self._count
        header["mode"] = _MODES[self._dtype]
        header["mx"], header["my"], header["mz"] = size, size, 1
        cell = size * self._pixel_size
        header["cella"] = (cell, cell, self._pixel_size)
        header["cellb"] = (90, 90, 90)
        header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
        header["dmin"], header["dmax"], header["dmean"] = self._minimum, self._maximum, mean
        header["rms"] = max(variance, 0.0) ** 0.5
        header["nversion"] = 20140
        header["map"] = b"MAP "
        header["machst"] = [0x44, 0x44, 0, 0]
        return bytes(header.tobytes())
