"""The diameter of particles that nobody has said: tried on some micrographs.

A job that has estimated once keeps its diameters: the same command with more micrographs goes on
with them. ``diameter.json`` and ``diameter.png`` in the folder of the job show what was found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cryopick.errors import CryopickError
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.micrograph import read_micrograph, read_micrograph_size
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.diameter import (
    DiameterEstimate,
    DiameterTrial,
    candidate_diameters,
    choose_diameter,
    try_diameter,
)
from cryopick.pipeline.diameter_files import write_diameter
from cryopick.pipeline.job import ProgressCallback
from cryopick.pipeline.pickers import BlobPicker
from cryopick.pipeline.picking import picking_job
from cryopick.pipeline.picking_ctf import CtfOfField, ctfs_of_fields, find_ctf
from cryopick.pipeline.picking_ctf_parameters import PickingCtfParameters
from cryopick.tables.micrographs import micrograph_path, open_micrographs, pixel_sizes
from cryopick.tables.model import Micrographs

__all__ = ["blob_picker", "estimate_diameter"]

_FIELDS = 4  # micrographs that are tried, evenly spread over the list
_ESTIMATED = ("min_diameter", "max_diameter")


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """One micrograph to try all diameters on."""

    path: Path
    pixel_size: float
    ctf: CtfOfField
    candidates: tuple[float, ...]
    parameters: BlobParameters
    device: str


def blob_picker(
    parameters: BlobParameters,
    inputs: Sequence[str],
    folder: Path,
    *,
    ctf: PickingCtfParameters,
    compute: ComputeParameters | None = None,
    pixel_size: float | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> BlobPicker:
    """Make the picker, with diameters estimated on four micrographs where the user gave none.

    Parameters
    ----------
    parameters
        Of the picker, with or without diameters.
    inputs, pixel_size, overwrite
        As `pick_micrographs` takes them.
    folder
        Of the picking job. The diameters of an unfinished or finished job there are kept.
    ctf
        Where the CTF of each field comes from.
    compute
        How much of the machine to use.
    progress
        Called with the number of micrographs tried and in all.

    Raises
    ------
    DataError
        If no diameter explains the micrographs.
    ProjectError
        If `folder` holds another job.
    CryopickError
        As opening the inputs raises it; a micrograph that cannot be read is passed over, unless
        none can be read.
    """
    if parameters.min_diameter is not None:
        return BlobPicker(parameters=parameters)
    compute = compute or ComputeParameters()
    micrographs = open_micrographs(inputs, pixel_size=pixel_size, **ctf.lens)
    job = picking_job(
        Path(folder),
        picker=BlobPicker(parameters=parameters),
        ctf=ctf,
        pixel_size=pixel_size,
        inputs=inputs,
        has_table=micrographs.source is not None,
        overwrite=overwrite,
        adjustable=_ESTIMATED,
    )
    stored = job.stored_parameters() or {}
    if stored.get("min_diameter") and stored.get("max_diameter"):
        return BlobPicker(parameters=replace(parameters, **{n: stored[n] for n in _ESTIMATED}))
    estimate = _estimate(_trials(micrographs, parameters, ctf, compute.devices), compute, progress)
    filled = replace(
        parameters,
        min_diameter=round(estimate.min_diameter, 1),
        max_diameter=round(estimate.max_diameter, 1),
    )
    return BlobPicker(parameters=filled, estimate=estimate)


def estimate_diameter(
    inputs: Sequence[str],
    folder: Path,
    *,
    parameters: BlobParameters,
    ctf: PickingCtfParameters,
    compute: ComputeParameters | None = None,
    progress: ProgressCallback | None = None,
) -> DiameterEstimate:
    """Estimate the diameter on four micrographs, spread over the list, and write what was found.

    Parameters
    ----------
    inputs
        One STAR file of micrographs; or paths, folders and globs of images.
    folder
        For ``diameter.json`` and ``diameter.png``.
    parameters
        Of the picker that tries diameters; its own do not count.
    ctf
        Where the CTF of each field comes from.
    compute
        How much of the machine to use.
    progress
        Called with the number of micrographs tried and in all.

    Raises
    ------
    DataError
        If no diameter explains the micrographs.
    CryopickError
        As opening the inputs raises it; a micrograph that cannot be read is passed over, unless
        none can be read.
    """
    compute = compute or ComputeParameters()
    micrographs = open_micrographs(inputs, **ctf.lens)
    estimate = _estimate(_trials(micrographs, parameters, ctf, compute.devices), compute, progress)
    write_diameter(folder, estimate)
    return estimate


def _trials(
    micrographs: Micrographs,
    parameters: BlobParameters,
    ctf: PickingCtfParameters,
    devices: Sequence[str],
) -> list[_Trial]:
    known = ctfs_of_fields(micrographs, ctf)
    names = [str(n) for n in micrographs.rows["micrograph"]]
    sizes = pixel_sizes(micrographs).to_numpy(float)
    chosen = _readable([micrograph_path(n, micrographs.source) for n in names])
    coarsest = max(float(sizes[i]) for i in chosen)
    smallest = int(min(min(shape) * sizes[i] for i, (_, shape) in chosen.items()) / coarsest)
    candidates = tuple(candidate_diameters((smallest, smallest), coarsest))
    return [
        _Trial(
            path=path,
            pixel_size=float(sizes[i]),
            ctf=known[names[i]],
            candidates=candidates,
            parameters=parameters,
            device=devices[turn % len(devices)],
        )
        for turn, (i, (path, _)) in enumerate(chosen.items())
    ]


def _readable(paths: Sequence[Path]) -> dict[int, tuple[Path, tuple[int, int]]]:
    """Choose micrographs evenly spread over the list whose header can be read, with their size."""
    count = min(_FIELDS, len(paths))
    first = [(2 * i + 1) * len(paths) // (2 * count) for i in range(count)]
    found: dict[int, tuple[Path, tuple[int, int]]] = {}
    refused: CryopickError | None = None
    for place in dict.fromkeys([*first, *range(len(paths))]):
        try:
            found[place] = (paths[place], read_micrograph_size(paths[place]))
        except CryopickError as error:
            refused = error
        if len(found) == count:
            break
    if not found and refused is not None:
        raise refused
    return found


def _estimate(
    trials: Sequence[_Trial], compute: ComputeParameters, progress: ProgressCallback | None
) -> DiameterEstimate:
    worst = max(_bytes(t) for t in trials)
    executor = make_executor(compute, n_items=len(trials), bytes_per_item=worst)
    found: list[list[DiameterTrial]] = []
    refused: list[CryopickError] = []
    if progress:
        progress(0, len(trials))
    with contextlib.closing(executor.map_unordered(_try, list(trials))) as outcomes:
        for outcome in outcomes:
            if outcome.error is not None:
                refused.append(outcome.error)
            elif outcome.value is not None:
                found.append(outcome.value)
            if progress:
                progress(len(found) + len(refused), len(trials))
    if not found and refused:
        raise refused[0]
    return choose_diameter(trials[0].candidates, found)


def _bytes(trial: _Trial) -> int:
    smallest = trial.candidates[0]
    parameters = replace(trial.parameters, min_diameter=smallest, max_diameter=smallest)
    side = max(read_micrograph_size(trial.path))
    return BlobPicker(parameters=parameters).field_bytes(side, trial.pixel_size)


def _try(trial: _Trial) -> list[DiameterTrial]:
    micrograph = torch.from_numpy(read_micrograph(trial.path)).to(trial.device)
    ctf = find_ctf(micrograph, trial.ctf, pixel_size=trial.pixel_size).ctf
    return [
        try_diameter(
            micrograph,
            diameter,
            pixel_size=trial.pixel_size,
            parameters=trial.parameters,
            ctf=ctf,
        )
        for diameter in trial.candidates
    ]
