"""Boxes of a volume in OME-Zarr, versions 0.4 and 0.5: one level of its pyramid.

The size of a voxel is what the level's scale says (it is not inferred from the number of the
level). Translations are not applied: positions count from the first voxel of the level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError

__all__ = ["ZarrSource", "ome_attributes"]

_ANGSTROMS = {"angstrom": 1.0, "nanometer": 10.0, "micrometer": 1e4, "picometer": 0.01}
_VERSION = "0.4"  # what most readers of today know


class ZarrSource:
    """The voxels of one level of an OME-Zarr volume, or of a plain Zarr array.

    Parameters
    ----------
    path
        Of the group, whose finest level is taken, or of a level in it.

    Raises
    ------
    FormatError
        If it is not Zarr, or no volume.
    """

    def __init__(self, path: Path) -> None:
        import zarr

        try:
            node = zarr.open(path, mode="r")
        except Exception as error:  # stores, codecs and JSON have exceptions of their own
            raise _unreadable(path, "a Zarr group or array", error) from error
        level = ""
        if isinstance(node, zarr.Group):
            scales = _multiscales(dict(node.attrs))
            datasets = scales.get("datasets") or [{}]
            level = str(datasets[0].get("path", ""))
            try:
                array = node[level] if level else None
            except (KeyError, OSError, ValueError) as error:
                raise _unreadable(path, f"a level {level} of its pyramid", error) from error
        else:
            array, level = node, path.name
            scales = _parent_scales(path)
        if not isinstance(array, zarr.Array):
            raise FormatError(
                str(path),
                must="be an OME-Zarr image (multiscales)",
                got="a group without one",
                remedy="Name the array in it, and its --voxel-size",
            )
        self._array = array
        self._leading = array.ndim - 3
        if self._leading < 0 or any(n != 1 for n in array.shape[: self._leading]):
            raise FormatError(
                str(path),
                must="hold one volume with axes z, y, x",
                got=f"an array of shape {array.shape}",
                remedy="Name an array of three axes",
            )
        depth, height, width = (int(n) for n in array.shape[-3:])
        self.shape = (depth, height, width)
        self.voxel_sides = _sides(path, scales, level)

    def read(self, lower: tuple[int, int, int], upper: tuple[int, int, int]) -> NDArray[Any]:
        """Read a box; the chunks that it touches are unpacked."""
        box = tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))
        return np.asarray(self._array[(0,) * self._leading + box])


def ome_attributes(voxel_size: float, *, name: str) -> dict[str, Any]:
    """Describe a volume of one level in OME-Zarr's words.

    Parameters
    ----------
    voxel_size
        A.
    name
        Of the image.
    """
    scale = {"type": "scale", "scale": [voxel_size] * 3}
    axes = [{"name": n, "type": "space", "unit": "angstrom"} for n in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": [scale]}]
    image = {"version": _VERSION, "name": name, "axes": axes, "datasets": datasets}
    return {"multiscales": [image]}


def _multiscales(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first image of a group: 0.5 keeps it under "ome", 0.4 does not."""
    ome = attributes.get("ome")
    found = (ome if isinstance(ome, Mapping) else attributes).get("multiscales")
    is_list = isinstance(found, list) and found and isinstance(found[0], dict)
    return dict(found[0]) if is_list and found else {}


def _parent_scales(path: Path) -> dict[str, Any]:
    import zarr

    try:
        return _multiscales(dict(zarr.open_group(path.absolute().parent, mode="r").attrs))
    except Exception:  # there is none: the array stands alone
        return {}


def _sides(path: Path, scales: Mapping[str, Any], level: str) -> tuple[float, float, float] | None:
    """Multiply the scales of a level, in A, (z, y, x); None where nothing says them."""
    axes = [a if isinstance(a, Mapping) else {"name": a} for a in scales.get("axes", ())]
    if not axes:
        return None
    names = [str(a.get("name", "")) for a in axes[-3:]]
    if names != ["z", "y", "x"]:
        raise FormatError(
            str(path), must="have axes z, y, x", got=", ".join(names), remedy="Reorder the array"
        )
    chosen = [d for d in scales.get("datasets", ()) if str(d.get("path")) == level]
    steps = [t for d in (*chosen, scales) for t in d.get("coordinateTransformations", ())]
    factors = [t["scale"][-3:] for t in steps if t.get("type") == "scale" and "scale" in t]
    if not factors:
        return None
    units = [_ANGSTROMS.get(str(a.get("unit", "angstrom")), math.nan) for a in axes[-3:]]
    sides = [math.prod(float(f[i]) for f in factors) * units[i] for i in range(3)]
    return sides[0], sides[1], sides[2]


def _unreadable(path: Path, wanted: str, error: Exception) -> FormatError:
    return FormatError(
        str(path),
        must=f"hold {wanted}",
        got=f"{type(error).__name__}: {error}",
        remedy="Check the path",
    )
