"""Tell whether all of a micrograph has been written, at the least cost that its format allows."""

from __future__ import annotations

import logging
from pathlib import Path

from cryopick.errors import FormatError
from cryopick.io.micrograph import read_micrograph, read_micrograph_size

__all__ = ["require_whole_micrograph"]

_TIFF = (".tif", ".tiff")


def require_whole_micrograph(path: Path) -> None:
    """Refuse a micrograph that stops before its last pixel.

    Parameters
    ----------
    path
        MRC and TIFF files say in their headers how long they must be; one that is packed, and
        pictures, are read.

    Raises
    ------
    FormatError
        If it is not whole, or no image.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".gz", ".bz2"):
        read_micrograph(path)
    elif suffix in _TIFF:
        _require_whole_tiff(path)
    else:
        read_micrograph_size(path)


def _require_whole_tiff(path: Path) -> None:
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # the error says it all
    try:
        found = path.stat().st_size
        with tifffile.TiffFile(path) as tiff:
            ends = [
                offset + count
                for page in tiff.pages
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
        if not ends:
            raise ValueError("no pixels")
    except Exception as error:  # each way of being broken has its own exception
        raise FormatError(
            str(path),
            must="be a readable image",
            got=f"{type(error).__name__}: {error}",
            remedy="Copy or write the file again",
        ) from error
    if found < max(ends):
        raise FormatError(
            str(path),
            must=f"hold {max(ends):,} bytes",
            got=f"{found:,}",
            remedy="It may still be being copied; it is tried again in the next run",
        )
