"""Carry out what the planner asks for while micrographs come: the jobs are those of a run.

A step over all micrographs stays at work in its job as long as more may come; its results are in
the ledger of the job, micrograph by micrograph, and `cryopick run` finishes it. All other steps
are done as a run does them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Generator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from cryopick.errors import CryopickError, OtherJobError, OutputError
from cryopick.pipeline.planner import (
    Broke,
    Changed,
    Event,
    Finish,
    Halt,
    Instruction,
    Make,
    Process,
    Processed,
    Step,
    begin,
)
from cryopick.pipeline.project_records import StepRecord
from cryopick.pipeline.run_context import Outcome
from cryopick.pipeline.run_jobs import find_job
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.run_sentences import reword, reword_error
from cryopick.pipeline.runner import Course, Runner, StepDone, Work
from cryopick.pipeline.session_graph import LIVE_STEPS, live_parameters
from cryopick.pipeline.session_order import NewestFirst

__all__ = ["LiveRunner", "LiveWork"]

_CUT = ("particles", "live_particles")  # of the new micrographs alone
_PORTION = 5.0  # s that the work on a portion is to take
_AGAIN = 50  # micrographs that are done and looked at again with a portion, in turn


@dataclass(frozen=True, kw_only=True)
class LiveWork(Work):
    """What a step over micrographs has to do with a portion of them."""

    numbers: tuple[int, ...]  # of the micrographs, from 0
    is_last: bool  # no other micrograph waits


@dataclass(frozen=True, kw_only=True)
class _Ahead(Process):
    """Work on the newest micrographs, while others wait."""


@dataclass(kw_only=True)
class LiveRunner(Runner):
    """A runner whose micrographs grow.

    Attributes
    ----------
    order
        Says which micrographs are begun when many wait.
    least
        Micrographs that are handed to a step at once where many wait; more if these take little
        time.
    tries_again
        Steps that try again what they have refused, and the number of micrographs before which
        they do.
    """

    order: NewestFirst = field(default_factory=lambda: NewestFirst(backlog=1.0))
    least: int = 4
    tries_again: dict[str, int] = field(default_factory=dict)
    _ahead: list[_Ahead] = field(default_factory=list)  # steps that the newest still have to take
    _done_ahead: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)  # of portions, by step
    _seen: dict[str, int] = field(default_factory=dict)  # up to where a step has looked again
    _at_work: dict[tuple[str, str], StepRecord] = field(default_factory=dict)

    def follow(self, graph: tuple[Step, ...]) -> None:
        """Begin to follow the list of micrographs through these steps, or go on with others."""
        if not self.state.graph:
            self.state = begin(())
        self.hear(Changed(graph=graph))
        self.waiting = type(self.waiting)(i for i in self.waiting if self._is_wanted(i))

    def next_for(self, *, takes_sets: bool) -> Process | Make | None:
        """Take the most urgent of what is to be done off the waiting list.

        A micrograph that was begun is finished before another is; which are begun, `order` says.
        Those that were picked before by the general model wait until nothing new does.

        Parameters
        ----------
        takes_sets
            Whether there is a place to make a set.
        """
        self._tidy()
        order = {step.name: k for k, step in enumerate(self.state.graph)}
        best: Process | Make | None = None
        for instruction in self.waiting:
            if isinstance(instruction, Finish | Halt):
                continue
            if isinstance(instruction, Make) and not takes_sets:
                continue
            if best is None or _rank(instruction, order) < _rank(best, order):
                best = instruction
        newest = None if isinstance(best, Make) else self._next_ahead(best)
        if newest is not None:
            return newest
        if best is not None:
            self.waiting.remove(best)
        if isinstance(best, Process) and self.is_endless(best.step):
            middle = best.start + self._sizes.get(best.step, self.least)
            if best.stop > middle:
                self.waiting.append(replace(best, start=middle))
                best = replace(best, stop=middle)
        return best

    def put_back(self, instruction: Process | Make) -> None:
        """Let an instruction be carried out later that was taken and not carried out."""
        if isinstance(instruction, _Ahead):
            self._ahead.insert(0, instruction)
        else:
            self.waiting.appendleft(instruction)

    def _tidy(self) -> None:
        """Leave out what is not wanted any more, and join what follows on one another.

        Micrographs come one by one, and each brings instructions of its own. The planner hears up
        to where a step has come, so those that came first are worked on first.
        """
        wanted = [i for i in self.waiting if self._is_wanted(i)]
        joined: dict[str, Process] = {}
        apart: list[Instruction] = [i for i in wanted if not isinstance(i, Process)]
        processes = [i for i in wanted if isinstance(i, Process)]
        for one in sorted(processes, key=lambda i: i.start):
            before = joined.get(one.step)
            if before is not None and before.stop < one.start:
                apart.append(one)
                continue
            start, stop = (one.start, one.stop) if before is None else (before.start, before.stop)
            joined[one.step] = replace(one, start=start, stop=max(stop, one.stop))
        self.waiting = type(self.waiting)([*joined.values(), *apart])

    def _next_ahead(self, best: Process | None) -> _Ahead | None:
        """Take the next step of the newest micrographs, if it is their turn."""
        if not all(self._is_wanted(i) and not self.state.of(i.step).error for i in self._ahead):
            self._ahead.clear()
        steps = self._steps_ahead()
        if not self._ahead and best is not None and steps and best.step == steps[0].name:
            taken = None
            if not self._waits_for_first(best):
                size = self._sizes.get(best.step, self.least)
                taken = self.order.take(first=best.start, count=best.stop, size=size)
            if taken is not None:
                identity = {step.name: self.state.of(step.name).identity for step in steps}
                self._ahead += [
                    _Ahead(step=name, identity=which, start=taken[0], stop=taken[1])
                    for name, which in identity.items()
                ]
        return self._ahead.pop(0) if self._ahead else None

    def _steps_ahead(self) -> list[Step]:
        """List the steps that a new micrograph can take now."""
        names = {step.name for step in self.state.graph}
        found: dict[str, Step] = {}
        for step in self.state.graph:
            now = self.state.of(step.name)
            can_begin = self.is_endless(step.name) and now.identity and not now.error
            needs = [n for n in step.needs if not self._step(n).is_set]
            is_first = not _is_second(step.name, names)
            if can_begin and is_first and all(n in found for n in needs):
                found[step.name] = step
        return list(found.values())

    def _waits_for_first(self, best: Process) -> bool:
        """Whether something is made of the first micrographs, which are not yet done."""
        wanted = [
            s.first + self.state.of(s.name).refused for s in self.state.graph if s.first is not None
        ]
        return best.start < max(wanted, default=0)

    def course(self, instruction: Process | Make) -> Course:
        """Carry out an instruction; a step over all micrographs stays at work in its job."""
        if isinstance(instruction, Process) and self.is_endless(instruction.step):
            return self._portion(instruction)
        return super().course(instruction)

    def parameters_of(self, step: str, parameters: RunParameters) -> dict[str, Any]:
        """Values that a step depends on; those of the general model where that picks."""
        if step in LIVE_STEPS:
            parameters = live_parameters(parameters)
        return super().parameters_of(_like(step), parameters)

    def try_again(self, step: str) -> None:
        """Let the next work of a step do what it refused before as well."""
        self.tries_again[step] = self.state.count
        for key in [k for k in self._at_work if k[0] == step]:
            del self._at_work[key]
        for key in [k for k in self._done_ahead if k[0] == step]:
            del self._done_ahead[key]

    def _is_wanted(self, instruction: Instruction) -> bool:
        if isinstance(instruction, Finish | Halt):
            return False
        names = {step.name for step in self.state.graph}
        is_known = instruction.step in names
        return is_known and self.state.of(instruction.step).identity == instruction.identity

    def is_endless(self, name: str) -> bool:
        """Whether a step works on all micrographs, however many come."""
        step = self._step(name)
        if step.is_set or step.first is not None:
            return False
        return all(self._step(n).is_set or self.is_endless(n) for n in step.needs)

    def _step(self, name: str) -> Step:
        return next(s for s in self.state.graph if s.name == name)

    def _portion(self, instruction: Process) -> Course:
        step, stop = self._step(instruction.step), instruction.stop
        key = (step.name, instruction.identity)
        begun = time.monotonic()
        try:
            outcome, record = yield from self._work_on(step, instruction)
        except CryopickError as error:
            if isinstance(error, OutputError):
                raise
            self._at_work.pop(key, None)
            return Broke(step=step.name, identity=instruction.identity, error=str(error))
        done = self._done_ahead.setdefault(key, set())
        if isinstance(instruction, _Ahead):  # which is no news of those that are in order
            done.update(range(instruction.start, stop))
            stop = self.state.of(step.name).finished
        else:
            done.difference_update(range(instruction.start, stop))
        if stop >= self.tries_again.get(step.name, 0):
            self.tries_again.pop(step.name, None)
        count = instruction.stop - instruction.start
        self._set_size(step.name, count, time.monotonic() - begun)
        self._tell_portion(record, outcome)
        event: Event = Processed(
            step=step.name, identity=instruction.identity, stop=stop, content=""
        )
        return event

    def _set_size(self, step: str, count: int, seconds: float) -> None:
        """Choose the next portion of a step by the time that the last has taken."""
        before = self._sizes.get(step, self.least)
        wanted = round(count * _PORTION / max(seconds, 0.01))
        if count >= before or wanted < before:
            self._sizes[step] = max(self.least, min(wanted, 2 * before))

    def _work_on(
        self, step: Step, instruction: Process
    ) -> Generator[Work, Outcome, tuple[Outcome, StepRecord]]:
        """Work on some micrographs in the job of the step, or in a new one."""
        key = (step.name, instruction.identity)
        record = self._at_work.get(key) or self._taken_up(step, instruction)
        if record is not None:
            try:
                self._at_work[key] = record
                outcome = yield self._asked(step, instruction, record)
                return outcome, record
            except OtherJobError:  # it began with what is not known any more
                pass
        folders = {n: d.folder for n, d in self.done.items()}
        context = self.context(folders, step.name)
        record = self._at_work[key] = self._new_job(step, instruction.identity, context, self.state)
        self.project.set_alias(step.name, record.number)
        self._done_ahead.pop(key, None)
        try:
            outcome = yield self._asked(step, instruction, record, is_new=True)
        except OtherJobError:
            raise
        except CryopickError as error:
            reword_error(error, step=_like(step.name), parameters=context.parameters)
            raise
        return outcome, record

    def _taken_up(self, step: Step, instruction: Process) -> StepRecord | None:
        """Go on with the job of before; what somebody has removed of it is made again."""
        found = find_job(
            self.project, step.name, instruction.identity, self.micrographs, instruction.stop
        )
        if found is None:
            return None
        record = self.project.resume_job(found.record.number)
        context = self.context({n: d.folder for n, d in self.done.items()}, step.name)
        self._take_back(record, found.lost, context)
        self.project.set_alias(step.name, record.number)
        return record

    def _asked(
        self, step: Step, instruction: Process, record: StepRecord, *, is_new: bool = False
    ) -> Work:
        """Ask for the work on a portion; a new job does those before it as well."""
        done = self._done_ahead.get((step.name, instruction.identity), ())
        new = (k for k in range(instruction.start, instruction.stop) if k not in done)
        before = range(self.state.of(step.name).finished) if is_new else self._again(step.name)
        numbers = (*before, *new)
        context = self.context({n: d.folder for n, d in self.done.items()}, step.name)
        words = partial(reword, step=_like(step.name), parameters=context.parameters)
        told = replace(context, say=lambda sentence: context.say(words(sentence)))
        return LiveWork(
            step=step.name,
            folder=self._folder_of(record),
            context=told,
            wanted=tuple(self.micrographs[k].path for k in numbers),
            numbers=numbers,
            is_last=instruction.stop >= self.state.count and not isinstance(instruction, _Ahead),
        )

    def _again(self, step: str) -> range:
        """Choose some that are done, to see whether their files are as they were."""
        done = self.state.of(step).finished
        if step in _CUT or not done:
            return range(0)
        first = self._seen.get(step, 0) % done
        self._seen[step] = min(first + _AGAIN, done)
        return range(first, self._seen[step])

    def _folder_of(self, record: StepRecord) -> Path:
        return self.project.job_folder(record.number)

    def _tell_portion(self, record: StepRecord, outcome: Outcome) -> None:
        self.done[record.step] = StepDone(
            name=record.step,
            number=record.number,
            folder=self._folder_of(record),
            facts=dict(outcome.facts),
            seconds=record.seconds,
            is_new=True,
        )
        self.after(self.done[record.step])


def _is_second(step: str, names: Collection[str]) -> bool:
    """Whether a step does what another of these has done with the general model."""
    return any(like == step and name in names for name, like in LIVE_STEPS.items())


def _rank(instruction: Process | Make, order: dict[str, int]) -> tuple[bool, bool, int]:
    """Say how late an instruction is to be carried out."""
    is_second = _is_second(instruction.step, order)
    return is_second, isinstance(instruction, Process), -order[instruction.step]


def _like(step: str) -> str:
    return LIVE_STEPS.get(step, step)
