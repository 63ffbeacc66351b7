"""Open a micrograph whatever its format: MRC, TIFF, or an 8-bit PNG or JPEG."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.devices import require_no_device
from cryopick.io.mrc import read_mrc, read_mrc_header

__all__ = ["read_micrograph", "read_micrograph_size"]

_MRC = {".mrc", ".mrcs", ".map", ".rec", ".ccp4"}
_TIFF = {".tif", ".tiff"}
_PICTURE = {".png", ".jpg", ".jpeg"}


def read_micrograph(path: Path) -> NDArray[np.float32]:
    """Read one two-dimensional field.

    Parameters
    ----------
    path
        ``.mrc`` (also ``.gz``, ``.bz2``), ``.tif``, ``.png`` or ``.jpg``.

    Returns
    -------
    numpy.ndarray
        (y, x) float32; row 0 is the first row of the file, in every format.

    Raises
    ------
    FormatError
        If the file cannot be read, is truncated or is not one grey image.
    """
    path = Path(path)
    kind = _kind(path)
    pixels = read_mrc(path) if kind in _MRC else _read_other(path, kind)
    if pixels.ndim != 2:
        raise FormatError(
            str(path),
            must="hold one grey image",
            got=f"an array of shape {pixels.shape}",
            remedy="Average or split the movie first",
        )
    return np.ascontiguousarray(pixels, np.float32)


def read_micrograph_size(path: Path) -> tuple[int, int]:
    """Height and width of a micrograph in px, without its pixels where the format allows.

    Raises
    ------
    FormatError
        If the file cannot be read.
    """
    path = Path(path)
    if _kind(path) in _MRC:
        return read_mrc_header(path).shape[1:]
    height, width = read_micrograph(path).shape
    return int(height), int(width)


def _kind(path: Path) -> str:
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".bz2"):
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    if kind not in _MRC | _TIFF | _PICTURE:
        raise FormatError(
            str(path),
            must="be an MRC, TIFF, PNG or JPEG file",
            got=f"suffix {kind or 'none'}",
            remedy="Convert it to MRC",
        )
    return kind


def _read_other(path: Path, kind: str) -> NDArray[Any]:
    require_no_device(path)
    try:
        if kind in _TIFF:
            import tifffile

            logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # the error says it all
            return _require_pixels(np.asarray(tifffile.imread(path)))
        from PIL import Image

        with Image.open(path) as picture:
            grey = picture if picture.mode in ("L", "I;16", "I", "F") else picture.convert("L")
            return np.asarray(grey)
    except Exception as error:  # each codec has its own exceptions for a broken file
        missing = isinstance(error, FileNotFoundError)
        raise FormatError(
            str(path),
            must="be a readable image",
            got="no such file" if missing else f"{type(error).__name__}: {error}",
            remedy="Check the path" if missing else "Copy or write the file again",
        ) from error


def _require_pixels(pixels: NDArray[Any]) -> NDArray[Any]:
    if not pixels.size:
        raise ValueError("no pixels")
    return pixels
