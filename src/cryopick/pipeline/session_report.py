"""The report of a session, drawn anew now and then in a process beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from cryopick.errors import CryopickError
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.runner import StepDone
from cryopick.pipeline.session_aside import Aside, Tell
from cryopick.pipeline.session_graph import LIVE_STEPS

__all__ = ["LiveReport", "draw_report"]

_UNFINISHED = ("particles", "live_particles")  # have no table that joins them yet


def draw_report(
    path: Path,
    table: Path,
    parameters: RunParameters,
    steps: tuple[StepDone, ...],
    *,
    tell: Tell,
    say: Callable[[str], None],
) -> list[str]:
    """Draw the report, in a process of its own.

    Raises
    ------
    CryopickError
        If it cannot be drawn or written.
    """
    from cryopick.pipeline.run_report import write_run_report

    tell("Drawing the report", 0.0, "")
    problems = write_run_report(
        path,
        title=f"Particles of {path.parent.resolve().name}",
        table=table,
        parameters=parameters,
        steps=steps,
        halted=None,
    )
    for sentence in problems:
        say(sentence)
    return problems


class LiveReport:
    """Has the report drawn when something has changed and a pause is over.

    Parameters
    ----------
    path
        Of the report.
    pause
        s between two; 0 draws none.
    """

    def __init__(self, path: Path, *, pause: float) -> None:
        self.path, self._pause = path, pause
        self._drawing: Aside | None = None
        self._due = time.monotonic() + pause
        self._shown = ""
        self.trouble = ""

    def look(self, done: Mapping[str, StepDone], table: Path, parameters: RunParameters) -> None:
        """Begin to draw, if it is time to, or end it."""
        if self._drawing is not None:
            if self._drawing.is_over:
                try:
                    self._drawing.result()
                    self.trouble = ""
                except CryopickError as error:
                    self.trouble = str(error)
                self.end()
            return
        shown = str([(name, dict(step.facts)) for name, step in done.items()])
        if not self._pause or time.monotonic() < self._due or shown == self._shown or not done:
            return
        self._shown = shown
        steps = _as_of_a_run(done)
        self._drawing = Aside("report", draw_report, self.path, table, parameters, steps)

    def end(self) -> None:
        """End the process."""
        if self._drawing is not None:
            self._drawing.end()
            self._drawing = None
            self._due = time.monotonic() + self._pause


def _as_of_a_run(done: Mapping[str, StepDone]) -> tuple[StepDone, ...]:
    """Name the steps as a run does: the general model has picked until the other has."""
    kept = {n: s for n, s in done.items() if n not in (*_UNFINISHED, *LIVE_STEPS)}
    if "live_picks" in done and "picks" not in done:
        kept["picks"] = replace(done["live_picks"], name="picks")
    return tuple(replace(step, facts=dict(step.facts)) for step in kept.values())
