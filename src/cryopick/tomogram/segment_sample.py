"""Draw neighbourhoods of a tomogram to learn from: seeded, spread evenly, without reading it all.

Voxels are drawn from tiles spread evenly over the part that may be learned from; within a tile,
one from each of equal runs of voxels. What is drawn depends on the seed and the shape only.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.tomogram.segment_levels import blur_matrix, blur_radius, smooth
from cryopick.tomogram.segment_tiles import TILE, Box, Corner, Reader, read_padded

__all__ = ["FitRegion", "draw_neighbourhoods", "draw_places", "tile_places"]

_LEAST_TILES = 128  # that are looked at, where there are so many
_PER_TILE = 4096  # most voxels drawn from a tile, unless all tiles are looked at


@dataclass(frozen=True)
class FitRegion:
    """The voxels that may be learned from: those between two z whose neighbourhood is whole."""

    shape: Corner
    lower_z: int
    upper_z: int
    side: int

    @property
    def box(self) -> Box:
        """As a box; empty sides where the limits leave nothing."""
        half = self.side // 2
        _, height, width = self.shape
        low = max(half, self.lower_z)
        high = max(low, min(self.shape[0] - half, self.upper_z))
        return Box((low, half, half), (high, height - half, width - half))

    @property
    def size(self) -> int:
        """Voxels in all."""
        return self.box.size


def draw_places(total: int, number: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw `number` of `total` places: one at random from each of `number` equal runs.

    Examples
    --------
    >>> draw_places(4, 4, np.random.default_rng(0)).tolist()
    [0, 1, 2, 3]
    """
    if number >= total:
        return np.arange(total)
    if number < 1:
        return np.arange(0)
    edges = np.arange(number + 1, dtype=np.int64) * total // number
    return edges[:-1] + (generator.random(number) * np.diff(edges)).astype(np.int64)


def tile_places(
    region: FitRegion, tile: Box, number: float, generator: np.random.Generator
) -> Tensor:
    """Draw voxels of a tile that are in the region.

    Parameters
    ----------
    region
        Of the tomogram.
    tile
        One of its tiles.
    number
        How many; a fraction is rounded up or down at random.
    generator
        Of random numbers.

    Returns
    -------
    Tensor
        (n,) int64, positions in the flattened whole tile.
    """
    fit = region.box
    low = [max(a, b) - b for a, b in zip(fit.lower, tile.lower, strict=True)]
    high = [min(a, c) - b for a, b, c in zip(fit.upper, tile.lower, tile.upper, strict=True)]
    sides = [max(0, b - a) for a, b in zip(low, high, strict=True)]
    wanted = int(number + generator.random())
    drawn = draw_places(sides[0] * sides[1] * sides[2], wanted, generator)
    z, rest = np.divmod(drawn, max(1, sides[1] * sides[2]))
    y, x = np.divmod(rest, max(1, sides[2]))
    flat = ((z + low[0]) * TILE + y + low[1]) * TILE + x + low[2]
    return torch.from_numpy(flat)


def draw_neighbourhoods(
    read: Reader, region: FitRegion, *, sigma: float, number: int, seed: int
) -> Tensor:
    """Draw neighbourhoods of the smoothed tomogram.

    Parameters
    ----------
    read
        Reads boxes of the tomogram.
    region
        To draw from.
    sigma
        Deviation of the smoothing, voxels.
    number
        How many, about.
    seed
        Of the draw.

    Returns
    -------
    Tensor
        (n, side^3) float32, in grey levels of the file; n is 0 where the region is empty.
    """
    generator = np.random.default_rng(seed)
    tiles = _tiles_of_region(region)
    n_tiles = max(_LEAST_TILES, -(-number // _PER_TILE))
    chosen = [tiles[i] for i in draw_places(len(tiles), n_tiles, generator)]
    side, radius = region.side, blur_radius(sigma)
    matrix = blur_matrix(sigma, size=TILE + side - 1, margin=radius)
    sizes = [_overlap(region, tile) for tile in chosen]
    found = [torch.empty(0, side**3)]
    for tile, size in zip(chosen, sizes, strict=True):
        padded = read_padded(read, region.shape, tile, radius + side // 2)
        smoothed = smooth(torch.from_numpy(padded), matrix)
        places = tile_places(region, tile, number * size / sum(sizes), generator)
        found.append(_neighbourhoods(smoothed, places, side))
    return torch.cat(found)


def _tiles_of_region(region: FitRegion) -> list[Box]:
    fit = region.box
    if not fit.size:
        return []
    ranges = [range(a // TILE * TILE, b, TILE) for a, b in zip(fit.lower, fit.upper, strict=True)]
    return [
        Box(
            (z, y, x),
            (
                min(z + TILE, region.shape[0]),
                min(y + TILE, region.shape[1]),
                min(x + TILE, region.shape[2]),
            ),
        )
        for z, y, x in itertools.product(*ranges)
    ]


def _overlap(region: FitRegion, tile: Box) -> int:
    fit = region.box
    size = 1
    for a, b, c, d in zip(fit.lower, fit.upper, tile.lower, tile.upper, strict=True):
        size *= max(0, min(b, d) - max(a, c))
    return size


def _neighbourhoods(smoothed: Tensor, places: Tensor, side: int) -> Tensor:
    """Cut the neighbourhoods of voxels of a tile, (n, side^3)."""
    longer = TILE + side - 1
    z, y, x = places // TILE**2, places // TILE % TILE, places % TILE
    step = torch.arange(side)
    offsets = (step[:, None, None] * longer + step[:, None]) * longer + step
    corners = (z * longer + y) * longer + x
    return smoothed.reshape(-1)[corners[:, None] + offsets.reshape(-1)]
