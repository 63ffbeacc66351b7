"""One training of Topaz: the number it is told, its process, and the model that is taken."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import ProjectError
from cryopick.io.atomic import output_errors, writing
from cryopick.picking.label_split import split_micrographs
from cryopick.picking.topaz_parameters import TopazComputeParameters, TopazTrainParameters
from cryopick.picking.topaz_scale import (
    TopazScale,
    disc_pixels,
    effective_particles,
    prior_inflation,
)
from cryopick.picking.topaz_training import best_epoch, epoch_scores
from cryopick.pipeline.job import ProgressCallback
from cryopick.pipeline.labelled_fields import LabelledField, Labels
from cryopick.pipeline.topaz_program import TopazProgram, TopazRun
from cryopick.pipeline.topaz_train_fields import FIELDS, PreparedLabels, write_lists

__all__ = [
    "CURVE",
    "LOG",
    "MODEL",
    "TopazTraining",
    "TrainingRun",
    "count_labels",
    "epoch_file",
    "expected_particles",
]

CURVE = "curve.txt"
LOG = "topaz.log"
MODEL = "model.sav"
_EXPECTED = 1.5  # particles for each labelled one, if nobody says
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
        return self.folder / MODEL

    def to_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        values = {k: v for k, v in self.__dict__.items() if k != "folder"}
        return {"model": str(self.model), **values, "failed": dict(self.failed)}


class _OtherCountError(Exception):
    """Topaz counts pixels by another factor than was thought."""

    def __init__(self, factor: int) -> None:
        super().__init__(factor)
        self.factor = factor


def count_labels(fields: Sequence[LabelledField]) -> list[int]:
    """Labels in each field."""
    return [len(f.x) for f in fields]


def expected_particles(
    counts: Sequence[int], labelled: float, parameters: TopazTrainParameters
) -> float:
    """Particles to expect in a micrograph: as given, or 1.5 times the labelled ones."""
    mean = sum(counts) / len(counts)
    return parameters.particles_per_micrograph or _EXPECTED * max(mean, labelled)


def epoch_file(epoch: int, epochs: int) -> str:
    """Name Topaz's model of an epoch as Topaz does."""
    return f"model_epoch{epoch:0{math.ceil(math.log10(epochs))}d}.sav"


class TrainingRun:
    """One training, all set.

    Parameters
    ----------
    folder
        Of the job, in which Topaz runs.
    labels
        As they were read.
    prepared
        What was written of them.
    scale, parameters, program
        How micrographs are shrunk, how Topaz trains, and which it is.
    """

    def __init__(
        self,
        folder: Path,
        labels: Labels,
        prepared: PreparedLabels,
        scale: TopazScale,
        parameters: TopazTrainParameters,
        program: TopazProgram,
    ) -> None:
        self.folder, self.labels, self.prepared = folder, labels, prepared
        self.scale, self.parameters, self.program = scale, parameters, program
        self.train, self.test = split_micrographs(
            count_labels(prepared.fields), test_share=parameters.test_share, seed=parameters.seed
        )
        self.n_labelled = sum(len(prepared.fields[i].x) for i in self.train)
        self.labelled = self.n_labelled / len(self.train)
        self.expected = expected_particles(count_labels(prepared.fields), self.labelled, parameters)

    def run(
        self, compute: TopazComputeParameters, progress: ProgressCallback | None
    ) -> TopazTraining:
        """Write the lists, run Topaz, and choose the model.

        Raises
        ------
        ProjectError
            If Topaz fails or writes no model.
        ParameterError
            If no more particles are expected than are labelled.
        """
        factor = prior_inflation(self.program.version, radius=self.scale.training_radius)
        told = self._number(factor)
        write_lists(self.prepared, self.folder, {"train": self.train, "test": self.test})
        self._forget()
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
            n_labels=sum(count_labels(self.prepared.fields)),
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

    def _forget(self) -> None:
        """Remove what a training that was stopped left, so that nothing old is taken for new."""
        epochs = self.parameters.epochs
        models = [epoch_file(epoch, epochs) for epoch in range(1, epochs + 1)]
        for name in (LOG, CURVE, MODEL, *models):
            with output_errors(self.folder / name):
                (self.folder / name).unlink(missing_ok=True)

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

    def _arguments(self, told: float, device: int) -> list[str]:
        p = self.parameters
        lists = [
            word
            for kind in ("train", "test")
            for what in ("images", "targets")
            for word in (f"--{kind}-{what}", f"{FIELDS}/{kind}_{what}.txt")
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
            log=self.folder / LOG,
            threads=compute.threads,
            needs_gpu=compute.number >= 0,
        )
        with run, output_errors(self.folder / CURVE), (self.folder / CURVE).open("w") as curve:
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
        with (self.folder / CURVE).open() as curve:
            scores = epoch_scores(curve)
        epoch = self.parameters.epoch or (best_epoch(scores) if scores else epochs)
        source = self.folder / epoch_file(epoch, epochs)
        if not source.is_file():
            raise ProjectError(
                "`topaz train`",
                must=f"write {source.name}",
                got="no such file",
                remedy=f"See {self.folder / LOG} for all it said",
            )
        with writing(self.folder / MODEL) as target, source.open("rb") as model:
            shutil.copyfileobj(model, target)
        return epoch, scores.get(epoch)


def _require_factor(training: TrainingRun, factor: int, line: str) -> None:
    """Compare how Topaz counts the pixels of the labels with what was thought."""
    counted = _COUNTED.match(line)
    if counted is None:
        return
    area = disc_pixels(training.scale.training_radius)
    found = round(int(counted.group(1)) / (training.n_labelled * area))
    if found >= 1 and found != factor:
        raise _OtherCountError(found)
