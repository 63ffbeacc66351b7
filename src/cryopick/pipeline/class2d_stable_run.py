"""One run of a stable classification: images, steps, states on disk, files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.class2d.stable import StableClassifier
from cryopick.class2d.stable_images import prepare_images
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_refine import ITERATIONS
from cryopick.class2d.stable_state import StableState
from cryopick.class2d.stable_workers import Run
from cryopick.io.atomic import write_json
from cryopick.pipeline.class2d_place import open_place
from cryopick.pipeline.class2d_source import ParticleSource
from cryopick.pipeline.class2d_stable_checkpoint import (
    StateKeeper,
    finished_mains,
    has_main_state,
    read_last_state,
    read_main_state,
    remove_beyond,
    write_main_state,
)
from cryopick.pipeline.class2d_stable_output import REPORT, write_outcome
from cryopick.pipeline.class2d_stable_parameters import StableRunParameters
from cryopick.pipeline.class2d_stable_source import filament_angles
from cryopick.pipeline.class2d_stable_sphire import write_generation, write_prealignment
from cryopick.pipeline.class2d_stable_tables import Outcome
from cryopick.pipeline.job import Job

__all__ = ["RESULT", "Report", "StableRun"]

RESULT = "result.json"
Report = Callable[[str, float, str], None]  # step, share done from 0 to 1, note
_FIRST_ITERATIONS = 20  # about so many make the first classes of a partition
_LAST_PASSES = 3  # of a partition beside its rounds, until one partition has shown how many


class StableRun:
    """A run over images that are open; they are resized as it is made.

    Parameters
    ----------
    source
        The images.
    parameters, compute
        What to do, and with how much of the machine.
    out
        Folder of the job.
    report
        Called with where the run is.

    Raises
    ------
    CryopickError
        If the images do not go with the parameters, or are to be aligned by a cluster that is not
        there.
    """

    def __init__(
        self,
        source: ParticleSource,
        parameters: StableParameters,
        compute: StableRunParameters,
        out: Path,
        report: Report,
    ) -> None:
        self._source, self._parameters, self._compute = source, parameters, compute
        self._out, self._report = Path(out), report
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(open_place(compute, self._out))
            run = place.run()
            if run is not None:
                stack.callback(run.close)
            self._classifier = self._make_classifier(run)
            stack.callback(self._classifier.close)
            self._opened = stack.pop_all()
        self._shrink = self._classifier.images.shrink
        self._keeper = StateKeeper(self._out)
        self._passes = parameters.init_iter + _LAST_PASSES

    def close(self) -> None:
        """Stop the threads, or leave the cluster."""
        self._opened.close()

    def go(self, job: Job, *, warnings: Sequence[str] = ()) -> dict[str, Any]:
        """Do what is left, and write the files.

        Parameters
        ----------
        job
            The open job; it learns of the files.
        warnings
            What the user was warned of, for the record.

        Returns
        -------
        dict
            What was found, ready for JSON; also in ``result.json``.
        """
        started = time.monotonic()
        state = self._state()
        if state is not None:
            remove_beyond(self._out, state)
        try:
            state = self._advance(state)
            self._keeper.flush()
            outcome = self._outcome(self._refined(state))
        finally:
            self._keeper.flush()
        self._classifier.close()  # before the result counts: what workers read goes with it
        write_prealignment(self._out, outcome)
        written = write_outcome(
            self._out, outcome, self._compute,
            progress=lambda done, total: self._report("Averaging", done / total, ""),
        )  # fmt: skip
        job.results += [name for name in written.files if name not in job.results]
        values = self._values(outcome) | {
            "classes": written.classes,
            "files": written.files,
            "warnings": list(warnings),
            "seconds": round(time.monotonic() - started, 1),
        }
        write_json(self._out / RESULT, values)
        return values

    def _make_classifier(self, run: Run | None) -> StableClassifier:
        source, parameters, compute = self._source, self._parameters, self._compute
        angles = filament_angles(source, parameters)
        images = prepare_images(
            source, parameters, filament_angle=angles,
            progress=lambda done, total: self._report("Resizing images", done / total, ""),
        )  # fmt: skip
        # the limit of main iterations is kept here, so that a run can go on to a higher one
        return StableClassifier(
            source, replace(parameters, main_iter_limit=-1), filament_angle=angles,
            threads=compute.n_threads, device=compute.devices[0], images=images, run=run,
        )  # fmt: skip

    def _state(self) -> StableState | None:
        """State to go on from, as `restart` says; None begins."""
        restart = self._compute.restart
        if restart < 0:
            return read_last_state(self._out)
        if restart == 0:
            done = finished_mains(self._out)
            last = read_last_state(self._out)
            if done == 0 and (last is None or last.phase == "prealignment"):
                return last
            return read_main_state(self._out, done)
        return read_main_state(self._out, restart)

    def _advance(self, state: StableState | None) -> StableState:
        """Go to the end, or to the end of the last main iteration that is wanted."""
        before: StableState | None = None
        for now in self._classifier.run(state):
            if before is None and state is not None:
                self._keeper.offer(now)
                self._keeper.flush()
            self._keep(before, now)
            before = now
            if self._is_over(now):
                break
            self._tell(now)
        assert before is not None
        return before

    def _refined(self, state: StableState) -> StableState:
        """Refine the accepted classes; states on the way are kept as those of the run are."""
        step = "Refining the accepted classes"

        def keep(now: StableState) -> None:
            self._keeper.offer(now)
            done = 0 if now.refinement is None else now.refinement.iteration
            self._report(step, done / (ITERATIONS + 1), f"iteration {done}")

        if self._parameters.refine:
            self._report(step, 0.0, "")
        return self._classifier.refined(state, keep)

    def _is_over(self, state: StableState) -> bool:
        limit = self._parameters.main_iter_limit
        return state.is_finished or 0 < limit < state.main

    def _keep(self, before: StableState | None, now: StableState) -> None:
        """Write a state, and what a generation or a main iteration has come to at its end."""
        if now.phase != "prealignment" and not has_main_state(self._out, 0):
            write_prealignment(self._out, self._outcome(now))
            write_main_state(self._out, 0, now)
        if before is not None and before.phase == "judgement":
            write_generation(
                self._out, self._outcome(now), main=before.main, generation=before.generation
            )
            if now.main != before.main or now.is_finished:
                write_main_state(self._out, before.main, now)
        self._keeper.offer(now)

    def _tell(self, state: StableState) -> None:
        """Say how far the present step is, as far as can be known."""
        if state.phase == "prealignment":
            most = self._parameters.maxit
            self._report("Prealignment", min(state.step / most, 1.0), f"iteration {state.step}")
            return
        step = f"Main iteration {state.main}, generation {state.generation}"
        parts = self._parameters.indep_run + 1  # the judgement takes about as long as a partition
        if state.phase == "partition":
            done, note = self._partition_share(state)
        else:
            done, note = float(parts - 1), "judging"
        known = f"; {100 * float((state.class_index >= 0).mean()):.0f} % in a class"
        self._report(step, done / parts, note + (known if state.generation > 1 else ""))

    def _partition_share(self, state: StableState) -> tuple[float, str]:
        """Tell how many partitions are done, and what is being done; half is for first classes."""
        note = f"partition {state.partition + 1} of {self._parameters.indep_run}"
        if state.step == 0:
            iteration = 0 if state.first is None else state.first.iteration
            share = 0.5 * min(iteration / _FIRST_ITERATIONS, 0.95)
            return state.partition + share, f"{note}, first classes, iteration {iteration}"
        self._passes = max(self._passes, state.step)
        share = 0.5 + 0.5 * min(state.step / (self._passes + 1), 0.95)
        return state.partition + share, f"{note}, pass {state.step}"

    def _outcome(self, state: StableState) -> Outcome:
        return Outcome(
            source=self._source, parameters=self._parameters, shrink=self._shrink, state=state
        )

    def _values(self, outcome: Outcome) -> dict[str, Any]:
        state, n = outcome.state, len(self._source)
        n_members = int((outcome.label >= 0).sum())
        return {
            "particles": str(self._out / "run_data.star"),
            "averages": str(self._out / "class_averages.hdf") if len(outcome.accepted) else None,
            "report": str(self._out / REPORT),
            "n_particles": n,
            "n_left_out": len(self._source.images) - n,
            "n_classes": len(outcome.accepted),
            "n_accounted": n_members,
            "accounted": round(n_members / n, 4),
            "accounted_by_generation": np.round(state.accounted, 4).astype(float).tolist(),
            "n_mains": finished_mains(self._out),
            "main_iter_limit": self._parameters.main_iter_limit,
            "is_exhausted": state.is_finished,
            "shrink_ratio": round(self._shrink.ratio, 5),
            "pixel_size": round(self._shrink.pixel_size, 5),
        }
