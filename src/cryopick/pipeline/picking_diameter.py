"""The diameter of particles that nobody has said: tried on some micrographs, and shown.

``diameter.json`` and ``diameter.png`` in the folder of the picking job hold what was found. The
same command takes the diameter from there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryopick.errors import CryopickError
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import make_folder, write_json, writing
from cryopick.io.micrograph import read_micrograph, read_micrograph_size
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.diameter import (
    DiameterEstimate,
    DiameterTrial,
    candidate_diameters,
    choose_diameter,
    try_diameter,
)
from cryopick.pipeline.job import ProgressCallback, identity_of
from cryopick.pipeline.pickers import BlobPicker
from cryopick.pipeline.picking_ctf import CtfOfField, ctfs_of_fields, find_ctf
from cryopick.pipeline.picking_ctf_parameters import PickingCtfParameters
from cryopick.tables.micrographs import micrograph_path, open_micrographs, pixel_sizes

__all__ = ["with_diameters"]

_FIELDS = 4  # micrographs that are tried, evenly spread over the list


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """One micrograph to try all diameters on."""

    path: Path
    pixel_size: float
    ctf: CtfOfField
    candidates: tuple[float, ...]
    parameters: BlobParameters


def with_diameters(
    parameters: BlobParameters,
    inputs: Sequence[str],
    folder: Path,
    *,
    ctf: PickingCtfParameters,
    compute: ComputeParameters | None = None,
    pixel_size: float | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[BlobParameters, DiameterEstimate | None]:
    """Fill in the diameters, estimated on four micrographs where the user gave none.

    Parameters
    ----------
    parameters
        Of the picker, with or without diameters.
    inputs, pixel_size
        Micrographs, as `pick_micrographs` takes them.
    folder
        Of the picking job.
    ctf
        Where the CTF of each field comes from.
    compute
        How much of the machine to use.
    progress
        Called with the number of micrographs tried and in all.

    Returns
    -------
    tuple
        Parameters with diameters, and the estimate; None where they were given.

    Raises
    ------
    DataError
        If no diameter explains the micrographs.
    CryopickError
        As opening the inputs raises it.
    """
    if parameters.min_diameter is not None:
        return parameters, None
    folder, compute = Path(folder), compute or ComputeParameters()
    trials = _trials(parameters, inputs, ctf, pixel_size)
    identity = _identity(trials)
    estimate = _read(folder / "diameter.json", identity)
    if estimate is None:
        estimate = _estimate(trials, compute, progress)
        make_folder(folder)
        _write(folder, identity, estimate)
    filled = replace(
        parameters,
        min_diameter=round(estimate.min_diameter, 1),
        max_diameter=round(estimate.max_diameter, 1),
    )
    return filled, estimate


def _trials(
    parameters: BlobParameters,
    inputs: Sequence[str],
    ctf: PickingCtfParameters,
    pixel_size: float | None,
) -> list[_Trial]:
    micrographs = open_micrographs(inputs, pixel_size=pixel_size, **ctf.lens)
    known = ctfs_of_fields(micrographs, ctf)
    names = [str(n) for n in micrographs.rows["micrograph"]]
    sizes = pixel_sizes(micrographs).to_numpy(float)
    count = min(_FIELDS, len(names))
    chosen = [(2 * i + 1) * len(names) // (2 * count) for i in range(count)]
    paths = {i: micrograph_path(names[i], micrographs.source) for i in chosen}
    shapes = {i: read_micrograph_size(path) for i, path in paths.items()}
    sides = [min(shape) * sizes[i] for i, shape in shapes.items()]
    coarsest = max(float(sizes[i]) for i in chosen)
    smallest = int(min(sides) / coarsest)
    candidates = tuple(candidate_diameters((smallest, smallest), coarsest))
    return [
        _Trial(
            path=paths[i],
            pixel_size=float(sizes[i]),
            ctf=known[names[i]],
            candidates=candidates,
            parameters=parameters,
        )
        for i in chosen
    ]


def _identity(trials: Sequence[_Trial]) -> list[Any]:
    """All that the estimate depends on, as JSON gives it back."""
    parts = [
        [str(t.path), identity_of(t.path), t.pixel_size, repr(t.ctf), t.parameters.to_dict()]
        for t in trials
    ]
    return json.loads(json.dumps(parts))  # type: ignore[no-any-return]


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
    micrograph = torch.from_numpy(read_micrograph(trial.path))
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


def _read(path: Path, identity: list[Any]) -> DiameterEstimate | None:
    try:
        stored = json.loads(path.read_bytes())
        if stored["identity"] != identity:
            return None
        return DiameterEstimate(
            diameter=float(stored["diameter"]),
            min_diameter=float(stored["min_diameter"]),
            max_diameter=float(stored["max_diameter"]),
            candidates=np.asarray(stored["candidates"], float),
            gains=np.asarray(stored["gains"], float),
            n_picks=np.asarray(stored["n_picks"], int),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(folder: Path, identity: list[Any], estimate: DiameterEstimate) -> None:
    stored = {
        "diameter": estimate.diameter,
        "min_diameter": estimate.min_diameter,
        "max_diameter": estimate.max_diameter,
        "candidates": estimate.candidates.tolist(),
        "gains": estimate.gains.tolist(),
        "n_picks": estimate.n_picks.tolist(),
        "identity": identity,
    }
    write_json(folder / "diameter.json", stored)
    with contextlib.suppress(Exception):  # no fault of drawing may cost the estimate
        from cryopick.report.diameter_chart import plot_diameter_estimate
        from cryopick.report.figures import figure_to_png

        figure = plot_diameter_estimate(
            estimate.candidates,
            estimate.gains,
            diameter=estimate.diameter,
            limits=(estimate.min_diameter, estimate.max_diameter),
        )
        with writing(folder / "diameter.png") as handle:
            handle.write(figure_to_png(figure))
