"""Pick one tomogram: read it box by box, find its particles, write what was found."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import DataError, ShapeError
from cryopick.io.atomic import aside_path, output_errors, writing
from cryopick.io.volume_stack import write_volume_stack
from cryopick.io.volumes import Volume, VolumeWriter, open_volume
from cryopick.pipeline.tomo_pick_parameters import TomogramPickOutput
from cryopick.tomogram.locate import Located, locate_particles
from cryopick.tomogram.locate_parameters import TomogramPickParameters
from cryopick.tomogram.locate_source import (
    ArraySource,
    Corner,
    VoxelSource,
    VoxelStore,
    blocks_of,
    measure_levels,
)
from cryopick.tomogram.subtomograms import cut_subtomogram

__all__ = ["PickTask", "pick_tomogram", "read_found"]

_IN_MEMORY = 128 << 20  # bytes of evidence that are kept there, not in a file
_NO_EVIDENCE = 3.5  # z-score below which a template need not be looked for
_SHOWN_DEPTH = 5  # sections averaged in a picture


@dataclass(frozen=True, kw_only=True)
class PickTask:
    """One tomogram, as the worker gets it."""

    path: Path
    key: str
    voxel_size: float | None  # A, instead of what the file says
    segmentation: Path | None
    clusters: tuple[int, ...] | None  # of a volume of labels; None for one of probabilities
    parameters: TomogramPickParameters
    output: TomogramPickOutput
    folder: Path
    device: str = "cpu"


@dataclass(frozen=True)
class _Clusters:
    """A volume of labels as a probability: 1 in some clusters, else 0."""

    volume: Volume
    clusters: tuple[int, ...]

    @property
    def shape(self) -> Corner:
        return self.volume.shape

    def read(self, lower: Corner, upper: Corner) -> NDArray[np.float32]:
        return np.isin(self.volume.read(lower, upper), self.clusters).astype(np.float32)


def pick_tomogram(task: PickTask) -> dict[str, Any]:
    """Pick one tomogram and write its picks; what comes back goes to the ledger.

    Raises
    ------
    CryopickError
        If it cannot be read, worked on or written.
    """
    volume = open_volume(task.path, voxel_size=task.voxel_size)
    segmentation = _segmentation(task, volume)
    with _evidence_store(task, volume.shape) as evidence:
        try:
            found = locate_particles(
                volume,
                voxel_size=volume.voxel_size,
                parameters=task.parameters,
                evidence=evidence,
                segmentation=segmentation,
                device=task.device,
            )
        except DataError as error:
            if error.what == "tomogram":  # pure functions know no file
                error.what = str(task.path)
            raise
        files = [_write_found(task, volume, found)]
        if task.output.mask:
            files.append(_write_mask(task, volume, evidence, segmentation))
    if task.output.box_size:
        files.append(_write_boxes(task, volume, found))
    return {
        "n_picks": len(found),
        "n_maxima": found.n_maxima,
        "n_extended": found.n_extended,
        "n_beads": len(found.beads),
        "threshold": round(found.threshold, 4),
        "shape": list(volume.shape),
        "voxel_size": volume.voxel_size,
        "files": files,
    }


def read_found(folder: Path, key: str) -> dict[str, NDArray[Any]]:
    """Read what a task stored: places, scores, extents, features and pictures."""
    with np.load(folder / "picks" / f"{key}.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _segmentation(task: PickTask, volume: Volume) -> VoxelSource | None:
    if task.segmentation is None:
        return None
    found = open_volume(task.segmentation, voxel_size=volume.voxel_size)
    if found.shape != volume.shape:
        raise ShapeError(
            str(task.segmentation),
            must=f"have the shape of its tomogram, {volume.shape}",
            got=str(found.shape),
            remedy="Segment this tomogram",
        )
    return found if task.clusters is None else _Clusters(found, task.clusters)


@dataclass(frozen=True)
class _FileStore:
    """Voxels in a file, mapped anew each time, so that no page of it stays in memory."""

    path: Path
    shape: Corner

    def read(self, lower: Corner, upper: Corner) -> NDArray[Any]:
        voxels = np.memmap(self.path, np.float16, "r", shape=self.shape)
        return voxels[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))]

    def write(self, lower: Corner, voxels: NDArray[Any]) -> None:
        place = tuple(slice(a, a + n) for a, n in zip(lower, voxels.shape, strict=True))
        np.memmap(self.path, np.float16, "r+", shape=self.shape)[place] = voxels


@contextlib.contextmanager
def _evidence_store(task: PickTask, shape: Corner) -> Iterator[VoxelStore]:
    """Room for the evidence: in memory, or in a file that goes away."""
    if 2 * math.prod(shape) <= _IN_MEMORY:
        yield ArraySource(np.zeros(shape, np.float16))
        return
    path = aside_path(task.folder / f"{task.key}_evidence.raw")
    try:
        with output_errors(path), path.open("wb") as handle:
            os.posix_fallocate(handle.fileno(), 0, 2 * math.prod(shape))
        yield _FileStore(path, shape)
    finally:
        path.unlink(missing_ok=True)


def _write_found(task: PickTask, volume: Volume, found: Located) -> str:
    name = f"picks/{task.key}.npz"
    path = task.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {**_pictures(volume, found)}
    with writing(path) as handle:
        np.savez_compressed(
            handle,
            places=found.places,
            scores=found.scores,
            semi_axes=found.extent.semi_axes,
            axes=found.extent.axes,
            filled=found.extent.filled,
            features=found.features,
            curvatures=found.curvatures,
            beads=np.array([(*b.centre, b.radius) for b in found.beads]).reshape(-1, 4),
            **arrays,
        )
    return name


def _pictures(volume: Volume, found: Located) -> dict[str, NDArray[np.float32]]:
    """Means of some sections through the place where picks are densest, in three directions."""
    shape = np.array(volume.shape)
    middle = np.median(found.places, axis=0) if len(found) else (shape - 1) / 2
    starts = np.clip(np.round(middle).astype(int) - _SHOWN_DEPTH // 2, 0, None)
    pictures: dict[str, NDArray[np.float32]] = {"sections": starts.astype(np.float32)}
    for axis, name in enumerate("zyx"):
        pictures[f"picture_{name}"] = _mean_section(volume, axis, int(starts[axis]))
    return pictures


def _mean_section(volume: Volume, axis: int, start: int) -> NDArray[np.float32]:
    """Mean of some sections across an axis, read some at a time: across x each is all of a file."""
    lower, upper = [0, 0, 0], list(volume.shape)
    lower[axis], upper[axis] = start, min(start + _SHOWN_DEPTH, volume.shape[axis])
    parts = []
    for first in range(lower[0], upper[0], _SHOWN_DEPTH):
        last = min(first + _SHOWN_DEPTH, upper[0])
        box = volume.read((first, lower[1], lower[2]), (last, upper[1], upper[2]))
        parts.append(box.mean(axis, dtype=np.float32))
    return parts[0] if axis == 0 else np.concatenate(parts)


def _write_mask(
    task: PickTask, volume: Volume, evidence: VoxelSource, segmentation: VoxelSource | None
) -> str:
    """Write where particles may be: 1 where there is evidence, else 0."""
    name = f"masks/{task.key}_mask.mrc"
    low, high = task.parameters.slab(volume.shape[0])
    with VolumeWriter(task.folder / name, volume.shape, np.uint8, volume.voxel_size) as writer:
        for lower, upper in blocks_of((0, 0, 0), volume.shape, side=task.parameters.block):
            if task.parameters.method == "segment" and segmentation is not None:
                inside = segmentation.read(lower, upper) >= task.parameters.probability
            else:
                inside = np.asarray(evidence.read(lower, upper), np.float32) >= _NO_EVIDENCE
            sections = np.arange(lower[0], upper[0])
            inside = inside & ((sections >= low) & (sections < high))[:, None, None]
            writer.write(lower, inside.astype(np.uint8))
    return name


def _write_boxes(task: PickTask, volume: Volume, found: Located) -> str:
    name = f"boxes/{task.key}_boxes.mrcs"
    path = task.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    side = task.output.box_size
    radius = min(task.parameters.max_diameter / 2 / volume.voxel_size, side / 2 - 1)
    middle = measure_levels(volume).middle
    boxes = (
        cut_subtomogram(
            volume,
            place,
            box_size=side,
            radius=radius,
            fill=middle,
            is_white=task.parameters.white_particles,
        )[0]
        for place in found.places
    )
    write_volume_stack(path, boxes, number=len(found), side=side, voxel_size=volume.voxel_size)
    return name
