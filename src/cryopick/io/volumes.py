"""Open a volume of any size and read boxes of it: MRC, OME-Zarr or a stack of TIFF pages.

Nothing is held in memory but the box that is read. Volumes are (z, y, x) whatever the order of
axes in the file, and their voxels are cubes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, ParameterError, ShapeError
from cryopick.io.volumes_mrc import MrcSource
from cryopick.io.volumes_tiff import TiffSource
from cryopick.io.volumes_write import VolumeWriter

__all__ = ["Volume", "VolumeWriter", "open_volume"]

_MRC = (".mrc", ".rec", ".map", ".ccp4", ".st", ".mrcs")
_TIFF = (".tif", ".tiff")
_CUBIC = 2e-3  # relative difference of the sides of a voxel that headers round off


class _Source(Protocol):
    """What a format knows: the array and the sides of a voxel."""

    shape: tuple[int, int, int]  # (z, y, x)
    voxel_sides: tuple[float, float, float] | None  # A, (z, y, x); None where it does not say

    def read(self, lower: tuple[int, int, int], upper: tuple[int, int, int]) -> NDArray[Any]: ...


class Volume:
    """A volume in a file, read box by box.

    Parameters
    ----------
    path
        Of the file or folder.
    source
        That reads it.
    voxel_size
        Side of a voxel in A.
    """

    def __init__(self, path: Path, source: _Source, *, voxel_size: float) -> None:
        self.path = path
        self.shape: tuple[int, int, int] = source.shape  # (z, y, x)
        self.voxel_size = voxel_size  # A
        self._source = source

    def read(self, lower: tuple[int, int, int], upper: tuple[int, int, int]) -> NDArray[np.float32]:
        """Read the box of voxels from `lower` up to, but not including, `upper`.

        Parameters
        ----------
        lower, upper
            (z, y, x); 0 <= lower <= upper <= shape.

        Returns
        -------
        numpy.ndarray
            float32, (z, y, x), C-contiguous and owned.

        Raises
        ------
        ShapeError
            If the box is not within the volume.
        FormatError
            If the bytes cannot be read.
        """
        limits = zip(lower, upper, self.shape, strict=True)
        if not all(0 <= low <= high <= length for low, high, length in limits):
            raise ShapeError(
                f"the box {lower} to {upper}",
                must=f"lie within {self.path.name}",
                got=f"a volume of {self.shape}",
                remedy="Cut the box at the faces of the volume",
            )
        try:
            voxels = self._source.read(lower, upper)
        except (OSError, ValueError, RuntimeError) as error:
            raise FormatError(
                str(self.path),
                must="be readable throughout",
                got=f"{type(error).__name__}: {error}",
                remedy="Copy or write the file again",
            ) from error
        return np.array(voxels, np.float32, order="C", copy=True)


def open_volume(path: Path, *, voxel_size: float | None = None) -> Volume:
    """Open a volume without reading it.

    Parameters
    ----------
    path
        ``.mrc``, ``.rec``, ``.map`` (modes 0, 1, 2, 6 and 12), ``.tif``, or a ``.zarr`` folder
        (OME-Zarr 0.4 or 0.5, its finest level unless the path names another).
    voxel_size
        A, instead of what the file says.

    Returns
    -------
    Volume
        To read boxes from.

    Raises
    ------
    FormatError
        If the file is not there, broken, of another kind or not three-dimensional, or says no
        size of a voxel, or one that is no cube.
    ParameterError
        If `voxel_size` is not above 0.
    """
    path = Path(path)
    if voxel_size is not None and not (voxel_size > 0 and math.isfinite(voxel_size)):
        raise ParameterError(
            "voxel_size",
            must="be above 0 A",
            got=f"{voxel_size:g} A",
            remedy="Change --voxel-size",
        )
    source = _open(path)
    if min(source.shape) < 2:
        raise FormatError(
            str(path),
            must="hold a volume, more than one voxel along each axis",
            got=" x ".join(map(str, source.shape)),
            remedy="Name a tomogram",
        )
    return Volume(path, source, voxel_size=voxel_size or _side(path, source.voxel_sides))


def _open(path: Path) -> _Source:
    name = path.name.lower()
    if not path.exists():
        raise FormatError(
            str(path), must="be a readable file", got="no such file", remedy="Check the path"
        )
    if path.is_dir():
        from cryopick.io.volumes_zarr import ZarrSource

        return ZarrSource(path)
    if name.endswith(_MRC):
        return MrcSource(path)
    if name.endswith(_TIFF):
        return TiffSource(path)
    packed = name.endswith((".gz", ".bz2"))
    raise FormatError(
        str(path),
        must="be a volume in an MRC file, an OME-Zarr folder or a TIFF stack",
        got="a compressed file" if packed else f"suffix {path.suffix or 'none'}",
        remedy="Unpack it first" if packed else "Convert it to MRC",
    )


def _side(path: Path, sides: tuple[float, float, float] | None) -> float:
    """Return the side of a voxel that the file says, in A."""
    is_known = sides is not None and all(math.isfinite(s) and s > 0 for s in sides)
    if sides is None or not is_known:
        raise FormatError(
            str(path),
            must="say the size of its voxels",
            got="none" if sides is None else " x ".join(f"{s:g}" for s in sides) + " A",
            remedy="Give it with --voxel-size",
        )
    if max(sides) - min(sides) > _CUBIC * max(sides):
        raise FormatError(
            str(path),
            must="have cubic voxels",
            got=" x ".join(f"{s:g}" for s in reversed(sides)) + " A (x, y, z)",
            remedy="Resample it, or give the size with --voxel-size if the header is wrong",
        )
    return sides[2]
