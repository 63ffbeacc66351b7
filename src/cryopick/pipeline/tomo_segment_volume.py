"""Segment one tomogram block by block and write its volumes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cryopick.io.volumes import open_volume
from cryopick.pipeline.tomo_segment_output import TomogramTask, WorkflowFiles, output_names
from cryopick.pipeline.tomo_segment_tiles import each_tile, on_device, single_threads
from cryopick.tomogram.segment import UNLABELLED, label_tile
from cryopick.tomogram.segment_tiles import (
    Box,
    Corner,
    plan_blocks,
)

__all__ = ["segment_tomogram"]


def segment_tomogram(task: TomogramTask) -> dict[str, Any]:
    """Label every voxel of a tomogram whose neighbourhood is whole, by every workflow.

    Returns
    -------
    dict
        For the ledger: files, seconds, and the share of each cluster in the volume.
    """
    begun = time.monotonic()
    volume = open_volume(task.path, voxel_size=task.voxel_size)
    names = output_names(task)
    counts = {w.name: np.zeros(len(w.evidence), np.int64) for w in task.workflows}
    with contextlib.ExitStack() as stack, single_threads() as threads:
        outputs = [
            stack.enter_context(WorkflowFiles(task, workflow, names[workflow.name], volume.shape))
            for workflow in task.workflows
        ]
        segmenters, matrix = on_device(task)
        for block in plan_blocks(volume.shape, max_voxels=task.block_voxels):
            blank = [output.blank(block) for output in outputs]

            def label(tile: Box, tensor: Tensor, block: Box = block, blank: Any = blank) -> None:
                found = label_tile(segmenters, tensor, matrix, task.levels)
                _place(blank, found, outputs, block, tile)

            each_tile(task, volume, block, label, threads)
            for output, arrays in zip(outputs, blank, strict=True):
                _blank_border(arrays, block, volume.shape, task.side // 2)
                output.write(block, *arrays)
                labelled = arrays[0][arrays[0] != UNLABELLED]
                counts[output.name] += np.bincount(labelled, minlength=len(counts[output.name]))
    shares = {n: (c / max(1, c.sum())).round(6).tolist() for n, c in counts.items()}
    files = [name for found in names.values() for name in found]
    return {
        "files": files,
        "outputs": names,
        "shares": shares,
        "seconds": round(time.monotonic() - begun, 2),
    }


def _place(
    blank: Sequence[tuple[NDArray[np.uint8], list[NDArray[Any]]]],
    found: Sequence[tuple[Tensor, Tensor]],
    outputs: Sequence[WorkflowFiles],
    block: Box,
    tile: Box,
) -> None:
    """Copy a tile's labels and posteriors to where they belong in the block."""
    corner = [a - b for a, b in zip(tile.lower, block.lower, strict=True)]
    where = tuple(slice(c, c + n) for c, n in zip(corner, tile.shape, strict=True))
    inside = tuple(slice(0, n) for n in tile.shape)
    for (labels, shares), (tile_labels, posteriors), output in zip(
        blank, found, outputs, strict=True
    ):
        labels[where] = tile_labels[inside].cpu().numpy()
        kept = output.kept(posteriors)
        for target, source in zip(shares, kept, strict=True):
            exact = source[inside].half() if target.dtype == np.float16 else source[inside]
            target[where] = exact.cpu().numpy()


def _blank_border(
    arrays: tuple[NDArray[np.uint8], list[NDArray[Any]]], block: Box, shape: Corner, width: int
) -> None:
    """Leave voxels at the faces of the volume without label, and with posterior 0."""
    labels, shares = arrays
    for axis in range(3):
        places = np.arange(block.lower[axis], block.upper[axis])
        is_border = (places < width) | (places >= shape[axis] - width)
        where = (slice(None),) * axis + (is_border,)
        labels[where] = UNLABELLED
        for share in shares:
            share[where] = 0
