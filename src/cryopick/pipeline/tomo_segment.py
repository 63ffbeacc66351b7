"""Segment the tomograms of a data set: one model of all, then one task for each tomogram.

The folder of the job holds for a tomogram with the key ``a`` and each workflow, such as gabor_gmm:

    a_gabor_gmm_labels.mrc       numbers of clusters, 255 where there is none
    a_gabor_gmm_posterior.mrc    probability of a particle
    segmentation_0_gabor_gmm.h5  PickET's file, if asked for
    segmentation.json            parameters, what was learned, the clusters and the files
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import find_leftovers, write_json
from cryopick.io.disk_space import require_space
from cryopick.pipeline.job import Job, ProgressCallback, Record, Task, identity_of
from cryopick.pipeline.tomo_segment_learn import Learned, learn_workflows, tile_work
from cryopick.pipeline.tomo_segment_output import TomogramTask
from cryopick.pipeline.tomo_segment_parameters import SegmentOutputParameters
from cryopick.pipeline.tomo_segment_plan import (
    PlannedTomogram,
    SegmentPlan,
    plan_segmentation,
)
from cryopick.pipeline.tomo_segment_request import SegmentRequest
from cryopick.pipeline.tomo_segment_volume import segment_tomogram
from cryopick.pipeline.versions import known_versions
from cryopick.tomogram.segment_fit import Workflow

__all__ = ["SegmentResult", "segment_tomograms"]

_RECORD = "segmentation.json"


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """What a segmentation found."""

    folder: Path
    record: dict[str, Any]  # as in segmentation.json

    @property
    def failed(self) -> dict[str, str]:
        """Why tomograms were refused, by path."""
        return {t["path"]: t["error"] for t in self.record["tomograms"] if t["error"]}


def segment_tomograms(
    request: SegmentRequest,
    *,
    output: SegmentOutputParameters | None = None,
    compute: ComputeParameters | None = None,
    voxel_size: float | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> SegmentResult:
    """Learn one segmentation of all tomograms and label each of them.

    Parameters
    ----------
    request
        What is asked for, and the folder.
    output
        What is written.
    compute
        How much of the machine to use.
    voxel_size
        A, instead of what the files say.
    overwrite
        Throw away what other parameters left in the folder.
    progress
        Called with the number of tomograms done and in all.

    Returns
    -------
    SegmentResult
        Started again with the same parameters, only tomograms that are not done are labelled. One
        that cannot be worked on is refused with a sentence; the others go on.

    Raises
    ------
    CryopickError
        Before anything is computed, if an input is missing or a value wrong; or if nothing can
        be learned from any tomogram.
    """
    output, compute = output or SegmentOutputParameters(), compute or ComputeParameters()
    plan = plan_segmentation(request, output, voxel_size=voxel_size)
    job = Job(
        request.folder,
        name="tomo segment",
        parameters={**request.to_dict(), "voxel_size": voxel_size, **output.to_dict()},
        inputs=[str(i.path) for i in request.inputs],
        results=(_RECORD,),
        overwrite=overwrite,
    )
    with job:
        _remove_folders(request.folder)
        missing = [t for t in plan.tomograms if not _is_there(request.folder, t)]
        share = sum(t.size for t in missing) / sum(t.size for t in plan.tomograms)
        require_space(request.folder, int(plan.disk * share))
        learned = learn_workflows(request, plan, compute)
        tasks = _tasks(request, plan, learned, output, compute)
        executor = make_executor(compute, n_items=len(tasks), bytes_per_item=plan.memory)
        records = job.run(executor, segment_tomogram, tasks, progress=progress)
        record = _record(request, plan, learned, output, {r.key: r for r in records})
        write_json(request.folder / _RECORD, record)
    return SegmentResult(folder=request.folder, record=record)


def _task(
    request: SegmentRequest,
    plan: SegmentPlan,
    learned: Learned,
    output: SegmentOutputParameters,
    tomogram: PlannedTomogram,
    number: int,
    device: str,
) -> TomogramTask:
    return TomogramTask(
        **tile_work(plan, learned, tomogram, device),
        number=number,
        key=tomogram.key,
        folder=request.folder,
        suffix=f".{output.format}",
        is_half=output.posterior_type == "float16",
        is_every_cluster=output.all_posteriors,
        has_hdf5=output.hdf5,
        attributes=_attributes(request, plan, tomogram, learned) if output.hdf5 else {},
    )


def _tasks(
    request: SegmentRequest,
    plan: SegmentPlan,
    learned: Learned,
    output: SegmentOutputParameters,
    compute: ComputeParameters,
) -> list[Task]:
    model = _digest(learned.workflows)
    tasks = []
    for number, tomogram in enumerate(plan.tomograms):
        if tomogram.key not in learned.levels:
            continue
        device = compute.devices[number % len(compute.devices)]
        payload = _task(request, plan, learned, output, tomogram, number, device)
        parts = (identity_of(tomogram.source.path), model, payload.levels, number)
        tasks.append(Task(key=tomogram.key, identity=" ".join(map(str, parts)), payload=payload))
    return tasks


def _digest(workflows: Sequence[Workflow]) -> str:
    """Name a model by what is in it."""
    total = hashlib.sha256()
    for workflow in workflows:
        segmenter = workflow.segmenter
        for part in (segmenter.features, segmenter.clusters):
            for value in vars(part).values():
                total.update(value.numpy().tobytes() if isinstance(value, Tensor) else b"")
        total.update(repr((workflow.name, workflow.particle_clusters)).encode())
    return total.hexdigest()[:16]


def _attributes(
    request: SegmentRequest, plan: SegmentPlan, tomogram: PlannedTomogram, learned: Learned
) -> dict[str, Any]:
    return {
        "dataset_name": request.dataset_name,
        "tomogram_path": str(tomogram.source.path),
        "tomogram_shape": list(tomogram.shape),
        "voxel_size": [tomogram.voxel_size] * 3,
        "neighborhood_size": plan.side,
        "lower_z-slice_limit": tomogram.source.lower_z,
        "upper_z-slice_limit": tomogram.source.upper_z,
        "max_num_neighborhoods_for_fitting": learned.n_voxels,
        "blur": plan.sigma,
        "seed": request.parameters.seed,
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }


def _record(
    request: SegmentRequest,
    plan: SegmentPlan,
    learned: Learned,
    output: SegmentOutputParameters,
    records: dict[str, Record],
) -> dict[str, Any]:
    tomograms = []
    for tomogram in plan.tomograms:
        record = records.get(tomogram.key)
        error = record.error if record else learned.errors[tomogram.key]
        levels = learned.levels.get(tomogram.key)
        tomograms.append(
            {
                "path": str(tomogram.source.path),
                "key": tomogram.key,
                "shape": list(tomogram.shape),
                "voxel_size": tomogram.voxel_size,
                "fitted_z": [tomogram.lower_z, tomogram.upper_z],
                "levels": vars(levels) if levels else None,
                "error": error,
                **({k: v for k, v in record.summary.items() if k != "files"} if record else {}),
            }
        )
    return {
        "program": "cryopick tomo segment",
        "versions": known_versions(),
        "parameters": {**request.to_dict(), **output.to_dict()},
        "plan": plan.to_dict(),
        "n_voxels_used": learned.n_voxels,
        "unlabelled": 255,
        "workflows": [_workflow_record(w, learned.n_voxels) for w in learned.workflows],
        "tomograms": tomograms,
    }


def _workflow_record(workflow: Workflow, n_voxels: int) -> dict[str, Any]:
    model = workflow.segmenter.features
    return {
        "name": workflow.name,
        "mode": model.mode,
        "method": workflow.method,
        "features_shape": [n_voxels, model.n_features],
        "n_components": len(model.components),
        "variance_kept": round(model.kept, 5),
        "particle_clusters": list(workflow.particle_clusters),
        "clusters": [e.to_dict() for e in workflow.evidence],
    }


def _is_there(folder: Path, tomogram: PlannedTomogram) -> bool:
    return any(folder.glob(f"{tomogram.key}_*_labels.*"))


def _remove_folders(folder: Path) -> None:
    """Remove OME-Zarr volumes that a killed run had not finished."""
    for path in list(find_leftovers(folder)):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
