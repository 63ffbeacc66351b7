"""Shards of the particles of an iteration, and the tiles that they are aligned in.

Sizes depend on the run and the kind of device alone, never on the number of threads or on memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CPU_TILES",
    "FEWEST_TILE",
    "_SHARD_TILES",
    "Shard",
    "TileSizes",
    "cut_shards",
    "tile_sizes",
]

Shard = tuple[NDArray[np.int64], int]  # particles, and how many of them make a tile

FEWEST_TILE = 32  # images of a tile
_SHARD_TILES = 8


@dataclass(frozen=True, kw_only=True)
class TileSizes:
    """How large tiles are on a kind of device."""

    columns: int  # classes x images x shifts
    largest: int  # images; those of eight tiles are read at once


CPU_TILES = TileSizes(columns=8192, largest=64)
_DEVICE_TILES = TileSizes(columns=1 << 20, largest=256)


def tile_sizes(device: str) -> TileSizes:
    """How large tiles are on a device."""
    return CPU_TILES if device == "cpu" else _DEVICE_TILES


def cut_shards(
    indices: NDArray[np.int64], sizes: TileSizes, *, n_classes: int, n_shifts: int
) -> Iterator[Shard]:
    """Cut particles into shards, each at least as many as there are classes.

    Parameters
    ----------
    indices
        (n,) the particles.
    sizes
        Of tiles.
    n_classes, n_shifts
        That each is compared at.
    """
    tile = max(FEWEST_TILE, min(sizes.largest, sizes.columns // (n_classes * n_shifts)))
    size = tile * _SHARD_TILES * math.ceil(n_classes / (tile * _SHARD_TILES))
    for start, end in pairwise([*range(0, len(indices), size), len(indices)]):
        yield indices[start:end], tile
