"""Reading a tomogram in boxes: levels, blocks, and boxes that reach beyond its faces."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.errors import DataError

__all__ = [
    "ArraySource",
    "Corner",
    "Levels",
    "VoxelSource",
    "VoxelStore",
    "blocks_of",
    "measure_levels",
    "read_padded",
    "sample_corners",
]

Corner = tuple[int, int, int]  # (z, y, x), voxels

_SAMPLED = 64  # boxes from which levels and noise are measured
_LEVEL_SIDE = 32  # voxels, of each


class VoxelSource(Protocol):
    """Anything that boxes of voxels can be read from."""

    @property
    def shape(self) -> Corner:
        """(z, y, x), voxels."""

    def read(self, lower: Corner, upper: Corner) -> NDArray[Any]:
        """Read the voxels from `lower` up to, but not including, `upper`."""


class VoxelStore(VoxelSource, Protocol):
    """A source whose voxels can be written, too."""

    def write(self, lower: Corner, voxels: NDArray[Any]) -> None:
        """Write the voxels of a box that begins at `lower`."""


@dataclass(frozen=True)
class ArraySource:
    """An array in memory, or mapped from a file, as a source of voxels."""

    array: NDArray[Any]  # (z, y, x)

    @property
    def shape(self) -> Corner:
        """(z, y, x), voxels."""
        depth, height, width = self.array.shape
        return depth, height, width

    def read(self, lower: Corner, upper: Corner) -> NDArray[Any]:
        """Read the voxels from `lower` up to, but not including, `upper`."""
        return self.array[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))]

    def write(self, lower: Corner, voxels: NDArray[Any]) -> None:
        """Write the voxels of a box that begins at `lower`."""
        place = tuple(slice(a, a + n) for a, n in zip(lower, voxels.shape, strict=True))
        self.array[place] = voxels


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Middle and robust deviation of the voxels of a tomogram."""

    middle: float
    deviation: float


def blocks_of(lower: Corner, upper: Corner, *, side: int) -> Iterator[tuple[Corner, Corner]]:
    """Cut a box into blocks that cover it once, in a fixed order.

    Parameters
    ----------
    lower, upper
        Of the box, voxels; `upper` is exclusive.
    side
        Of a block, voxels; those at the end are smaller.

    Examples
    --------
    >>> list(blocks_of((0, 0, 0), (1, 3, 2), side=2))
    [((0, 0, 0), (1, 2, 2)), ((0, 2, 0), (1, 3, 2))]
    """
    starts = (range(a, b, side) for a, b in zip(lower, upper, strict=True))
    for z, y, x in itertools.product(*starts):
        end = tuple(min(c + side, b) for c, b in zip((z, y, x), upper, strict=True))
        yield (z, y, x), (end[0], end[1], end[2])


def read_padded(source: VoxelSource, lower: Corner, upper: Corner, *, fill: float = 0.0) -> Tensor:
    """Read a box that may reach beyond the faces of the volume.

    Parameters
    ----------
    source
        The volume.
    lower, upper
        Voxels; `upper` is exclusive.
    fill
        What stands for voxels beyond the faces.

    Returns
    -------
    Tensor
        float32, (z, y, x).
    """
    box = torch.full([b - a for a, b in zip(lower, upper, strict=True)], fill)
    inner = [
        (max(a, 0), max(min(b, n), 0)) for a, b, n in zip(lower, upper, source.shape, strict=True)
    ]
    if all(a < b for a, b in inner):
        (z0, z1), (y0, y1), (x0, x1) = inner
        voxels = source.read((z0, y0, x0), (z1, y1, x1))
        place = tuple(slice(a - low, b - low) for (a, b), low in zip(inner, lower, strict=True))
        box[place] = torch.from_numpy(np.array(voxels, np.float32))
    return box


def sample_corners(shape: Corner, *, side: int, number: int = _SAMPLED) -> list[Corner]:
    """Spread boxes over a volume, always at the same places.

    Parameters
    ----------
    shape
        Of the volume, voxels.
    side
        Of a box, voxels.
    number
        Most boxes.

    Returns
    -------
    list of tuple
        Lower corners. Boxes do not overlap unless the volume is thinner than one of them.
    """
    rooms = [max(n // side, 1) for n in shape]
    while np.prod(rooms) > number:
        rooms[int(np.argmax(rooms))] -= 1
    starts = [
        [round((n - side) * (i + 0.5) / room) if room == 1 else round((n - side) * i / (room - 1))
         for i in range(room)]
        for n, room in zip(shape, rooms, strict=True)
    ]  # fmt: skip
    return [(max(z, 0), max(y, 0), max(x, 0)) for z, y, x in itertools.product(*starts)]


def measure_levels(source: VoxelSource) -> Levels:
    """Measure middle and deviation of the voxels in boxes spread over the volume.

    Parameters
    ----------
    source
        The volume.

    Returns
    -------
    Levels
        Median, and median absolute deviation times 1.4826, that of a normal distribution.

    Raises
    ------
    DataError
        If a voxel is not finite, or the volume is constant.
    """
    side = min(_LEVEL_SIDE, *source.shape)
    parts = []
    for lower in sample_corners(source.shape, side=side):
        z, y, x = (min(a + side, n) for a, n in zip(lower, source.shape, strict=True))
        parts.append(np.asarray(source.read(lower, (z, y, x)), np.float32).ravel())
    values = np.concatenate(parts)
    if not np.isfinite(values).all():
        raise DataError(
            "tomogram",
            must="hold finite numbers",
            got="NaN or infinity",
            remedy="Reconstruct it again, or leave it out",
        )
    middle = float(np.median(values))
    deviation = 1.4826 * float(np.median(np.abs(values - middle)))
    deviation = deviation or float(values.std())  # more than half of the voxels are the same
    if not deviation > 0:
        raise DataError(
            "tomogram",
            must="show something",
            got=f"the constant {middle:g}",
            remedy="Check the reconstruction, or leave it out",
        )
    return Levels(middle=middle, deviation=deviation)
