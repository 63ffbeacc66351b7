"""Train the picking network on labelled particles: check, prepare, train, write.

The folder of the job holds ``model.npz`` (to pick with), ``training.png`` and ``result.json``, with
which the job is finished. Until then it holds ``fields/``, the micrographs as the network sees
them, and ``checkpoint.npz``, from which the same command goes on to the same model.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import DataError, ParameterError, TableError
from cryopick.execution.local import count_cores, require_devices
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import write_json
from cryopick.picking.label_split import split_micrographs
from cryopick.picking.network import PickNetwork
from cryopick.picking.network_field import require_visible
from cryopick.picking.network_fit import FitState, Look, TrainedModel, fit_model
from cryopick.picking.network_parameters import NetworkTrainingParameters
from cryopick.picking.network_training import TrainingProgress
from cryopick.pipeline.extraction_plan import open_coordinates
from cryopick.pipeline.failed_micrographs import write_failed
from cryopick.pipeline.job import Job
from cryopick.pipeline.labelled_fields import (
    LabelledField,
    Labels,
    labels_identity,
    read_beside,
    read_labels,
)
from cryopick.pipeline.network_picker import model_identity
from cryopick.pipeline.pick_models import read_model
from cryopick.pipeline.pick_train_checkpoint import CHECKPOINT, read_fit_state, write_fit_state
from cryopick.pipeline.pick_train_fields import FIELDS, PreparedFields, prepare_fields
from cryopick.pipeline.pick_train_result import CHART, MODEL, PickTraining, write_training
from cryopick.tables.micrographs import micrograph_path, open_micrographs
from cryopick.tables.model import Micrographs, Particles

__all__ = ["train_picker"]

_NAME, _RESULT = "pick train", "result.json"
_REPORTS = 6  # in a training of full length
_HELD_OUT = 20  # labels to validate on, if there are enough for that

ShareCallback = Callable[[str, float, str], None]  # step, share done, note


def train_picker(
    labels: Path,
    folder: Path,
    *,
    parameters: NetworkTrainingParameters,
    micrographs: Sequence[str] = (),
    rejected: Path | None = None,
    unsure: Path | None = None,
    model: Path | None = None,
    compute: ComputeParameters | None = None,
    pixel_size: float | None = None,
    overwrite: bool = False,
    progress: ShareCallback | None = None,
) -> PickTraining:
    """Train a network on labelled particles.

    Parameters
    ----------
    labels
        Particles, or picks of any program: a file or a folder.
    folder
        Where the model goes.
    parameters
        Of the training.
    micrographs
        One STAR file, or paths, folders and globs of images; those that `labels` names if empty.
    rejected
        Particles or picks that were not kept.
    unsure
        Particles or picks that may or may not be particles: nothing is learned there.
    model
        To begin from; the general model if not given.
    compute
        How much of the machine to use; the first device trains.
    pixel_size
        A/px of all micrographs, instead of what their table or headers say.
    overwrite
        Throw away what a job with other parameters left in `folder`.
    progress
        Called with the step, its share done and a note.

    Raises
    ------
    ParameterError
        If options contradict each other, a pixel size is unknown, or a device is not there.
    DataError
        If there are fewer than 50 labels, many lie outside the micrographs, all lie in one
        micrograph, or the particle is larger than a micrograph.
    TableError, FormatError
        If a table or a model is missing, broken or of something else.
    ProjectError, OutputError
        If `folder` holds another job or is in use, or cannot be written.
    """
    folder, compute = Path(folder), compute or ComputeParameters()
    tell = progress or (lambda step, share, note: None)
    require_devices(ComputeParameters(device=compute.device))  # it is trained here
    network, origin = _first_network(model, parameters)
    sources = _read(labels, micrographs, rejected, unsure, pixel_size, parameters)
    job = Job(
        folder,
        name=_NAME,
        parameters={**parameters.to_dict(), "pixel_size": pixel_size, "model": origin},
        inputs=[str(p) for p in (labels, *micrographs, rejected, unsure, model) if p is not None],
        results=(MODEL, CHART, _RESULT, CHECKPOINT, "failed.star"),
        overwrite=overwrite,
    )
    with job:
        before = _finished(folder, sources.identity)
        if before is not None:
            return before
        for name in (MODEL, CHART, _RESULT):  # of other labels
            (folder / name).unlink(missing_ok=True)
        prepared = prepare_fields(
            sources.chosen,
            sources.rejected,
            sources.unsure,
            folder,
            parameters=parameters,
            compute=compute,
            progress=lambda done, total: tell("Preparing", done / total, f"{done} micrographs"),
        )
        split = _split([len(f.particles) for f in prepared.fields], parameters)
        trained = _fit(prepared, split, network, parameters, compute, folder, tell)
        write_training(folder, trained, parameters)
        result = _result(folder, sources, prepared, split, trained)
        write_failed(folder / "failed.star", result.failed)
        write_json(folder / _RESULT, {**result.to_dict(), "identity": sources.identity})
        (folder / CHECKPOINT).unlink(missing_ok=True)
        shutil.rmtree(folder / FIELDS, ignore_errors=True)
    return result


class _Sources(NamedTuple):
    """What is learned from, as it was read."""

    labels: Labels
    chosen: list[LabelledField]
    rejected: list[NDArray[np.float64]] | None  # for each field chosen
    unsure: list[NDArray[np.float64]] | None  # for each field chosen
    failed: dict[str, str]  # micrographs that cannot be opened

    @property
    def identity(self) -> str:
        """Name all that makes the model be trained again when it changes."""
        digest = hashlib.sha256(labels_identity(self.chosen).encode())
        for points in self.rejected or ():
            digest.update(b"rejected")
            digest.update(points.astype("<f8").tobytes())
        for points in self.unsure or ():
            digest.update(b"unsure")
            digest.update(points.astype("<f8").tobytes())
        return digest.hexdigest()[:16]


def _read(
    labels: Path,
    micrographs: Sequence[str],
    rejected: Path | None,
    unsure: Path | None,
    pixel_size: float | None,
    parameters: NetworkTrainingParameters,
) -> _Sources:
    """Read the tables, and refuse what no training can come of."""
    failed: dict[str, str] = {}
    table = _micrographs(micrographs, labels, pixel_size)
    found = read_labels(table, labels, diameter=parameters.diameter, refused=failed)
    chosen = _choose(found.fields, parameters)
    _require_sense(chosen, parameters)
    others = None if rejected is None else read_beside(chosen, rejected)
    maybe = None if unsure is None else read_beside(chosen, unsure)
    return _Sources(found, chosen, others, maybe, failed)


def _result(
    folder: Path,
    sources: _Sources,
    prepared: PreparedFields,
    split: tuple[list[int], list[int]],
    trained: TrainedModel,
) -> PickTraining:
    counts = [len(f.particles) for f in prepared.fields]
    train, held_out = split
    return PickTraining(
        folder=folder,
        average_precision=trained.taken.precision,
        first_average_precision=None if trained.first is None else trained.first.precision,
        threshold=trained.model.threshold,
        n_expected=trained.n_expected / prepared.known_share,
        steps=trained.taken.step,
        n_train=len(train),
        n_train_labels=sum(counts[i] for i in train),
        n_held_out=len(held_out),
        n_held_out_labels=sum(counts[i] for i in held_out),
        n_rejected=prepared.n_rejected,
        n_outside=sources.labels.n_outside,
        n_masked=prepared.n_masked,
        n_unlisted=sources.labels.n_unlisted,
        n_unlabelled=sources.labels.n_unlabelled,
        n_unused=len(sources.labels.fields) - len(sources.chosen),
        edge_band=prepared.edge_band,
        n_repeated=sources.labels.n_repeated,
        history=[_as_record(look) for look in trained.history],
        failed=sources.failed | prepared.failed,
    )


def _first_network(
    model: Path | None, parameters: NetworkTrainingParameters
) -> tuple[PickNetwork, str]:
    """Give the network to begin from, and its name."""
    if not parameters.from_scratch:
        first, _ = read_model(model)
        return first.network, model_identity(first)
    if model is not None:
        raise ParameterError(
            "model",
            must="not be given with --from-scratch, which begins from random weights",
            got=model,
            remedy="Leave out one of the two",
        )
    return PickNetwork(seed=parameters.seed), "random"


def _micrographs(given: Sequence[str], labels: Path, pixel_size: float | None) -> Micrographs:
    """Open the micrographs that were given, else those that the labels name."""
    if given:
        return open_micrographs(given, pixel_size=pixel_size)
    table = open_coordinates(labels)
    rows = table.rows.drop_duplicates("micrograph") if "micrograph" in table.rows else None
    names = [] if rows is None else [str(n) for n in rows["micrograph"]]
    paths = [micrograph_path(n, table.source) for n in names]
    if rows is None or not any(p.is_file() for p in paths):
        raise TableError(
            str(labels),
            must="name micrographs that are there, or come with --micrographs",
            got=names[0] if names else "no micrograph",
            remedy="Give them with --micrographs",
        )
    sizes = table.optics.get("micrograph_pixel_size") if isinstance(table, Particles) else None
    if pixel_size is not None or sizes is None:
        return open_micrographs([str(p) for p in paths], pixel_size=pixel_size)
    assert isinstance(table, Particles)
    return Micrographs(
        rows=rows[["micrograph", "optics_group"]].reset_index(drop=True),
        optics=table.optics.assign(pixel_size=sizes),
        source=table.source,
    )


def _choose(
    fields: Sequence[LabelledField], parameters: NetworkTrainingParameters
) -> list[LabelledField]:
    """Take as many micrographs as are needed, at random."""
    if len(fields) <= parameters.max_micrographs:
        return list(fields)
    order = np.random.default_rng([parameters.seed, 3]).permutation(len(fields))
    return [fields[n] for n in sorted(order[: parameters.max_micrographs].tolist())]


def _require_sense(fields: Sequence[LabelledField], parameters: NetworkTrainingParameters) -> None:
    """Refuse what no training can come of, before anything is written or computed."""
    counts = [len(f.x) for f in fields]
    _split(counts, parameters)
    require_visible(parameters.diameter, pixel_size=max(f.pixel_size for f in fields))
    smallest = min(fields, key=lambda f: min(f.size) * f.pixel_size)
    side = min(smallest.size) * smallest.pixel_size
    if parameters.diameter > side:
        raise DataError(
            str(smallest.path),
            must=f"be larger than the particle, {parameters.diameter:g} A",
            got=f"a side of {side:g} A",
            remedy="Check --diameter and --pixel-size, or leave the micrograph out",
        )
    expected, labelled = parameters.particles_per_micrograph, sum(counts) / len(counts)
    if expected is not None and expected < labelled:
        raise ParameterError(
            "particles_per_micrograph",
            must=f"be at least the {labelled:.4g} that are labelled",
            got=f"{expected:g}",
            remedy="Raise --particles-per-micrograph, or leave it out",
        )


def _split(
    counts: Sequence[int], parameters: NetworkTrainingParameters
) -> tuple[list[int], list[int]]:
    """Choose micrographs to learn from and to validate on."""
    share = max(parameters.validation_share, min(0.5, _HELD_OUT / max(sum(counts), 1)))
    return split_micrographs(counts, test_share=share, seed=parameters.seed)


def _fit(
    prepared: PreparedFields,
    split: tuple[list[int], list[int]],
    network: PickNetwork,
    parameters: NetworkTrainingParameters,
    compute: ComputeParameters,
    folder: Path,
    tell: ShareCallback,
) -> TrainedModel:
    """Train, from the last checkpoint of the same training if there is one."""
    path = folder / CHECKPOINT
    identity = _digest(prepared)
    start = read_fit_state(path, identity=identity)

    def keep(state: FitState) -> None:
        write_fit_state(path, state, identity=identity)

    def report(now: TrainingProgress, precision: float) -> None:
        note = f"average precision {precision:.3f}, loss {now.loss:.3f}"
        tell("Training", now.step / now.steps, note)

    tell("Training", 0.0 if start is None else start.learner.step / parameters.steps, "")
    return fit_model(
        [prepared.fields[i] for i in split[0]],
        [prepared.fields[i] for i in split[1]],
        network=network.to(compute.devices[0]),
        steps=parameters.steps,
        n_expected=_expected(prepared, parameters),
        rejected_weight=parameters.rejected_weight,
        seed=parameters.seed,
        every=max(1, parameters.steps // _REPORTS),
        threads=compute.threads or count_cores(),
        is_trained=not parameters.from_scratch,
        start=start,
        report=report,
        keep=keep,
    )


def _expected(prepared: PreparedFields, parameters: NetworkTrainingParameters) -> float | None:
    """Particles in the known part of a micrograph."""
    given = parameters.particles_per_micrograph
    return None if given is None else given * prepared.known_share


def _digest(prepared: PreparedFields) -> str:
    """Name what is learned from, to the last pixel."""
    digest = hashlib.sha256()
    for field in prepared.fields:
        digest.update(field.image.numpy().tobytes())
        digest.update(field.is_valid.numpy().tobytes())
        digest.update(field.is_known.numpy().tobytes())
        digest.update(field.particles.astype("<f8").tobytes())
        digest.update(field.rejected.astype("<f8").tobytes())
        digest.update(field.ignored.astype("<f8").tobytes())
    return digest.hexdigest()[:16]


def _as_record(look: Look) -> dict[str, float | None]:
    return {
        "step": look.step,
        "loss": look.loss,
        "average_precision": look.precision,
        "success": look.success,
    }


def _finished(folder: Path, identity: str) -> PickTraining | None:
    try:
        stored: dict[str, Any] = json.loads((folder / _RESULT).read_bytes())
        if stored.pop("identity") != identity or not (folder / MODEL).is_file():
            return None
        stored.pop("model")
        return PickTraining(folder=folder, **stored)
    except (OSError, ValueError, TypeError, KeyError):
        return None
