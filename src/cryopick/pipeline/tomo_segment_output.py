"""The files of one workflow of a tomogram: labels, posteriors, and PickET's HDF5."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cryopick.io.atomic import aside_path, commit_file, output_errors
from cryopick.io.volumes import VolumeWriter
from cryopick.pipeline.tomo_segment_tiles import TileWork
from cryopick.tomogram.segment import UNLABELLED
from cryopick.tomogram.segment_fit import Workflow
from cryopick.tomogram.segment_tiles import TILE, Box, Corner

__all__ = ["TomogramTask", "WorkflowFiles", "output_names"]


@dataclass(frozen=True, kw_only=True)
class TomogramTask(TileWork):
    """One tomogram, as the worker gets it."""

    number: int  # place in the list of inputs, from 0
    key: str
    folder: Path
    suffix: str  # .mrc or .zarr
    is_half: bool  # posteriors as float16
    is_every_cluster: bool  # a posterior volume of each cluster
    has_hdf5: bool
    attributes: dict[str, Any]  # for the HDF5 file


def output_names(task: TomogramTask) -> dict[str, list[str]]:
    """Name the files of each workflow: labels, posteriors, and HDF5 if asked for."""
    names = {}
    for workflow in task.workflows:
        stem = f"{task.key}_{workflow.name}"
        clusters = range(len(workflow.evidence)) if task.is_every_cluster else ("",)
        found = [f"{stem}_labels{task.suffix}"]
        found += [f"{stem}_posterior{number}{task.suffix}" for number in clusters]
        found += [f"segmentation_{task.number}_{workflow.name}.h5"] if task.has_hdf5 else []
        names[workflow.name] = found
    return names


class WorkflowFiles:
    """The files of one workflow of a tomogram."""

    def __init__(
        self, task: TomogramTask, workflow: Workflow, names: Sequence[str], shape: Corner
    ) -> None:
        self.name = workflow.name
        self._type = np.float16 if task.is_half else np.float32
        self._particles = None if task.is_every_cluster else list(workflow.particle_clusters)
        types = [np.uint8, *([self._type] * (len(names) - 1 - task.has_hdf5))]
        self._writers = [
            VolumeWriter(task.folder / name, shape, kind, task.voxel_size)
            for name, kind in zip(names, types, strict=False)
        ]
        self._hdf5 = None
        if task.has_hdf5:
            attributes = {**task.attributes, "clustering_method": workflow.method}
            attributes["feature_extraction_mode"] = workflow.segmenter.features.mode
            self._hdf5 = _Hdf5(task.folder / names[-1], shape, attributes)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> WorkflowFiles:
        with contextlib.ExitStack() as stack:
            for writer in self._writers:
                stack.enter_context(writer)
            if self._hdf5:
                stack.enter_context(self._hdf5)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def kept(self, posteriors: Tensor) -> list[Tensor]:
        """Volumes that are written: of each cluster, or of all particles together."""
        if self._particles is None:
            return list(posteriors)
        return [posteriors[self._particles].sum(0)]

    def blank(self, block: Box) -> tuple[NDArray[np.uint8], list[NDArray[Any]]]:
        """Room for a block."""
        volumes = [np.empty(block.shape, self._type) for _ in self._writers[1:]]
        return np.empty(block.shape, np.uint8), volumes

    def write(self, block: Box, labels: NDArray[np.uint8], shares: Sequence[NDArray[Any]]) -> None:
        """Write a block."""
        for writer, voxels in zip(self._writers, (labels, *shares), strict=True):
            writer.write(block.lower, voxels)
        if self._hdf5:
            self._hdf5.write(block, labels)


class _Hdf5:
    """PickET's file: int16, -1 where there is no label, with the parameters as attributes."""

    def __init__(self, path: Path, shape: Corner, attributes: dict[str, Any]) -> None:
        self._path, self._aside, self._shape = path, aside_path(path), shape
        self._attributes = attributes

    def __enter__(self) -> _Hdf5:
        with output_errors(self._path):
            self._file = h5py.File(self._aside, "w")
        group = self._file.create_group("segmentations")
        for name, value in self._attributes.items():
            group.attrs[name] = "None" if value is None else value
        chunks = tuple(min(TILE, n) for n in self._shape)
        self._data = group.create_dataset(
            "semantic_segmentation", self._shape, "i2", chunks=chunks, compression="lzf"
        )
        return self

    def write(self, block: Box, labels: NDArray[np.uint8]) -> None:
        values = labels.astype(np.int16)
        values[labels == UNLABELLED] = -1
        where = tuple(slice(a, b) for a, b in zip(block.lower, block.upper, strict=True))
        with output_errors(self._path):
            self._data[where] = values

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with output_errors(self._path):
                self._file.close()
                if kind is None:
                    commit_file(self._aside, self._path)
        finally:
            self._aside.unlink(missing_ok=True)
