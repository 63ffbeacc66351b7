"""One run of a 2D classification: memory, iterations, checkpoints, averages, files."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from cryopick.class2d.em import EmClassifier
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.em_state import EmState
from cryopick.io.atomic import write_json
from cryopick.pipeline.class2d_averages import make_averages
from cryopick.pipeline.class2d_checkpoint import Checkpoints
from cryopick.pipeline.class2d_memory import plan_classifier
from cryopick.pipeline.class2d_output import (
    GALLERY,
    iteration_files,
    iteration_prefix,
    write_iteration,
)
from cryopick.pipeline.class2d_parameters import ClassificationRunParameters
from cryopick.pipeline.class2d_place import open_place
from cryopick.pipeline.class2d_references import read_references
from cryopick.pipeline.class2d_source import ParticleSource, poses_of_table
from cryopick.pipeline.class2d_tables import to_classification
from cryopick.pipeline.job import Job

__all__ = ["RESULT", "ClassificationProgress", "ClassificationRun", "Report", "Tell"]

RESULT = "result.json"
_TOLD = {
    "class_number": "number",
    "particle_count": "n_particles",
    "soft_count": "soft_count",
    "estimated_resolution": "resolution",
    "accuracy_rotations": "accuracy_rotations",
    "accuracy_translations": "accuracy_translations",
    "entropy": "entropy",
}


@dataclass(frozen=True, kw_only=True)
class ClassificationProgress:
    """How far a run is."""

    step: str  # what is being done
    done: int  # images
    total: int
    iteration: int = 0  # finished
    n_iterations: int = 0
    resolution: float | None = None  # A, of the last iteration
    changed_class: float | None = None  # share of its particles


Report = Callable[[ClassificationProgress], None]
Tell = Callable[[str], None]


class ClassificationRun:
    """A run over images that are open; memory is planned as it is made.

    Parameters
    ----------
    source
        The images.
    parameters, compute
        What to do, and with how much of the machine.
    out
        Folder of the job.
    progress, tell
        Called with where the run is, and with sentences for the user.

    Raises
    ------
    ParameterError
        If the images and classes do not fit in memory, or do not go with the parameters.
    ProjectError
        If the images are to be aligned by a cluster that is not there.
    """

    def __init__(
        self,
        source: ParticleSource,
        parameters: ClassificationParameters,
        compute: ClassificationRunParameters,
        out: Path,
        progress: Report,
        tell: Tell,
    ) -> None:
        self._source, self._parameters, self._compute = source, parameters, compute
        self._out, self._progress = out, progress
        with contextlib.ExitStack() as stack:
            self._place = stack.enter_context(open_place(compute, out))
            planned = plan_classifier(
                self._make_classifier, source, compute, n_classes=parameters.n_classes
            )
            self._classifier, plan = planned.classifier, planned.plan
            stack.callback(self._classifier.close)
            self._opened = stack.pop_all()
        self._batch_size, self._averaging_threads = plan.batch_size, planned.n_threads
        tell(str(plan))

    def close(self) -> None:
        """Stop the threads, or leave the cluster."""
        self._opened.close()

    def go(
        self,
        job: Job,
        state: EmState | None,
        references: Path | None,
        *,
        warnings: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Do the iterations that are left, and write the files.

        Parameters
        ----------
        job
            The open job; it learns of the files.
        state
            To go on from; None begins.
        references
            Averages to begin from.
        warnings
            What the user was warned of, for the record.

        Returns
        -------
        dict
            What was found, ready for JSON; also in ``result.json``.
        """
        started = time.monotonic()
        checkpoints = Checkpoints(self._out, n_iterations=self._parameters.iterations)
        if state is None:
            state = self._classifier.start(self._references(references))
        try:
            while not state.is_finished:
                state = self._classifier.advance(state, self._reporter(state))
                checkpoints.offer(state)
                every = self._compute.write_every
                if every and not state.is_finished and state.iteration % every == 0:
                    job.results += iteration_files(state.iteration)
                    self._write(state)
        finally:
            checkpoints.flush()
        self._classifier.close()  # before the result counts: what workers read goes with it
        job.results += iteration_files(state.iteration)
        values = self._write(state)
        values["warnings"] = list(warnings)
        values["seconds"] = round(time.monotonic() - started, 1)
        values["files"] = [n for n in dict.fromkeys(job.results) if n != RESULT]
        job.results[:] = list(dict.fromkeys(job.results))
        write_json(self._out / RESULT, values)
        return values

    def _make_classifier(self, keep_bytes: int) -> EmClassifier:
        return EmClassifier(
            self._source,
            self._parameters,
            devices=self._compute.devices,
            threads=self._compute.n_threads,
            poses=poses_of_table(self._source, aligns=self._parameters.align),
            keep_bytes=keep_bytes,
            workers=self._place.workers(self._source),
        )

    def _references(self, path: Path | None) -> Tensor | None:
        if path is None:
            return None
        return read_references(
            path,
            n_classes=self._parameters.n_classes,
            box_size=self._source.box_size,
            pixel_size=self._source.pixel_size,
        )

    def _reporter(self, state: EmState) -> Callable[[int, int], None]:
        known = state.iteration > 0

        def report(done: int, total: int) -> None:
            self._progress(
                ClassificationProgress(
                    step="Classifying",
                    done=done,
                    total=total,
                    iteration=state.iteration,
                    n_iterations=self._parameters.iterations,
                    resolution=state.resolution if known else None,
                    changed_class=state.changes[0] if known else None,
                )
            )

        return report

    def _write(self, state: EmState) -> dict[str, Any]:
        """Make the averages of a state and write its files; returns what is known of it."""
        parameters, mask_diameter = self._parameters, self._classifier.mask_diameter
        final = make_averages(
            self._source,
            state,
            parameters=parameters,
            mask_diameter=mask_diameter,
            n_classes=parameters.n_classes,
            devices=self._compute.devices,
            threads=self._averaging_threads,
            batch_size=self._batch_size,
            progress=lambda done, total: self._progress(
                ClassificationProgress(step="Averaging", done=done, total=total)
            ),
        )
        tables = to_classification(
            self._source,
            state,
            final,
            parameters,
            mask_diameter=mask_diameter,
            noise_unit=float(self._classifier.geometry.cut_size) ** 2,
            prefix=iteration_prefix(self._out, state.iteration),
        )
        write_iteration(self._out, tables, final, command=" ".join(sys.argv))
        return self._values(state, tables.classes)

    def _values(self, state: EmState, classes: pd.DataFrame) -> dict[str, Any]:
        prefix = iteration_prefix(self._out, state.iteration)
        rows = classes[list(_TOLD)].rename(columns=_TOLD)
        rows = rows.sort_values("n_particles", ascending=False, kind="stable")
        poses = state.poses
        return {
            "particles": f"{prefix}_data.star",
            "averages": f"{prefix}_classes.mrcs",
            "gallery": str(self._out / GALLERY),
            "n_particles": len(self._source),
            "n_left_out": len(self._source.images) - len(self._source),
            "n_classes": len(rows),
            "n_occupied": int((rows["n_particles"] > 0).sum()),
            "n_junk": int((poses.junk_probability > 0.5).sum()) if self._parameters.junk else 0,
            "iteration": state.iteration,
            "n_iterations": self._parameters.iterations,
            "resolution": round(state.resolution, 3),
            "changed_class": round(state.changes[0], 5),
            "mean_max_probability": round(float(poses.max_probability.mean()), 4),
            "classes": [{k: _plain(v) for k, v in row.items()} for row in rows.to_dict("records")],
        }


def _plain(value: Any) -> int | float | None:
    """Make a number as JSON takes it; what is not known is None."""
    if isinstance(value, int):
        return value
    return round(float(value), 4) if np.isfinite(value) else None
