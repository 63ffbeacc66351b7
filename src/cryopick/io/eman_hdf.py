"""Image stacks of EMAN2 and SPHIRE: HDF5 files of their own layout.

    /MDF/images          attribute imageid_max: number of images less one
    /MDF/images/N        attributes "EMAN.name", or without the prefix
    /MDF/images/N/image  (y, x), or (z, y, x) with one plane

Compressed images hold whole numbers v of ``stored_renderbits`` bits that stand for
v / (2^bits - 1) (max - min) + min.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError

__all__ = ["read_eman_stack"]

_IMAGES = "MDF/images"


def read_eman_stack(path: Path) -> tuple[NDArray[np.float32], float]:
    """Read all images of a stack.

    Parameters
    ----------
    path
        A ``.hdf`` file of EMAN2 or SPHIRE.

    Returns
    -------
    tuple of numpy.ndarray and float
        (n, y, x) float32, and A/px of the first image: ``apix_x``; 0 where it is missing.

    Raises
    ------
    FormatError
        If the file is missing, is no such stack, or its images differ in size.
    """
    try:
        with h5py.File(path, "r") as file:
            return _read(file, path)
    except FileNotFoundError as error:
        raise _refused(path, "be a readable file", "no such file") from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _refused(path, "be a whole HDF stack of EMAN2", reason) from error


def _read(file: h5py.File, path: Path) -> tuple[NDArray[np.float32], float]:
    if _IMAGES not in file:
        raise _refused(path, "be an HDF stack of EMAN2", "no group /MDF/images")
    groups = file[_IMAGES]
    named = groups.attrs.get("imageid_max")
    count = len(groups) if named is None else int(np.ravel(named)[0]) + 1
    if not count:
        raise _refused(path, "hold images", "none")
    images = [_image(groups[str(number)], path) for number in range(count)]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        sizes = " and ".join(f"{x} x {y} px" for y, x in sorted(shapes)[:2])
        raise _refused(path, "hold images of one size", sizes)
    return np.stack(images), float(_attribute(groups["0"], "apix_x", 0.0))


def _image(group: h5py.Group, path: Path) -> NDArray[np.float32]:
    values = np.asarray(group["image"][()])
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if values.ndim != 2:
        raise _refused(path, "hold images", f"an array of shape {values.shape}")
    bits = int(_attribute(group, "stored_renderbits", 0))
    if values.dtype.kind in "iu" and bits:
        low = float(_attribute(group, "stored_rendermin", 0.0))
        high = float(_attribute(group, "stored_rendermax", 1.0))
        values = values.astype(np.float64) / (2**bits - 1) * (high - low) + low
    image: NDArray[np.float32] = values.astype(np.float32)
    return image


def _attribute(group: h5py.Group, name: str, default: float) -> Any:
    for key in (f"EMAN.{name}", name):
        if key in group.attrs:
            return np.ravel(group.attrs[key])[0]
    return default


def _refused(path: Path, must: str, got: str) -> FormatError:
    return FormatError(str(path), must=must, got=got, remedy="Check the file")
