"""Boxes of a volume in the pages of a TIFF file, one page for each section."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.devices import require_no_device

__all__ = ["TiffSource"]


class TiffSource:
    """The voxels of a TIFF stack; TIFF has no size of a voxel along z, so it says none.

    Parameters
    ----------
    path
        Of the file.

    Raises
    ------
    FormatError
        If it cannot be read or its pages are not grey and all alike.
    """

    def __init__(self, path: Path) -> None:
        import tifffile

        require_no_device(path)
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # the error says it all
        try:
            with tifffile.TiffFile(path) as file:
                series = file.series[0]
                shape = tuple(int(n) for n in series.shape if n != 1)
                self._by_page = len(series.pages) == (shape[0] if shape else 0)
        except Exception as error:  # each codec has its own exceptions for a broken file
            raise FormatError(
                str(path),
                must="be a readable TIFF stack",
                got=f"{type(error).__name__}: {error}",
                remedy="Copy or write the file again",
            ) from error
        if len(shape) != 3:
            raise FormatError(
                str(path),
                must="be a stack of grey pages of one size",
                got=f"an array of shape {series.shape}",
                remedy="Convert it to MRC",
            )
        self._path = path
        self.shape = (shape[0], shape[1], shape[2])
        self.voxel_sides: tuple[float, float, float] | None = None

    def read(self, lower: tuple[int, int, int], upper: tuple[int, int, int]) -> NDArray[Any]:
        """Read a box; only its pages are unpacked, where sections are pages."""
        import tifffile

        rows, columns = (slice(a, b) for a, b in zip(lower[1:], upper[1:], strict=True))
        sections = range(lower[0], upper[0])
        box = (len(sections), upper[1] - lower[1], upper[2] - lower[2])
        with tifffile.TiffFile(self._path) as file:
            series = file.series[0]
            if not self._by_page:
                whole = series.asarray().reshape(self.shape)
                return np.array(whole[lower[0] : upper[0], rows, columns])
            found = np.empty(box, np.float32)
            for number, section in enumerate(sections):
                page = np.asarray(series.asarray(key=section)).reshape(self.shape[1:])
                found[number] = page[rows, columns]
        return found
