"""Carry out what the planner asks for, in a project: one job for each step.

A job is found again by its identity, so what is done is not done twice, what was killed goes on,
and going back to earlier parameters takes up their results again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from cryopick.errors import CryopickError, OtherJobError, OutputError
from cryopick.pipeline.job import take_back_items
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
from cryopick.pipeline.project_records import StepRecord
from cryopick.pipeline.run_context import Outcome, RunContext
from cryopick.pipeline.run_graph import step_parameters
from cryopick.pipeline.run_jobs import ListedMicrograph, find_job, made_by_set, stamp_of
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.run_sentences import reword, reword_error

__all__ = ["Course", "Halted", "Runner", "StepDone", "Work", "follow_to_end", "perform"]


class _BrokenStepError(Exception):
    """A step could not do its work; the project is well."""

    def __init__(self, error: CryopickError, folder: Path) -> None:
        super().__init__(str(error))
        self.error = error
        self.folder = folder


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
class Work:
    """What a step has to do in the folder of its job."""

    step: str
    folder: Path
    context: RunContext
    wanted: tuple[Path, ...]  # micrographs


Course = Generator[Work, Outcome, Event]  # asks for work, is told the outcome, says what happened


def perform(work: Work) -> Outcome:
    """Do the work of a step, in this process.

    Raises
    ------
    CryopickError
        If it cannot be done.
    """
    from cryopick.pipeline.run_steps import STEPS  # a run with nothing to do needs no torch

    return STEPS[work.step](work.context, work.folder, work.wanted)


def follow_to_end(course: Course, do: Callable[[Work], Outcome] = perform) -> Event:
    """Do all the work that a course asks for, and give what has happened.

    Parameters
    ----------
    course
        Of an instruction.
    do
        Does the work.
    """
    try:
        work = next(course)
        while True:
            try:
                outcome = do(work)
            except Exception as error:  # the course knows which errors are those of a step
                work = course.throw(error)
            else:
                work = course.send(outcome)
    except StopIteration as end:
        event: Event = end.value
        return event


@dataclass(frozen=True, kw_only=True)
class Halted:
    """Why a run could not go on."""

    step: str
    error: CryopickError
    folder: Path  # of the job that failed


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
    state: PlannerState = field(default_factory=lambda: begin(()))
    waiting: deque[Instruction] = field(default_factory=deque)
    _broken: dict[str, _BrokenStepError] = field(default_factory=dict)

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
        self.state = begin(graph)
        self.hear(Listed(count=len(self.micrographs), is_closed=True))
        while self.waiting:
            instruction = self.waiting.popleft()
            if isinstance(instruction, Halt):
                self.halted = self.why_halted(instruction)
            elif not isinstance(instruction, Finish):
                self.hear(follow_to_end(self.course(instruction)))
        return self.state

    def hear(self, event: Event) -> None:
        """Take in what has happened; what is to be done then joins what is waiting."""
        self.state, more = plan(self.state, event)
        self.waiting.extend(more)

    def why_halted(self, halt: Halt) -> Halted:
        """Tell what broke a step."""
        broken = self._broken[halt.step]
        return Halted(step=halt.step, error=broken.error, folder=broken.folder)

    def course(self, instruction: Process | Make) -> Course:
        """Carry out an instruction, but for the work itself, which is asked for.

        Raises
        ------
        OutputError, ProjectError
            If the project cannot be written any more, or is another's.
        """
        step = next(s for s in self.state.graph if s.name == instruction.step)
        stop = instruction.stop if isinstance(instruction, Process) else step.first or 0
        try:
            record, is_new = yield from self._job_done(step, instruction.identity, stop, self.state)
        except _BrokenStepError as broken:
            self._broken[step.name] = broken
            return Broke(step=step.name, identity=instruction.identity, error=str(broken))
        self._tell(record, is_new=is_new)
        result = record.result or {}
        content = str(result["content"])
        if isinstance(instruction, Process):
            done = int(result["n_inputs"])
            return Processed(
                step=step.name,
                identity=instruction.identity,
                stop=done,
                content=content,
                refused=0 if step.first is None else done - _n_worked_on(result["facts"]),
            )
        return Made(step=step.name, identity=instruction.identity, content=content)

    def parameters_of(self, step: str, parameters: RunParameters) -> dict[str, Any]:
        """Values that a step depends on, for the record of its job."""
        return step_parameters(step, parameters, pixel_size=self.pixel_size)

    def _job_done(
        self, step: Step, identity: str, stop: int, state: PlannerState
    ) -> Generator[Work, Outcome, tuple[StepRecord, bool]]:
        """Find the job that has done this, or do it."""
        found = find_job(self.project, step.name, identity, self.micrographs, stop)
        if found is not None and found.is_whole:
            self.project.set_alias(step.name, found.record.number)
            return found.record, False
        wanted = self.micrographs[:stop]
        context = self.context({n: d.folder for n, d in self.done.items()}, step.name)
        record = None
        if found is not None:
            seen = _contents(step, state)
            record = self.project.resume_job(found.record.number, upstream_content=seen)
            self._take_back(record, found.lost, context)
        outcome = None
        if record is not None:
            with contextlib.suppress(OtherJobError):  # it began with what is not known any more
                outcome = yield from self._work(step, record, context, wanted)
        if record is None or outcome is None:
            record = self._new_job(step, identity, context, state)
            outcome = yield from self._work(step, record, context, wanted)
        folder = self.project.job_folder(record.number)
        result = {
            "content": _digest(outcome),
            "made": made_by_set(folder, outcome.content) if step.is_set else [],
            "inputs": stamp_of(wanted),
            "n_inputs": len(wanted),
            "facts": dict(outcome.facts),
        }
        record = self.project.finish_job(record.number, result=result)
        self.project.set_alias(step.name, record.number)
        return record, True

    def _take_back(self, record: StepRecord, lost: Sequence[str], context: RunContext) -> None:
        """Let a job make again what somebody has removed."""
        if lost:
            folder = self.project.job_folder(record.number)
            many = f"{lost[0]} and {len(lost) - 1} others" if len(lost) > 1 else lost[0]
            context.say(f"Files of {many} are gone from {folder}; they are made again.")
            take_back_items(folder, lost, why="Files that were made are gone.")

    def _new_job(
        self, step: Step, identity: str, context: RunContext, state: PlannerState
    ) -> StepRecord:
        return self.project.new_job(
            step.name,
            identity,
            upstream={name: state.of(name).identity for name in step.needs},
            upstream_content=_contents(step, state),
            parameters=self.parameters_of(step.name, context.parameters),
            inputs=[str(self.done[name].folder) for name in step.needs],
        )

    def _work(
        self,
        step: Step,
        record: StepRecord,
        context: RunContext,
        wanted: Sequence[ListedMicrograph],
    ) -> Generator[Work, Outcome, Outcome]:
        """Ask for the work of a step in the folder of its job, and judge how it ends."""
        folder = self.project.job_folder(record.number)
        words = partial(reword, step=step.name, parameters=context.parameters)
        told = replace(context, say=lambda sentence: context.say(words(sentence)))
        try:
            places = tuple(one.path for one in wanted)
            outcome = yield Work(step=step.name, folder=folder, context=told, wanted=places)
            return replace(outcome, facts=_reworded(outcome.facts, words))
        except OutputError:  # nothing more can be written: the job goes on when there is room
            raise
        except CryopickError as error:
            reword_error(error, step=step.name, parameters=context.parameters)
            self.project.finish_job(record.number, error=str(error))
            if isinstance(error, OtherJobError):
                raise
            if step.name not in self.project.aliases():  # else it stands for what is whole
                self.project.set_alias(step.name, record.number)
            raise _BrokenStepError(error, folder) from error

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


def _reworded(facts: Mapping[str, Any], words: Callable[[str], str]) -> dict[str, Any]:
    failed = {name: words(why) for name, why in facts.get("failed", {}).items()}
    return {**facts, "failed": failed, "warnings": [words(w) for w in facts.get("warnings", ())]}


def _n_worked_on(facts: Mapping[str, Any]) -> int:
    """Count the micrographs that neither this step of picking nor one before it has refused."""
    return int(facts["n_micrographs"]) - int(facts["n_failed"])


def _contents(step: Step, state: PlannerState) -> dict[str, str]:
    """Name what a set is made from; a step over micrographs goes on when that grows."""
    if not step.is_set or step.first is not None:
        return {}
    return {name: state.of(name).content for name in step.needs}


def _digest(outcome: Outcome) -> str:
    """Name a result, so that what follows is made again if it is another."""
    digest = hashlib.sha256()
    for path in outcome.content:
        digest.update(json.dumps(path.name).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
