"""Tiles of a volume: the unit of computing; its size is fixed, so results do not depend on blocks.

A tile is `TILE` voxels on a side, at a multiple of `TILE` from the first voxel. What is read at
once (a block) is a box of whole tiles with a halo. Each tile is computed alone, in one thread, from
its own copy with its own halo, so neither the size of the blocks nor the number of threads changes
a bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TILE", "Box", "Reader", "cut_tile", "plan_blocks", "read_padded", "tiles_of"]

TILE = 32  # voxels along each side

Corner = tuple[int, int, int]
Reader = Callable[[Corner, Corner], NDArray[np.float32]]  # lower, upper -> (z, y, x)


@dataclass(frozen=True)
class Box:
    """A box of voxels, from `lower` up to, but not including, `upper`; (z, y, x)."""

    lower: Corner
    upper: Corner

    @property
    def shape(self) -> Corner:
        """Voxels along each axis."""
        depth, height, width = (b - a for a, b in zip(self.lower, self.upper, strict=True))
        return depth, height, width

    @property
    def size(self) -> int:
        """Voxels in all."""
        depth, height, width = self.shape
        return depth * height * width


def tiles_of(box: Box) -> Iterator[Box]:
    """List the tiles of a box whose lower corner is that of a tile, cut at its upper corner."""
    ranges = (range(a, b, TILE) for a, b in zip(box.lower, box.upper, strict=True))
    for z, y, x in itertools.product(*ranges):
        upper = (
            min(z + TILE, box.upper[0]),
            min(y + TILE, box.upper[1]),
            min(x + TILE, box.upper[2]),
        )
        yield Box((z, y, x), upper)


def plan_blocks(shape: Corner, *, max_voxels: int) -> list[Box]:
    """Divide a volume into blocks of whole tiles.

    Parameters
    ----------
    shape
        Of the volume, (z, y, x).
    max_voxels
        Most voxels of a block, its halo not counted; one tile is the least there can be.

    Returns
    -------
    list of Box
        That together cover the volume once, whole sections if they fit.
    """
    tiles = [-(-length // TILE) for length in shape]
    steps = [1, 1, 1]
    for axis in (2, 1, 0):  # rows are whole before sections are, as they lie in files
        others = steps[0] * steps[1] * steps[2] * TILE**3
        steps[axis] = max(1, min(tiles[axis], max_voxels // others))
        if steps[axis] < tiles[axis]:
            break
    depth, height, width = (n * TILE for n in steps)
    return [
        Box(
            (z, y, x),
            (min(z + depth, shape[0]), min(y + height, shape[1]), min(x + width, shape[2])),
        )
        for z in range(0, shape[0], depth)
        for y in range(0, shape[1], height)
        for x in range(0, shape[2], width)
    ]


def read_padded(read: Reader, shape: Corner, box: Box, halo: int) -> NDArray[np.float32]:
    """Read a box of whole tiles with a halo; beyond its faces the volume is mirrored.

    Parameters
    ----------
    read
        Reads a box that lies in the volume.
    shape
        Of the volume.
    box
        Its upper corner is rounded up to that of a tile.
    halo
        Voxels added on all sides.

    Returns
    -------
    numpy.ndarray
        float32, (z, y, x), the sides multiples of `TILE` and twice the halo more.
    """
    wanted = [
        np.arange(low - halo, low + -(-(high - low) // TILE) * TILE + halo)
        for low, high in zip(box.lower, box.upper, strict=True)
    ]
    first = [max(0, low - halo) for low in box.lower]
    last = [min(n, high + halo) for n, high in zip(shape, box.upper, strict=True)]
    if any(n < 2 * halo for n in shape):  # a mirror image may reach the other face
        first = [0 if n < 2 * halo else a for n, a in zip(shape, first, strict=True)]
        last = [n if n < 2 * halo else b for n, b in zip(shape, last, strict=True)]
    voxels = read((first[0], first[1], first[2]), (last[0], last[1], last[2]))
    inside = []
    for axis, places in enumerate(wanted):
        mirrored = places % (2 * shape[axis])
        mirrored = np.minimum(mirrored, 2 * shape[axis] - 1 - mirrored)
        inside.append(np.clip(mirrored, first[axis], last[axis] - 1) - first[axis])
    if all(
        len(i) == n and (np.diff(i) == 1).all() for i, n in zip(inside, voxels.shape, strict=True)
    ):
        return voxels
    return voxels[np.ix_(*inside)]


def cut_tile(padded: NDArray[np.float32], block: Box, tile: Box, halo: int) -> NDArray[np.float32]:
    """Copy a tile with its halo out of a padded block; always of the same size.

    Parameters
    ----------
    padded
        What `read_padded` gave for `block`.
    block, tile
        The tile lies in the block.
    halo
        Of the block and of the tile.
    """
    side = TILE + 2 * halo
    z, y, x = (a - b for a, b in zip(tile.lower, block.lower, strict=True))
    return padded[z : z + side, y : y + side, x : x + side].copy()
