"""Train Topaz: check all that can be checked, write what it reads, run it once.

The folder holds ``model.sav`` (the model to pick with), the model and the curve of every epoch,
what Topaz said, and ``result.json``, with which the job is finished. Topaz cannot go on with a
training that was stopped: the same command begins it again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryopick.io.atomic import write_json
from cryopick.picking.label_split import split_micrographs
from cryopick.picking.topaz_parameters import TopazComputeParameters, TopazTrainParameters
from cryopick.picking.topaz_scale import TopazScale, choose_scale, effective_particles
from cryopick.pipeline.failed_micrographs import write_failed
from cryopick.pipeline.job import Job, ProgressCallback
from cryopick.pipeline.labelled_fields import LabelledField, labels_identity, read_labels
from cryopick.pipeline.topaz_program import TopazProgram, find_topaz
from cryopick.pipeline.topaz_train_fields import fields_folder, prepare_labels
from cryopick.pipeline.topaz_train_run import (
    CURVE,
    LOG,
    MODEL,
    TopazTraining,
    TrainingRun,
    count_labels,
    epoch_file,
    expected_particles,
)
from cryopick.tables.micrographs import open_micrographs

__all__ = ["train_topaz"]

_RESULT = "result.json"


def train_topaz(
    inputs: Sequence[str],
    labels: Path,
    folder: Path,
    *,
    parameters: TopazTrainParameters,
    compute: TopazComputeParameters | None = None,
    pixel_size: float | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> TopazTraining:
    """Train a model of Topaz on labelled particles.

    Parameters
    ----------
    inputs
        One STAR file of micrographs; or paths, folders and globs of images.
    labels
        Particles, or picks of any program: a file or a folder.
    folder
        Where the model goes.
    parameters
        Of the training.
    compute
        Device and threads.
    pixel_size
        A/px of all micrographs, instead of what their table or headers say.
    overwrite
        Throw away what a job with other parameters left in `folder`.
    progress
        Called with the number of updates done and in all.

    Raises
    ------
    ProjectError
        If Topaz is missing or fails, or `folder` holds another job or is in use.
    DataError
        If there are fewer than 50 labels, they lie outside the micrographs or in one only.
    ParameterError
        If a radius is below 1 px, or no more particles are expected than are labelled.
    TableError, FormatError
        If a table or a micrograph is missing or broken.
    OutputError
        If `folder` cannot be written.
    """
    compute = compute or TopazComputeParameters()
    micrographs = open_micrographs(inputs, pixel_size=pixel_size)
    found = read_labels(micrographs, labels, diameter=parameters.diameter)
    scale = choose_scale(
        diameter=parameters.diameter,
        pixel_size=max(f.pixel_size for f in found.fields),
        downscale=parameters.downscale,
    )
    _require_sense(found.fields, scale, parameters)
    program = find_topaz(parameters.executable)
    job = _job(folder, parameters, program, pixel_size, [*inputs, str(labels)], overwrite=overwrite)
    identity = labels_identity(found.fields)
    with job:
        before = _finished(Path(folder), identity)
        if before is not None:
            return before
        with fields_folder(Path(folder)):
            prepared = prepare_labels(found.fields, Path(folder), scale, parameters, compute)
            training = TrainingRun(Path(folder), found, prepared, scale, parameters, program)
            result = training.run(compute, progress)
        write_failed(Path(folder) / "failed.star", prepared.failed)
        write_json(Path(folder) / _RESULT, {**result.to_dict(), "identity": identity})
    return result


def _require_sense(
    fields: Sequence[LabelledField], scale: TopazScale, parameters: TopazTrainParameters
) -> None:
    """Refuse what no training can come of before anything is written or run."""
    counts = count_labels(fields)
    train, _ = split_micrographs(counts, test_share=parameters.test_share, seed=parameters.seed)
    shrinking = [scale.pixel_size / fields[i].pixel_size for i in train]
    areas = [math.prod(fields[i].size) / s**2 for i, s in zip(train, shrinking, strict=True)]
    labelled = sum(counts[i] for i in train) / len(train)
    effective_particles(
        expected=expected_particles(counts, labelled, parameters),
        labelled=labelled,
        radius=scale.training_radius,
        inflation=1,
        pixels=float(np.mean(areas)),
    )


def _job(
    folder: Path,
    parameters: TopazTrainParameters,
    program: TopazProgram,
    pixel_size: float | None,
    inputs: Sequence[str],
    *,
    overwrite: bool,
) -> Job:
    models = [epoch_file(epoch, parameters.epochs) for epoch in range(1, parameters.epochs + 1)]
    return Job(
        folder,
        name="pick topaz train",
        parameters={
            **parameters.to_dict(),
            "pixel_size": pixel_size,
            "topaz": program.version,
        },
        inputs=inputs,
        results=[MODEL, _RESULT, CURVE, LOG, "failed.star", *models],
        overwrite=overwrite,
        adjustable=("executable",),
    )


def _finished(folder: Path, identity: str) -> TopazTraining | None:
    try:
        stored = json.loads((folder / _RESULT).read_bytes())
        if stored.pop("identity") != identity or not (folder / MODEL).is_file():
            return None
        stored.pop("model")
        return TopazTraining(folder=folder, **stored)
    except (OSError, ValueError, TypeError, KeyError):
        return None
