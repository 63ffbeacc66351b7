"""One round of a stream: align what has come, average, and write a set that is whole."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from cryopick.class2d.average_sums import AverageSums
from cryopick.class2d.em_workers import ShardWorkers
from cryopick.class2d.stream import StreamClassifier
from cryopick.class2d.stream_parameters import StreamParameters
from cryopick.class2d.stream_state import StreamState
from cryopick.pipeline.class2d_averages import FinalAverages, make_averages
from cryopick.pipeline.class2d_memory import plan_classifier
from cryopick.pipeline.class2d_output import iteration_prefix, write_iteration
from cryopick.pipeline.class2d_parameters import MachineParameters
from cryopick.pipeline.class2d_run import ClassificationProgress, Report
from cryopick.pipeline.class2d_tables import to_classification
from cryopick.pipeline.stream_source import StreamSource
from cryopick.tables.classification import Classification

__all__ = ["References", "StreamRound"]


class References(NamedTuple):
    """Averages that the user gave."""

    images: Tensor  # (K, y, x)
    pixel_size: float  # A/px
    path: Path


class StreamRound:
    """Works on all particles that have come so far.

    Parameters
    ----------
    source
        Their images.
    parameters, compute
        What to do, and with how much of the machine.
    n_classes
        Of the stream.
    progress
        Called with where the round is.
    workers
        Who aligns the images, in the place of threads.

    Raises
    ------
    ParameterError
        If images and classes do not fit in memory, or do not go with the parameters.
    """

    def __init__(
        self,
        source: StreamSource,
        parameters: StreamParameters,
        compute: MachineParameters,
        *,
        n_classes: int,
        progress: Report,
        workers: ShardWorkers | None = None,
    ) -> None:
        self.source, self._parameters, self._compute = source, parameters, compute
        self._progress, self._workers = progress, workers
        self.n_classes = n_classes
        self._engine = parameters.of_engine(
            n_classes=n_classes, box_size=source.box_size, pixel_size=source.pixel_size
        )
        planned = plan_classifier(self._make_classifier, source, compute, n_classes=n_classes)
        self._classifier, self._threads = planned.classifier, planned.n_threads
        self._batch_size = planned.plan.batch_size

    def close(self) -> None:
        """Stop the threads."""
        self._classifier.close()

    def create(self) -> StreamState:
        """Make classes of the first particles."""
        return self._classifier.create(self._reporter("Making classes"))

    def begin(self, references: References) -> StreamState:
        """Assign the first particles to averages that are given."""
        state = self._classifier.begin(references.images, references.pixel_size)
        return self._classifier.extend(state, self._reporter("Assigning"))

    def extend(self, state: StreamState) -> StreamState:
        """Take in the particles that are new since a state; it may be that none is of use."""
        found = self._classifier.extend(state, self._reporter("Classifying"))
        if found is not state:
            return found
        unmoved = np.zeros_like(state.drift)
        return replace(state, round=state.round + 1, drift=unmoved, changes=())

    def subdivide(self, state: StreamState, class_index: int, parts: int) -> StreamState:
        """Part a class, as a round of its own."""
        self.n_classes = max(self.n_classes, len(state.em.shares) + parts - 1)
        report = self._reporter("Parting the class")
        parted = self._classifier.subdivide(state, class_index, parts, report)
        return replace(parted, round=state.round + 1)

    def full_pass(self, state: StreamState) -> StreamState:
        """Classify all particles by EM from a cold start; classes keep the nearest number."""
        found = self._classifier.finish(state, self._reporter("Classifying all once more"))
        return replace(found, round=state.round + 1)

    def average(
        self, state: StreamState, *, before: AverageSums | None = None, first: int = 0
    ) -> FinalAverages:
        """Average all particles; or those from `first` on, added to the sums of the others."""
        return make_averages(
            self.source,
            state.em,
            parameters=self._engine,
            mask_diameter=self._classifier.mask_diameter,
            n_classes=self.n_classes,
            devices=self._compute.devices,
            threads=self._threads,
            batch_size=self._batch_size,
            progress=self._reporter("Averaging"),
            first=first,
            before=before,
            weights=state.weights(self._parameters.forgetting),
        )

    def write(self, folder: Path, state: StreamState, final: FinalAverages) -> Classification:
        """Write RELION's files and the picture of a round.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        em = replace(state.em, iteration=state.round)
        tables = to_classification(
            self.source,
            em,
            final,
            self._engine,
            mask_diameter=self._classifier.mask_diameter,
            noise_unit=self._classifier.noise_unit,
            prefix=iteration_prefix(folder, state.round),
        )
        write_iteration(folder, tables, final, command=" ".join(sys.argv))
        return tables

    def _make_classifier(self, keep_bytes: int) -> StreamClassifier:
        return StreamClassifier(
            self.source,
            self._parameters,
            devices=self._compute.devices,
            threads=self._compute.n_threads,
            keep_bytes=keep_bytes,
            workers=self._workers,
        )

    def _reporter(self, step: str) -> Any:
        def report(done: int, total: int) -> None:
            self._progress(ClassificationProgress(step=step, done=done, total=total))

        return report
