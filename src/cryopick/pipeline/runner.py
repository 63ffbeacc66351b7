"""Carry out what the planner asks for, in a project: one job for each step.

A job is found again by its identity, so what is done is not done twice, what was killed goes on,
and going back to earlier parameters takes up their results again.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryopick.errors import CryopickError, OutputError
from cryopick.pipeline.job import identity_of
from cryopick.pipeline.planner import (
    Broke,
    Event,
    Finish,
    Halt,
    Instruction,
    Listed,
    Made,
    Make,
    PlannerState,
    Process,
    Processed,
    Step,
    begin,
    plan,
)
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_records import StepRecord, made_files
from cryopick.pipeline.run_context import Outcome, RunContext
from cryopick.pipeline.run_graph import step_parameters
from cryopick.pipeline.run_steps import STEPS

__all__ = ["Halted", "ListedMicrograph", "Runner", "StepDone"]


class _BrokenStepError(Exception):
    """A step could not do its work; the project is well."""

    def __init__(self, error: CryopickError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, kw_only=True)
class ListedMicrograph:
    """A micrograph of a run."""

    path: Path
    said: str  # all that its table says of it


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """What became of a step."""

    name: str
    number: int  # of the job
    folder: Path
    facts: Mapping[str, Any]
    seconds: float  # at work, in all runs
    is_new: bool  # whether this run worked on it


@dataclass(frozen=True, kw_only=True)
class Halted:
    """Why a run could not go on."""

    step: str
    error: CryopickError


@dataclass(kw_only=True)
class Runner:
    """Runs the steps of a project one after another.

    Attributes
    ----------
    project
        Open, to be written.
    context
        What the steps share; their folders are added as they are done.
    micrographs
        In the order in which they are known.
    pixel_size
        A/px of all micrographs, where the user says it.
    after
        Called when a step is done.
    """

    project: Project
    context: Callable[[Mapping[str, Path], str], RunContext]
    micrographs: Sequence[ListedMicrograph]
    pixel_size: float | None
    after: Callable[[StepDone], None]
    done: dict[str, StepDone] = field(default_factory=dict)
    halted: Halted | None = None
    _errors: dict[str, CryopickError] = field(default_factory=dict)

    def run(self, graph: tuple[Step, ...]) -> PlannerState:
        """Do all steps.

        Returns
        -------
        PlannerState
            Where the run stands; `halted` says why if it could not go to its end.

        Raises
        ------
        OutputError, ProjectError
            If the project cannot be written any more, or is another's.
        """
        steps = {step.name: step for step in graph}
        state, first = plan(begin(graph), Listed(count=len(self.micrographs), is_closed=True))
        waiting: deque[Instruction] = deque(first)
        while waiting:
            instruction = waiting.popleft()
            if isinstance(instruction, Finish):
                break
            if isinstance(instruction, Halt):
                error = self._errors[instruction.step]
                self.halted = Halted(step=instruction.step, error=error)
                break
            event = self._carry_out(instruction, steps[instruction.step], state)
            state, more = plan(state, event)
            waiting.extend(more)
        return state

    def _carry_out(self, instruction: Process | Make, step: Step, state: PlannerState) -> Event:
        stop = instruction.stop if isinstance(instruction, Process) else step.first or 0
        wanted = self.micrographs[:stop]
        try:
            record, is_new = self._job_done(step, instruction.identity, wanted, state)
        except _BrokenStepError as broken:
            self._errors[step.name] = broken.error
            return Broke(step=step.name, identity=instruction.identity, error=str(broken))
        self._tell(record, is_new=is_new)
        content = str((record.result or {})["content"])
        if isinstance(instruction, Process):
            return Processed(
                step=step.name, identity=instruction.identity, stop=stop, content=content
            )
        return Made(step=step.name, identity=instruction.identity, content=content)

    def _job_done(
        self, step: Step, identity: str, wanted: Sequence[ListedMicrograph], state: PlannerState
    ) -> tuple[StepRecord, bool]:
        """Find the job that has done this, or do it."""
        inputs = hashlib.sha256(
            "\n".join(f"{one.path} {identity_of(one.path)} {one.said}" for one in wanted).encode()
        ).hexdigest()[:16]
        record = self.project.find_job(step.name, identity)
        if record is not None and self._is_whole(record, inputs):
            self.project.set_alias(step.name, record.number)
            return record, False
        context = self.context({n: d.folder for n, d in self.done.items()}, step.name)
        if record is None:
            record = self.project.new_job(
                step.name,
                identity,
                upstream={name: state.of(name).identity for name in step.needs},
                parameters=step_parameters(
                    step.name, context.parameters, pixel_size=self.pixel_size
                ),
                inputs=[str(self.done[name].folder) for name in step.needs],
            )
        else:
            record = self.project.resume_job(record.number)
        folder = self.project.job_folder(record.number)
        try:
            outcome = STEPS[step.name](context, folder, [one.path for one in wanted])
        except OutputError:  # nothing more can be written: the job goes on when there is room
            raise
        except CryopickError as error:
            self.project.finish_job(record.number, error=str(error))
            self.project.set_alias(step.name, record.number)
            raise _BrokenStepError(error) from error
        result = {
            "content": _digest(outcome),
            "inputs": inputs,
            "facts": dict(outcome.facts),
        }
        record = self.project.finish_job(record.number, result=result)
        self.project.set_alias(step.name, record.number)
        return record, True

    def _is_whole(self, record: StepRecord, inputs: str) -> bool:
        """Whether a job is done, with these micrographs, and its files are as it left them."""
        if not record.is_done or (record.result or {}).get("inputs") != inputs:
            return False
        return made_files(self.project.job_folder(record.number)) == dict(record.files)

    def _tell(self, record: StepRecord, *, is_new: bool) -> None:
        self.done[record.step] = StepDone(
            name=record.step,
            number=record.number,
            folder=self.project.job_folder(record.number),
            facts=(record.result or {}).get("facts", {}),
            seconds=record.seconds,
            is_new=is_new,
        )
        self.after(self.done[record.step])


def _digest(outcome: Outcome) -> str:
    """Name a result, so that what follows is made again if it is another."""
    digest = hashlib.sha256()
    for path in outcome.content:
        digest.update(json.dumps(path.name).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
