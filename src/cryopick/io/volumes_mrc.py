"""Boxes of a volume in an MRC file, through a memory map.

The axes are those that MAPC, MAPR and MAPS name (MRC2014); bytes (mode 0) are signed unless
IMOD's stamp in the header says otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.mrc import read_mrc_header

__all__ = ["MrcSource"]

_HEADER_BYTES = 1024
_IMOD_STAMP = 1146047817  # "IMOD", in the word at byte 152
_IMOD_SIGNED = 1  # bit of the word at byte 156


class MrcSource:
    """The voxels of an uncompressed MRC file.

    Parameters
    ----------
    path
        Of the file.

    Raises
    ------
    FormatError
        If it is no MRC file, is cut off or names its axes wrongly.
    """

    def __init__(self, path: Path) -> None:
        header = read_mrc_header(path)
        with path.open("rb") as handle:
            raw = handle.read(_HEADER_BYTES)
        order = header.dtype.byteorder.replace("|", "<" if raw[212] != 0x11 else ">")
        order = "<" if order == "=" else order
        fields = np.frombuffer(raw, mrcfile.dtypes.HEADER_DTYPE.newbyteorder(order))[0]
        self._path = path
        self._dtype = header.dtype
        self._offset = header.data_offset
        self._stored = header.shape
        self._order = _axes(path, tuple(int(fields[name]) for name in ("maps", "mapr", "mapc")))
        depth, height, width = (header.shape[axis] for axis in self._order)
        self.shape = (depth, height, width)
        sides = [_side(fields["cella"][axis], fields["m" + axis]) for axis in "zyx"]
        self.voxel_sides: tuple[float, float, float] | None = (sides[0], sides[1], sides[2])
        stamp, flags = np.frombuffer(raw, order + "i4", 2, 152)
        if header.dtype.itemsize == 1 and stamp == _IMOD_STAMP and not flags & _IMOD_SIGNED:
            self._dtype = np.dtype("u1")

    def read(self, lower: tuple[int, int, int], upper: tuple[int, int, int]) -> NDArray[Any]:
        """Map a box; the map is made anew each time, so that no page of it stays in memory."""
        voxels = np.memmap(self._path, self._dtype, "r", self._offset, self._stored)
        box = tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))
        mapped: NDArray[Any] = voxels.transpose(self._order)[box]
        return mapped


def _side(cell: float, sampling: int) -> float:
    return float(cell) / int(sampling) if sampling > 0 else 0.0


def _axes(path: Path, axes: tuple[int, ...]) -> tuple[int, int, int]:
    """Where z, y and x are among the axes of the array (sections, rows, columns)."""
    axes = (3, 2, 1) if not any(axes) else axes  # old programs leave them out
    if sorted(axes) != [1, 2, 3]:
        raise FormatError(
            str(path),
            must="name each axis once in MAPC, MAPR and MAPS",
            got=", ".join(map(str, reversed(axes))),
            remedy="Write the file again",
        )
    return axes.index(3), axes.index(2), axes.index(1)
