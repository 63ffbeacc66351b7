"""Learn one model of all tomograms: from a sample, then from as many voxels as are asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from cryopick.errors import CryopickError
from cryopick.execution.local import count_cores
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.volumes import open_volume
from cryopick.pipeline.tomo_segment_plan import PILOT, PlannedTomogram, SegmentPlan
from cryopick.pipeline.tomo_segment_request import SegmentRequest
from cryopick.pipeline.tomo_segment_tiles import TileWork, collect_tomogram
from cryopick.tomogram.clustering import Method
from cryopick.tomogram.clustering_cells import Cells, merge_cells
from cryopick.tomogram.segment_fit import Workflow, fit_workflows, refine_workflows
from cryopick.tomogram.segment_levels import Levels, find_levels, scale_levels
from cryopick.tomogram.segment_sample import FitRegion, draw_neighbourhoods

__all__ = ["Learned", "learn_workflows", "tile_work"]


@dataclass(frozen=True, kw_only=True)
class Learned:
    """The model of the data set."""

    workflows: list[Workflow]
    levels: dict[str, Levels]  # by key
    errors: dict[str, str]  # of tomograms that nothing could be learned from
    n_voxels: int


def learn_workflows(
    request: SegmentRequest, plan: SegmentPlan, compute: ComputeParameters
) -> Learned:
    """Fit the models; in one thread, so that they do not depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        patches, levels, errors = _sample(request, plan)
        methods = [cast("Method", m) for m in request.methods]
        workflows = fit_workflows(
            patches,
            request.features,
            methods,
            request.parameters,
            n_independent=len(patches) / _correlated(plan),
        )
    finally:
        torch.set_num_threads(threads)
    learned = Learned(workflows=workflows, levels=levels, errors=errors, n_voxels=len(patches))
    if plan.n_voxels > PILOT:
        torch.set_num_threads(compute.threads or count_cores())
        learned = _refine(request, plan, learned, patches, compute.devices[0])
    return learned


def _correlated(plan: SegmentPlan) -> float:
    """Voxels that the smoothing makes one, if they were all sampled."""
    volume = float((8 * torch.pi**1.5) * max(plan.sigma, 0.3) ** 3)
    density = min(plan.n_voxels, PILOT) / sum(t.size for t in plan.tomograms)
    return max(1.0, volume * density)


def _sample(
    request: SegmentRequest, plan: SegmentPlan
) -> tuple[Tensor, dict[str, Levels], dict[str, str]]:
    """Draw neighbourhoods of every tomogram and put each on the scale of its noise."""
    regions = [_region(t, plan) for t in plan.tomograms]
    total = sum(r.size for r in regions)
    drawn: list[Tensor] = []
    levels: dict[str, Levels] = {}
    errors: dict[str, str] = {}
    first: CryopickError | None = None
    for number, (tomogram, region) in enumerate(zip(plan.tomograms, regions, strict=True)):
        volume = open_volume(tomogram.source.path, voxel_size=tomogram.voxel_size)
        wanted = max(1, round(min(plan.n_voxels, PILOT) * region.size / total))
        seed = request.parameters.seed * 1_000_003 + number
        try:
            raw = draw_neighbourhoods(
                volume.read, region, sigma=plan.sigma, number=wanted, seed=seed
            )
            middle = raw[:, raw.shape[1] // 2].numpy()
            levels[tomogram.key] = find_levels(
                middle, name=str(tomogram.source.path), is_white=request.parameters.white
            )
        except CryopickError as error:
            errors[tomogram.key] = str(error)
            first = first or error
            continue
        drawn.append(scale_levels(raw, levels[tomogram.key]))
    if not drawn and first is not None:
        raise first
    return torch.cat(drawn), levels, errors


def _region(tomogram: PlannedTomogram, plan: SegmentPlan) -> FitRegion:
    return FitRegion(tomogram.shape, tomogram.lower_z, tomogram.upper_z, plan.side)


def _refine(
    request: SegmentRequest, plan: SegmentPlan, learned: Learned, patches: Tensor, device: str
) -> Learned:
    """Pass once over all voxels asked for, which are more than are held in memory."""
    good = [t for t in plan.tomograms if t.key in learned.levels]
    regions = [_region(t, plan) for t in good]
    total = sum(r.size for r in regions)
    cells: list[Cells] = []
    for number, (tomogram, region) in enumerate(zip(good, regions, strict=True)):
        work = TileWork(**tile_work(plan, learned, tomogram, device))
        wanted = plan.n_voxels * region.size / total
        seed = request.parameters.seed * 1_000_003 + number
        found = collect_tomogram(work, region, number=wanted, seed=seed)
        cells = [merge_cells(a, b) for a, b in zip(cells, found, strict=True)] if cells else found
    workflows = refine_workflows(learned.workflows, cells, patches, request.parameters)
    return replace(learned, workflows=workflows, n_voxels=cells[0].n_vectors)


def tile_work(
    plan: SegmentPlan, learned: Learned, tomogram: PlannedTomogram, device: str
) -> dict[str, Any]:
    """Fields of a `TileWork` on a tomogram."""
    return {
        "path": tomogram.source.path,
        "voxel_size": tomogram.voxel_size,
        "sigma": plan.sigma,
        "side": plan.side,
        "levels": learned.levels[tomogram.key],
        "workflows": tuple(learned.workflows),
        "block_voxels": plan.block_voxels,
        "device": device,
    }
