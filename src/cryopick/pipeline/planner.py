"""What a project does next, decided from what has happened and nothing else.

`plan(state, event)` opens no file, knows no time and starts nothing; it returns the next state and
what is to be done. The same events give the same instructions, so any history can be replayed,
and a batch and a live session differ only in their events: micrographs are numbered in the order
in which they become known, and a batch knows them all at once.

A step works on each micrograph by itself (`Step.is_set` false: CTF, picks, particles) or on all
results of the steps before it (a set: classes, a selection, a trained model). What a result is
worth is told by its identity: a digest of the step's parameters and of what it was made from. A
set takes the *content* of what it needs into its identity, so it is made again when that has
changed; a step over micrographs takes the identity, so it goes on when micrographs are added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

__all__ = [
    "Again",
    "Broke",
    "Changed",
    "Event",
    "Finish",
    "Halt",
    "Instruction",
    "Listed",
    "Made",
    "Make",
    "PlannerState",
    "Process",
    "Processed",
    "Step",
    "StepState",
    "begin",
    "plan",
]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a run."""

    name: str
    digest: str  # of its parameters and the version of the method
    needs: tuple[str, ...] = ()  # steps whose results it takes
    is_set: bool = False  # works on all results before it at once
    first: int | None = None  # only so many micrographs, the first that are not refused


@dataclass(frozen=True, kw_only=True)
class StepState:
    """How far a step is."""

    identity: str = ""  # of the results it makes; empty until that is known
    content: str = ""  # of these results, once they are whole
    started: int = 0  # micrographs handed out; 1 for a set that is being made
    finished: int = 0
    refused: int = 0  # micrographs of those that are finished
    error: str = ""

    @property
    def is_running(self) -> bool:
        """Whether something that was handed out is not yet finished."""
        return self.started > self.finished and not self.error


@dataclass(frozen=True, kw_only=True)
class PlannerState:
    """All that is known of a run."""

    graph: tuple[Step, ...]  # in an order in which they can be done
    count: int = 0  # micrographs known
    is_closed: bool = False  # whether no more will come
    steps: Mapping[str, StepState] = field(default_factory=lambda: MappingProxyType({}))
    is_over: bool = False  # whether the last instruction was to finish or to halt

    def of(self, name: str) -> StepState:
        """How far the step of this name is."""
        return self.steps.get(name, StepState())


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Micrographs have become known."""

    count: int  # in all
    is_closed: bool  # no more will come


@dataclass(frozen=True, kw_only=True)
class Processed:
    """A step over micrographs has finished all up to a number, or refused them."""

    step: str
    identity: str
    stop: int
    content: str  # of the results so far
    refused: int = 0  # micrographs of these, by this step or one before it


@dataclass(frozen=True, kw_only=True)
class Made:
    """A set has been made."""

    step: str
    identity: str
    content: str
    halt: str = ""  # why the run cannot go on from this result; empty: it can


@dataclass(frozen=True, kw_only=True)
class Broke:
    """A step has failed as a whole."""

    step: str
    identity: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Changed:
    """Other steps or parameters are asked for."""

    graph: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class Again:
    """A step that broke, or refused micrographs, is to be tried again."""

    step: str


Event = Listed | Processed | Made | Broke | Changed | Again


@dataclass(frozen=True, kw_only=True)
class Process:
    """Work on micrographs start to stop - 1."""

    step: str
    identity: str
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Make:
    """Make a set."""

    step: str
    identity: str


@dataclass(frozen=True, kw_only=True)
class Halt:
    """Stop: nothing more can be done."""

    step: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Finish:
    """All is done."""


Instruction = Process | Make | Halt | Finish


def begin(graph: tuple[Step, ...]) -> PlannerState:
    """Begin a run of some steps.

    Raises
    ------
    ValueError
        If a step is named twice, or needs one that does not come before it.
    """
    _require_order(graph)
    return PlannerState(graph=graph)


def plan(state: PlannerState, event: Event) -> tuple[PlannerState, tuple[Instruction, ...]]:
    """Take in what has happened, and say what is to be done.

    Parameters
    ----------
    state
        What is known.
    event
        What has happened. News of results of another identity than the one that is wanted, made
        before a change, are of no use and pass.

    Returns
    -------
    tuple
        The next state and instructions, in the order in which results are needed. Nothing is
        asked for twice. The cost depends on the number of steps, not on that of micrographs.
    """
    match event:
        case Listed():
            state = replace(state, count=max(state.count, event.count), is_closed=event.is_closed)
        case Processed():
            now = state.of(event.step)
            if now.identity == event.identity:
                state = _processed(state, event, now)
        case Made():
            if state.of(event.step).identity == event.identity:
                state = _with(
                    state, event.step, finished=1, content=event.content, error=event.halt
                )
        case Broke():
            if state.of(event.step).identity == event.identity:
                state = _with(state, event.step, error=event.error or "unknown")
        case Changed():
            _require_order(event.graph)
            state = replace(state, graph=event.graph)
        case Again():
            now = state.of(event.step)
            if now.identity and not now.is_running:
                state = _renewed(state, event.step, now.identity)
    return _advance(replace(state, is_over=False))


@dataclass(frozen=True, kw_only=True)
class _View:
    """What following steps need to know of one step."""

    is_set: bool
    identity: str
    content: str
    reach: int  # micrographs that it lets pass
    first: int | None  # micrographs that it will ever work on, if not all
    is_whole: bool  # all its results are there, as they are wanted


def _advance(state: PlannerState) -> tuple[PlannerState, tuple[Instruction, ...]]:
    """Start all that can be started."""
    instructions: list[Instruction] = []
    views: dict[str, _View] = {}
    for step in state.graph:
        needs = [views[name] for name in step.needs]
        identity = _identity(step, state, needs)
        if identity and identity != state.of(step.name).identity:
            state = _renewed(state, step.name, identity)
        if identity and not state.of(step.name).error:
            for instruction in _next_of(step, state, needs):
                instructions.append(instruction)
                stop = instruction.stop if isinstance(instruction, Process) else 1
                state = _with(state, step.name, started=stop)
        views[step.name] = _view(step, state, needs, is_wanted=bool(identity))
    if instructions or any(state.of(s.name).is_running for s in state.graph):
        return state, tuple(instructions)
    for step in state.graph:
        if state.of(step.name).error:
            reason = state.of(step.name).error
            return replace(state, is_over=True), (Halt(step=step.name, reason=reason),)
    if state.is_closed and all(view.is_whole for view in views.values()):
        return replace(state, is_over=True), (Finish(),)
    return state, ()


def _processed(state: PlannerState, event: Processed, now: StepState) -> PlannerState:
    if event.stop < now.finished:  # older than what is known
        return state
    return _with(
        state,
        event.step,
        started=max(now.started, event.stop),
        finished=event.stop,
        refused=event.refused,
        content=event.content,
    )


def _identity(step: Step, state: PlannerState, needs: list[_View]) -> str:
    """Digest of what a step is made from; empty as long as a set that it needs is not whole.

    A set of the first micrographs needs these only, and does not change when others come.
    """
    parts = [step.name, step.digest]
    of_first = step.is_set and step.first is not None
    if of_first:
        reach = min([state.count, *(n.reach for n in needs if not n.is_set)])
        enough = state.count if state.is_closed else step.first or 0
        if reach < min(step.first or 0, enough):
            return ""
    for needed in needs:
        if needed.is_set or (step.is_set and not of_first):
            if not needed.is_whole:
                return ""
            parts.append(needed.content)
        else:
            parts.append(needed.identity)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _next_of(step: Step, state: PlannerState, needs: list[_View]) -> Iterator[Instruction]:
    now = state.of(step.name)
    if step.is_set:
        if not now.started:
            yield Make(step=step.name, identity=now.identity)
        return
    ready = min([state.count, *(needed.reach for needed in needs)])
    ready = ready if step.first is None else min(ready, step.first + now.refused)
    if ready > now.started:
        yield Process(step=step.name, identity=now.identity, start=now.started, stop=ready)


def _view(step: Step, state: PlannerState, needs: list[_View], *, is_wanted: bool) -> _View:
    now = state.of(step.name)
    own = None if step.first is None else step.first + now.refused
    limits = [own, *(needed.first for needed in needs if not needed.is_set)]
    first = min((limit for limit in limits if limit is not None), default=None)
    if step.is_set:
        reach, is_whole = state.count, now.finished == 1
    else:
        wanted = state.count if first is None else min(state.count, first)
        is_last = state.is_closed or state.count == wanted == first or state.count > wanted
        is_whole = is_last and now.finished >= wanted
        reach = now.finished if own is None or is_whole else 0  # which are the first is not known
    return _View(
        is_set=step.is_set,
        identity=now.identity,
        content=now.content,
        reach=reach,
        first=None if step.is_set else first,
        is_whole=is_whole and is_wanted and not now.error,
    )


def _renewed(state: PlannerState, name: str, identity: str) -> PlannerState:
    """Begin a step anew: its parameters or what it is made from are others."""
    steps = {**state.steps, name: StepState(identity=identity)}
    return replace(state, steps=MappingProxyType(steps))


def _with(state: PlannerState, name: str, **changes: object) -> PlannerState:
    now = replace(state.of(name), **changes)  # type: ignore[arg-type]
    return replace(state, steps=MappingProxyType({**state.steps, name: now}))


def _require_order(graph: tuple[Step, ...]) -> None:
    seen: set[str] = set()
    for step in graph:
        if step.name in seen or not seen.issuperset(step.needs):
            raise ValueError(f"step {step.name} is named twice or comes before what it needs")
        seen.add(step.name)
