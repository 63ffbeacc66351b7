"""Go over a tomogram tile by tile: read blocks, compute tiles side by side, gather cells."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryopick.errors import DataError
from cryopick.io.volumes import Volume, open_volume
from cryopick.tomogram.clustering_cells import Cells, merge_cells
from cryopick.tomogram.segment import TileSegmenter, tile_features
from cryopick.tomogram.segment_fit import Workflow, cells_of
from cryopick.tomogram.segment_levels import (
    Levels,
    blur_matrix,
    blur_radius,
    scale_levels,
    smooth,
)
from cryopick.tomogram.segment_sample import FitRegion, tile_places
from cryopick.tomogram.segment_tiles import (
    TILE,
    Box,
    cut_tile,
    plan_blocks,
    read_padded,
    tiles_of,
)

__all__ = ["TileWork", "collect_tomogram", "each_tile", "on_device", "single_threads"]


@dataclass(frozen=True, kw_only=True)
class TileWork:
    """One tomogram and what is done to its tiles."""

    path: Path
    voxel_size: float  # A
    sigma: float  # of the smoothing, voxels
    side: int  # of a neighbourhood, voxels
    levels: Levels
    workflows: tuple[Workflow, ...]
    block_voxels: int
    device: str


def collect_tomogram(work: TileWork, region: FitRegion, *, number: float, seed: int) -> list[Cells]:
    """Gather voxels of a tomogram in cells, for each workflow.

    Parameters
    ----------
    work
        With the first models.
    region
        The voxels to learn from.
    number
        Of voxels, about.
    seed
        Of their draw; the same voxels are drawn whatever the blocks.

    Returns
    -------
    list of Cells
        Neither blocks nor threads change them.
    """
    volume = open_volume(work.path, voxel_size=work.voxel_size)
    segmenters, matrix = on_device(work)
    models = [s.features for s in segmenters]
    found: list[Cells] = []
    lock = threading.Lock()

    def add(tile: Box, tensor: Tensor) -> None:
        generator = np.random.default_rng([seed, *tile.lower])
        share = number / region.size * _common(region.box, tile)
        places = tile_places(region, tile, share, generator).to(tensor.device)
        if not len(places):
            return
        scaled = scale_levels(smooth(tensor, matrix), work.levels)
        components = {
            key: tile_features(m, scaled)[:, places]
            for key, m in {id(m): m for m in models}.items()
        }
        here = [
            cells_of(workflow, components[id(model)])
            for workflow, model in zip(work.workflows, models, strict=True)
        ]
        with lock:
            joined = (
                [merge_cells(a, b) for a, b in zip(found, here, strict=True)] if found else here
            )
            found[:] = joined

    with single_threads() as threads:
        for block in plan_blocks(volume.shape, max_voxels=work.block_voxels):
            if _common(region.box, block):
                each_tile(work, volume, block, add, threads)
    return found


@contextlib.contextmanager
def single_threads() -> Iterator[int]:
    """Compute each tile in one thread; yield how many tiles may be computed side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def on_device(work: TileWork) -> tuple[list[TileSegmenter], Tensor]:
    """Copy the models and the matrix of the smoothing to the device of the work."""
    models = {id(w.segmenter.features): w.segmenter.features for w in work.workflows}
    there = {key: model.to(work.device) for key, model in models.items()}
    segmenters = [
        w.segmenter.to(there[id(w.segmenter.features)], work.device) for w in work.workflows
    ]
    radius = blur_radius(work.sigma)
    matrix = blur_matrix(work.sigma, size=TILE + work.side - 1, margin=radius)
    return segmenters, matrix.to(work.device)


def each_tile(
    work: TileWork,
    volume: Volume,
    block: Box,
    function: Callable[[Box, Tensor], None],
    threads: int,
) -> None:
    """Read a block and hand its tiles, with their halo, to a function."""
    halo = blur_radius(work.sigma) + work.side // 2
    padded = read_padded(volume.read, volume.shape, block, halo)
    if not math.isfinite(float(padded.sum(dtype=np.float64))):
        raise DataError(
            str(work.path),
            must="hold numbers only",
            got=f"voxels that are NaN or infinite in sections {block.lower[0]} to {block.upper[0]}",
            remedy="Write the tomogram again",
        )

    def one(tile: Box) -> None:
        torch.set_num_threads(1)
        tensor = torch.from_numpy(cut_tile(padded, block, tile, halo))
        function(tile, tensor.to(work.device))

    tiles = list(tiles_of(block))
    if threads == 1 or work.device != "cpu":
        for tile in tiles:
            one(tile)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(one, tiles):
            pass


def _common(one: Box, other: Box) -> int:
    """Voxels that two boxes have in common."""
    low = (max(a, b) for a, b in zip(one.lower, other.lower, strict=True))
    high = (min(a, b) for a, b in zip(one.upper, other.upper, strict=True))
    return math.prod(max(0, b - a) for a, b in zip(low, high, strict=True))
