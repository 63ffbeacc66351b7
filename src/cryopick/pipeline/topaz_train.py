"""Train Topaz: check all that can be checked, write what it reads, run it once.

The folder holds ``model.sav`` (the model to pick with), the model and the curve of every epoch,
what Topaz said, and ``result.json``, with which the job is finished. Topaz cannot go on with a
training that was stopped: the same command begins it again.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cryopick.errors import ParameterError
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import make_folder, output_errors, write_json, write_text, writing
from cryopick.picking.topaz_parameters import TopazComputeParameters, TopazTrainParameters
from cryopick.picking.topaz_scale import (
    TopazScale,
    choose_scale,
    disc_pixels,
    effective_particles,
    prior_inflation,
)
from cryopick.picking.topaz_training import best_epoch, epoch_scores, split_micrographs
from cryopick.pipeline.failed_micrographs import write_failed
from cryopick.pipeline.job import Job, ProgressCallback, identity_of
from cryopick.pipeline.topaz_fields import FieldFile, WrittenField, field_name, write_field
from cryopick.pipeline.topaz_labels import LabelledField, Labels, read_labels
from cryopick.pipeline.topaz_program import TopazProgram, TopazRun, find_topaz
from cryopick.tables.micrographs import open_micrographs

__all__ = ["TopazTraining", "train_topaz"]

_EXPECTED = 1.5  # particles for each labelled one, if nobody says
_FIELDS = "fields"  # folder of what Topaz reads; removed at the end
_CURVE = "curve.txt"
_LOG = "topaz.log"
_MODEL = "model.sav"
_RESULT = "result.json"
_COUNTED = re.compile(r"^# \d+\ttrain\t\S+\t(\d+)\t(\d+)$")  # positive regions, all regions


@dataclass(frozen=True, kw_only=True)
class TopazTraining:
    """What came of a training."""

    folder: Path
    epoch: int  # whose model was taken
    auprc: float | None  # of its test; None where Topaz gave none
    n_labels: int
    n_train: int  # micrographs
    n_test: int
    n_outside: int  # labels outside their micrographs, left out
    n_unlisted: int  # micrographs that only the labels name
    labelled: float  # in a training micrograph, on average
    expected: float  # in a micrograph
    told: float  # the number that Topaz was given, with its error made up for
    downscale: int
    pixel_size: float  # A/px of what Topaz saw
    training_radius: int  # px
    version: str
    failed: Mapping[str, str]

    @property
    def model(self) -> Path:
        """The model to pick with."""
        return self.folder / _MODEL

    def to_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        values = {k: v for k, v in self.__dict__.items() if k != "folder"}
        return {"model": str(self.model), **values, "failed": dict(self.failed)}


class _Prepared(NamedTuple):
    """Labels with what was written of their micrographs, in one order."""

    fields: list[LabelledField]
    written: list[WrittenField]
    names: list[str]
    failed: dict[str, str]


class _OtherCountError(Exception):
    """Topaz counts pixels by another factor than was thought."""

    def __init__(self, factor: int) -> None:
        super().__init__(factor)
        self.factor = factor


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
    found = read_labels(micrographs, labels)
    scale = choose_scale(
        diameter=parameters.diameter,
        pixel_size=found.fields[0].pixel_size,
        downscale=parameters.downscale,
    )
    _require_sense(found.fields, scale, parameters)
    program = find_topaz(parameters.executable)
    job = _job(folder, parameters, program, pixel_size, [*inputs, str(labels)], overwrite=overwrite)
    identity = f"{identity_of(labels, *(f.path for f in found.fields))} {found.count}"
    with job:
        before = _finished(Path(folder), identity)
        if before is not None:
            return before
        with _fields_folder(Path(folder)):
            prepared = _prepare(found.fields, Path(folder), scale, parameters, compute)
            training = _Training(Path(folder), found, prepared, scale, parameters, program)
            result = training.run(compute, progress)
        write_failed(Path(folder) / "failed.star", prepared.failed)
        write_json(Path(folder) / _RESULT, {**result.to_dict(), "identity": identity})
    return result


def _counts(fields: Sequence[LabelledField]) -> list[int]:
    return [len(f.x) for f in fields]


def _require_sense(
    fields: Sequence[LabelledField], scale: TopazScale, parameters: TopazTrainParameters
) -> None:
    """Refuse what no training can come of before anything is written or run."""
    counts = _counts(fields)
    train, _ = split_micrographs(counts, test_share=parameters.test_share, seed=parameters.seed)
    shrinking = [scale.pixel_size / fields[i].pixel_size for i in train]
    areas = [math.prod(fields[i].size) / s**2 for i, s in zip(train, shrinking, strict=True)]
    labelled = sum(counts[i] for i in train) / len(train)
    effective_particles(
        expected=_expected(counts, labelled, parameters),
        labelled=labelled,
        radius=scale.training_radius,
        inflation=1,
        pixels=float(np.mean(areas)),
    )


def _expected(counts: Sequence[int], labelled: float, parameters: TopazTrainParameters) -> float:
    """Particles to expect in a micrograph."""
    mean = sum(counts) / len(counts)
    return parameters.particles_per_micrograph or _EXPECTED * max(mean, labelled)


def _job(
    folder: Path,
    parameters: TopazTrainParameters,
    program: TopazProgram,
    pixel_size: float | None,
    inputs: Sequence[str],
    *,
    overwrite: bool,
) -> Job:
    models = [_epoch_file(epoch, parameters.epochs) for epoch in range(1, parameters.epochs + 1)]
    return Job(
        folder,
        name="pick topaz train",
        parameters={
            **parameters.to_dict(),
            "pixel_size": pixel_size,
            "topaz": program.version,
        },
        inputs=inputs,
        results=[_MODEL, _RESULT, _CURVE, _LOG, "failed.star", *models],
        overwrite=overwrite,
        adjustable=("executable",),
    )


def _epoch_file(epoch: int, epochs: int) -> str:
    """Name Topaz's model of an epoch as Topaz does."""
    return f"model_epoch{epoch:0{math.ceil(math.log10(epochs))}d}.sav"


def _finished(folder: Path, identity: str) -> TopazTraining | None:
    try:
        stored = json.loads((folder / _RESULT).read_bytes())
        if stored.pop("identity") != identity or not (folder / _MODEL).is_file():
            return None
        stored.pop("model")
        return TopazTraining(folder=folder, **stored)
    except (OSError, ValueError, TypeError, KeyError):
        return None


@contextlib.contextmanager
def _fields_folder(folder: Path) -> Iterator[None]:
    """Make the folder of what Topaz reads, and remove it at the end."""
    fields = folder / _FIELDS
    shutil.rmtree(fields, ignore_errors=True)
    make_folder(fields)
    try:
        yield
    finally:
        shutil.rmtree(fields, ignore_errors=True)


def _prepare(
    fields: Sequence[LabelledField],
    folder: Path,
    scale: TopazScale,
    parameters: TopazTrainParameters,
    compute: TopazComputeParameters,
) -> _Prepared:
    """Write the labelled micrographs for Topaz; those that are broken are left out."""
    files = [
        FieldFile(
            path=field.path,
            target=folder / _FIELDS / f"{field_name(number)}.mrc",
            pixel_size=field.pixel_size,
            working_pixel_size=scale.pixel_size,
            white_particles=parameters.white_particles,
        )
        for number, field in enumerate(fields, start=1)
    ]
    largest = max(f.size[0] * f.size[1] for f in fields)
    executor = make_executor(
        ComputeParameters(workers=compute.threads), n_items=len(files), bytes_per_item=40 * largest
    )
    written: list[WrittenField | None] = [None] * len(files)
    failed: dict[str, str] = {}
    for outcome in executor.map_unordered(write_field, files):
        written[outcome.index] = outcome.value
        if outcome.error is not None:
            failed[fields[outcome.index].micrograph] = str(outcome.error)
            first = outcome.error
    kept = [n for n, one in enumerate(written) if one is not None]
    if not kept:
        raise first
    return _Prepared(
        [fields[n] for n in kept],
        [one for one in written if one is not None],
        [files[n].target.stem for n in kept],
        failed,
    )


class _Training:
    """One training, all set."""

    def __init__(
        self,
        folder: Path,
        labels: Labels,
        prepared: _Prepared,
        scale: TopazScale,
        parameters: TopazTrainParameters,
        program: TopazProgram,
    ) -> None:
        self.folder, self.labels, self.prepared = folder, labels, prepared
        self.scale, self.parameters, self.program = scale, parameters, program
        self.train, self.test = split_micrographs(
            _counts(prepared.fields), test_share=parameters.test_share, seed=parameters.seed
        )
        self.n_labelled = sum(len(prepared.fields[i].x) for i in self.train)
        self.labelled = self.n_labelled / len(self.train)
        self.expected = _expected(_counts(prepared.fields), self.labelled, parameters)

    def run(
        self, compute: TopazComputeParameters, progress: ProgressCallback | None
    ) -> TopazTraining:
        """Write the lists, run Topaz, and choose the model."""
        factor = prior_inflation(self.program.version, radius=self.scale.training_radius)
        told = self._number(factor)
        self._write_lists()
        with output_errors(self.folder / _LOG):
            (self.folder / _LOG).unlink(missing_ok=True)
        try:
            self._run(told, factor, compute, progress)
        except _OtherCountError as other:  # no version known today, but one that may come
            told = self._number(other.factor)
            self._run(told, other.factor, compute, progress)
        epoch, auprc = self._choose()
        return TopazTraining(
            folder=self.folder,
            epoch=epoch,
            auprc=auprc,
            n_labels=sum(_counts(self.prepared.fields)),
            n_train=len(self.train),
            n_test=len(self.test),
            n_outside=self.labels.n_outside,
            n_unlisted=self.labels.n_unlisted,
            labelled=self.labelled,
            expected=self.expected,
            told=told,
            downscale=self.scale.downscale,
            pixel_size=self.scale.pixel_size,
            training_radius=self.scale.training_radius,
            version=self.program.version,
            failed=self.prepared.failed,
        )

    def _number(self, factor: int) -> float:
        shapes = [self.prepared.written[i].shape for i in self.train]
        arguments = self.parameters.arguments
        return effective_particles(
            expected=self.expected,
            labelled=self.labelled,
            radius=self.scale.training_radius,
            inflation=factor,
            pixels=float(np.mean([height * width for height, width in shapes])),
            is_whole="PU" in arguments or "--method=PU" in arguments,
        )

    def _write_lists(self) -> None:
        fields = self.folder / _FIELDS
        for kind, chosen in (("train", self.train), ("test", self.test)):
            names = [self.prepared.names[i] for i in chosen]
            images = [f"{name}\t{_FIELDS}/{name}.mrc" for name in names]
            write_text(fields / f"{kind}_images.txt", _table("image_name\tpath", images))
            targets = [line for i in chosen for line in self._targets(i)]
            write_text(
                fields / f"{kind}_targets.txt", _table("image_name\tx_coord\ty_coord", targets)
            )

    def _targets(self, index: int) -> list[str]:
        field, written = self.prepared.fields[index], self.prepared.written[index]
        columns = np.rint(field.x / written.scale[1]).clip(0, written.shape[1] - 1).astype(int)
        rows = np.rint(field.y / written.scale[0]).clip(0, written.shape[0] - 1).astype(int)
        name = self.prepared.names[index]
        return [f"{name}\t{x}\t{y}" for x, y in zip(columns, rows, strict=True)]

    def _arguments(self, told: float, device: int) -> list[str]:
        p = self.parameters
        lists = [
            word
            for kind in ("train", "test")
            for what in ("images", "targets")
            for word in (f"--{kind}-{what}", f"{_FIELDS}/{kind}_{what}.txt")
        ]
        return [
            "train",
            *("-n", f"{told:.6g}"),
            *("-r", str(self.scale.training_radius)),
            *("-d", str(device)),
            *("--num-workers", "0"),
            *("--num-epochs", str(p.epochs)),
            *("--epoch-size", str(p.epoch_size)),
            *(("-m", p.model) if p.model else ()),
            *lists,
            *("--save-prefix", "model"),
            *p.arguments,
        ]

    def _run(
        self,
        told: float,
        factor: int,
        compute: TopazComputeParameters,
        progress: ProgressCallback | None,
    ) -> None:
        total = self.parameters.epochs * self.parameters.epoch_size
        count = partial(_require_factor, self, factor)
        run = TopazRun(
            self.program,
            self._arguments(told, compute.number),
            folder=self.folder,
            log=self.folder / _LOG,
            threads=compute.threads,
            needs_gpu=compute.number >= 0,
        )
        with run, output_errors(self.folder / _CURVE), (self.folder / _CURVE).open("w") as curve:
            for line in run.lines():
                words = line.split("\t")
                if len(words) < 4 or line.startswith("#"):
                    count(line)
                    continue
                curve.write(line + "\n")
                curve.flush()
                if words[2] == "train" and words[1].isdecimal() and progress:
                    progress(min(int(words[1]), total), total)
            run.finish()

    def _choose(self) -> tuple[int, float | None]:
        """Take the model of the epoch asked for, else of the best one."""
        epochs = self.parameters.epochs
        with (self.folder / _CURVE).open() as curve:
            scores = epoch_scores(curve)
        epoch = self.parameters.epoch or (best_epoch(scores) if scores else epochs)
        source = self.folder / _epoch_file(epoch, epochs)
        if not source.is_file():
            raise ParameterError(
                "topaz_args",
                must=f"let `topaz train` write {source.name}",
                got="no such file",
                remedy=f"See {self.folder / _LOG} for all it said",
            )
        with writing(self.folder / _MODEL) as target, source.open("rb") as model:
            shutil.copyfileobj(model, target)
        return epoch, scores.get(epoch)


def _require_factor(training: _Training, factor: int, line: str) -> None:
    """Compare how Topaz counts the pixels of the labels with what was thought."""
    counted = _COUNTED.match(line)
    if counted is None:
        return
    area = disc_pixels(training.scale.training_radius)
    found = round(int(counted.group(1)) / (training.n_labelled * area))
    if found >= 1 and found != factor:
        raise _OtherCountError(found)


def _table(header: str, rows: Sequence[str]) -> str:
    return "\n".join([header, *rows]) + "\n"
