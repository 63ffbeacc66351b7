"""Read some images of a stack, whatever its format: MRC, or HDF of EMAN2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.io.mrc import read_mrc_images

__all__ = ["EMAN_SUFFIXES", "read_stack_images"]

EMAN_SUFFIXES = (".hdf", ".h5")


def read_stack_images(path: Path, indices: NDArray[np.int64]) -> NDArray[Any]:
    """Read some images of a stack without reading the rest.

    Parameters
    ----------
    path
        An MRC stack, or an HDF stack of EMAN2 and SPHIRE.
    indices
        (n,) int, from 0, in any order.

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
    if path.suffix not in EMAN_SUFFIXES:
        return read_mrc_images(path, indices)
    from cryopick.io.eman_hdf import EmanStack  # its library is not needed for MRC

    with EmanStack(path) as stack:
        return stack.read(np.asarray(indices, np.int64).tolist())
