"""Write boxes of one size as an MRC stack of volumes, one at a time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

from cryopick.io.atomic import writing

__all__ = ["write_volume_stack"]

_VOLUME_STACK = 401  # the space group that says so


def write_volume_stack(
    path: Path, boxes: Iterable[NDArray[np.float32]], *, number: int, side: int, voxel_size: float
) -> None:
    """Write a stack of cubes; it appears under its name when it is whole.

    Parameters
    ----------
    path
        ``.mrcs`` by custom.
    boxes
        Cubes (side, side, side), float32; `number` of them.
    number
        Of cubes.
    side
        Voxels.
    voxel_size
        A.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    header = np.zeros(1, mrcfile.dtypes.HEADER_DTYPE.newbyteorder("<"))[0]
    header["nx"] = header["ny"] = header["mx"] = header["my"] = header["mz"] = side
    header["nz"] = number * side
    for axis in "xyz":
        header["cella"][axis] = side * voxel_size
    header["cellb"] = (90, 90, 90)
    header["mode"] = 2
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["ispg"] = _VOLUME_STACK
    header["nversion"] = 20140
    header["map"] = b"MAP "
    header["machst"] = [0x44, 0x44, 0, 0]
    sums, limits, count = np.zeros(2), [np.inf, -np.inf], 0
    with writing(path) as handle:
        handle.write(header.tobytes())
        for box in boxes:
            data = np.ascontiguousarray(box, "<f4")
            sums += data.sum(dtype=np.float64), np.square(data, dtype=np.float64).sum()
            limits = [min(limits[0], float(data.min())), max(limits[1], float(data.max()))]
            count += data.size
            handle.write(data.tobytes())
        mean = sums[0] / max(count, 1)
        header["dmin"], header["dmax"] = limits if count else (0.0, -1.0)
        header["dmean"], header["rms"] = mean, max(sums[1] / max(count, 1) - mean**2, 0) ** 0.5
        handle.seek(0)
        handle.write(header.tobytes())
