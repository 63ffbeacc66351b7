"""The planner: pure, complete, and linear in events."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from cryopick.pipeline.planner import (
    Again,
    Broke,
    Changed,
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

GRAPH = (
    Step(name="ctf", digest="1"),
    Step(name="first_picks", digest="1", needs=("ctf",), first=4),
    Step(name="first_particles", digest="1", needs=("first_picks",)),
    Step(name="first_classes", digest="1", needs=("first_particles",), is_set=True),
    Step(name="training", digest="1", needs=("first_classes", "ctf"), is_set=True),
    Step(name="picks", digest="1", needs=("ctf", "training")),
    Step(name="particles", digest="1", needs=("picks",)),
    Step(name="classes", digest="1", needs=("particles",), is_set=True),
)
NO_CTF_NEEDED = tuple(
    replace(s, needs=("first_classes",)) if s.name == "training" else s for s in GRAPH
)


def answer(instruction: Instruction, *, tag: str = "") -> Event:
    """What a runner says when all goes well; contents follow from what was asked."""
    match instruction:
        case Process():
            content = f"{instruction.identity}:{instruction.stop}{tag}"
            return Processed(
                step=instruction.step,
                identity=instruction.identity,
                stop=instruction.stop,
                content=content,
            )
        case Make():
            content = f"{instruction.identity}{tag}"
            return Made(step=instruction.step, identity=instruction.identity, content=content)
    raise AssertionError(instruction)


def drive(
    state: PlannerState, event: Event, *, draw: random.Random | None = None
) -> tuple[PlannerState, list[Instruction]]:
    """Carry out all that is asked, in order or in any order."""
    state, waiting = plan(state, event)
    queue, done = list(waiting), list[Instruction]()
    while queue:
        instruction = queue.pop(draw.randrange(len(queue)) if draw else 0)
        done.append(instruction)
        if isinstance(instruction, Finish | Halt):
            continue
        state, more = plan(state, answer(instruction))
        queue += more
    return state, done


def names(done: list[Instruction]) -> list[str]:
    return [d.step for d in done if not isinstance(d, Finish)]


def test_a_batch_runs_every_step_once_in_order() -> None:
    state, done = drive(begin(GRAPH), Listed(count=12, is_closed=True))
    assert names(done) == [s.name for s in GRAPH]
    assert isinstance(done[-1], Finish)
    assert state.is_over
    spans = {d.step: (d.start, d.stop) for d in done if isinstance(d, Process)}
    assert spans["ctf"] == spans["picks"] == (0, 12)
    assert spans["first_picks"] == spans["first_particles"] == (0, 4)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_answers_changes_no_result(seed: int) -> None:
    straight, _ = drive(begin(GRAPH), Listed(count=12, is_closed=True))
    shuffled, _ = drive(begin(GRAPH), Listed(count=12, is_closed=True), draw=random.Random(seed))
    assert straight.steps == shuffled.steps


def test_one_micrograph_at_a_time_ends_where_a_batch_ends() -> None:
    batch, _ = drive(begin(GRAPH), Listed(count=12, is_closed=True))
    state = begin(GRAPH)
    for count in range(1, 13):
        state, _ = drive(state, Listed(count=count, is_closed=count == 12))
    assert {n: s.identity for n, s in state.steps.items()} == {
        n: s.identity for n, s in batch.steps.items()
    }
    assert state.is_over


def test_the_first_classes_are_made_while_micrographs_still_come() -> None:
    state, done = drive(begin(NO_CTF_NEEDED), Listed(count=5, is_closed=False))
    assert names(done)[-3:] == ["training", "picks", "particles"]
    assert not state.is_over
    state, done = drive(state, Listed(count=7, is_closed=False))
    assert names(done) == ["ctf", "picks", "particles"]  # no classes, no training again


def test_a_changed_parameter_redoes_only_what_follows() -> None:
    state, _ = drive(begin(GRAPH), Listed(count=12, is_closed=True))
    changed = tuple(replace(s, digest="2") if s.name == "particles" else s for s in GRAPH)
    state, done = drive(state, Changed(graph=changed))
    assert names(done) == ["particles", "classes"]
    state, done = drive(state, Changed(graph=changed))
    assert names(done) == []
    state, done = drive(state, Changed(graph=GRAPH))
    assert names(done) == ["particles", "classes"]


def test_an_equal_result_of_a_changed_step_stops_the_change() -> None:
    """A set is made again only if the content of what it is made from has changed."""
    state, _ = drive(begin(GRAPH), Listed(count=12, is_closed=True))
    changed = tuple(replace(s, digest="2") if s.name == "first_classes" else s for s in GRAPH)
    before = state.of("first_classes").content
    state, (make,) = plan(state, Changed(graph=changed))
    assert isinstance(make, Make)
    state, following = plan(
        state, Made(step="first_classes", identity=make.identity, content=before)
    )
    assert following == (Finish(),)


def test_news_of_superseded_results_pass() -> None:
    state, (first,) = plan(begin(GRAPH), Listed(count=2, is_closed=True))
    changed = tuple(replace(s, digest="2") if s.name == "ctf" else s for s in GRAPH)
    state, (second,) = plan(state, Changed(graph=changed))
    assert isinstance(second, Process)
    assert second.step == "ctf"
    late, nothing = plan(state, answer(first))
    assert not nothing
    assert late.of("ctf").finished == 0


def test_a_failure_halts_what_needs_it_and_nothing_else() -> None:
    graph = (
        Step(name="a", digest=""),
        Step(name="b", digest="", needs=("a",)),
        Step(name="c", digest=""),
    )
    state, both = plan(begin(graph), Listed(count=1, is_closed=True))
    assert [d.step for d in both if isinstance(d, Process)] == ["a", "c"]
    state, nothing = plan(state, Broke(step="a", identity=both[0].identity, error="no"))  # type: ignore[union-attr]
    assert not nothing  # c is still at work
    state, (halt,) = plan(state, answer(both[1]))
    assert halt == Halt(step="a", reason="no")


def test_a_result_that_ends_the_run_is_told_with_its_reason() -> None:
    state, (make,) = plan(
        begin((Step(name="a", digest="", is_set=True),)), Listed(count=1, is_closed=True)
    )
    assert isinstance(make, Make)
    event = Made(step="a", identity=make.identity, content="x", halt="no class is good")
    assert plan(state, event)[1] == (Halt(step="a", reason="no class is good"),)


def test_the_past_is_never_changed() -> None:
    """Each state can be gone on from twice, with the same outcome."""
    state, _ = plan(begin(GRAPH), Listed(count=3, is_closed=True))
    once = drive(state, Listed(count=5, is_closed=True))
    assert drive(state, Listed(count=5, is_closed=True)) == once


def test_steps_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="comes before"):
        begin((Step(name="b", digest="", needs=("a",)), Step(name="a", digest="")))


def test_50000_fields_replay_in_less_than_a_millisecond_an_event() -> None:
    state = begin(NO_CTF_NEEDED)
    events, start = 0, time.process_time()
    for count in range(1, 5001):
        state, waiting = plan(state, Listed(count=count, is_closed=False))
        queue = list(waiting)
        while queue:
            state, more = plan(state, answer(queue.pop(0)))
            queue += more
            events += 1
        events += 1
    each = (time.process_time() - start) / events
    assert events > 15000
    assert each < 1e-3


def test_a_set_of_the_first_micrographs_does_not_hold_the_others_back() -> None:
    graph = (
        Step(name="ctf", digest="1"),
        Step(name="diameter", digest="1", needs=("ctf",), is_set=True, first=4),
        Step(name="picks", digest="1", needs=("ctf", "diameter")),
    )
    state, done = drive(begin(graph), Listed(count=12, is_closed=True))
    assert [(d.step, d.stop) for d in done if isinstance(d, Process)] == [
        ("ctf", 12),
        ("picks", 12),
    ]
    state, done = drive(begin(graph), Listed(count=3, is_closed=False))
    assert names(done) == ["ctf"]  # one is still to come
    state, done = drive(state, Listed(count=5, is_closed=False))
    assert names(done) == ["ctf", "diameter", "picks"]
    state, done = drive(state, Listed(count=6, is_closed=True))
    assert names(done) == ["ctf", "picks"]  # the diameter stays
    few, done = drive(begin(graph), Listed(count=2, is_closed=True))
    assert names(done) == ["ctf", "diameter", "picks"]
    assert few.is_over


LEARNED = (
    Step(name="first_picks", digest="1", first=4),
    Step(name="first_particles", digest="1", needs=("first_picks",)),
    Step(name="first_classes", digest="1", needs=("first_particles",), is_set=True),
)


def refusing(
    state: PlannerState, event: Event, bad: set[int]
) -> tuple[PlannerState, list[Instruction]]:
    """Carry out all that is asked; the first step refuses micrographs of these numbers."""
    state, waiting = plan(state, event)
    queue, done = list(waiting), list[Instruction]()
    while queue:
        instruction = queue.pop(0)
        done.append(instruction)
        if isinstance(instruction, Finish):
            continue
        answered = answer(instruction)
        if isinstance(answered, Processed) and answered.step == "first_picks":
            answered = replace(answered, refused=len(bad & set(range(answered.stop))))
        state, more = plan(state, answered)
        queue += more
    return state, done


def test_refused_micrographs_do_not_count_among_the_first() -> None:
    _, done = refusing(begin(LEARNED), Listed(count=12, is_closed=True), {0, 1, 2, 3, 5})
    spans = [(d.step, d.start, d.stop) for d in done if isinstance(d, Process)]
    assert spans == [
        ("first_picks", 0, 4),
        ("first_picks", 4, 8),
        ("first_picks", 8, 9),
        ("first_particles", 0, 9),
    ]
    assert isinstance(done[-1], Finish)
    few, done = refusing(begin(LEARNED), Listed(count=5, is_closed=True), {0, 1, 2, 3})
    assert few.is_over
    assert names(done)[-2:] == ["first_particles", "first_classes"]


def test_for_refused_micrographs_others_are_waited_for_while_more_come() -> None:
    state, done = refusing(begin(LEARNED), Listed(count=4, is_closed=False), {0, 1})
    assert names(done) == ["first_picks"]
    state, done = refusing(state, Listed(count=5, is_closed=False), {0, 1})
    assert names(done) == ["first_picks"]
    state, done = refusing(state, Listed(count=9, is_closed=False), {0, 1})
    assert names(done) == ["first_picks", "first_particles", "first_classes"]
    assert state.of("first_picks").finished == state.of("first_particles").finished == 6


def test_results_that_go_further_than_asked_are_taken_as_they_are() -> None:
    state, (first,) = plan(begin(LEARNED), Listed(count=12, is_closed=True))
    assert isinstance(first, Process)
    further = Processed(step="first_picks", identity=first.identity, stop=7, content="x", refused=3)
    state, (following,) = plan(state, further)
    assert isinstance(following, Process)
    assert (following.step, following.stop) == ("first_particles", 7)


def test_what_broke_is_asked_for_again_when_somebody_wants_it() -> None:
    state, [first] = plan(begin(GRAPH), Listed(count=1, is_closed=False))
    assert isinstance(first, Process)
    state, told = plan(state, Broke(step="ctf", identity=first.identity, error="unreadable"))
    assert [type(t) for t in told] == [Halt]
    state, told = plan(state, Listed(count=2, is_closed=False))
    assert [type(t) for t in told] == [Halt]

    state, [again] = plan(state, Again(step="ctf"))

    assert again == replace(first, stop=2)
    state, [picks] = plan(state, answer(again))
    assert isinstance(picks, Process)
    assert picks.step == "first_picks"


def test_what_is_being_done_is_not_asked_for_twice() -> None:
    state, _ = plan(begin(GRAPH), Listed(count=3, is_closed=False))
    after, told = plan(state, Again(step="ctf"))
    assert told == ()
    assert after == state
    assert plan(state, Again(step="picks"))[1] == ()  # it has not begun
