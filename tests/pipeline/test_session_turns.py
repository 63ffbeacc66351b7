"""What a session does next: micrographs that come one by one are taken together, and in order."""

from __future__ import annotations

from collections import defaultdict

import pytest

from cryopick.pipeline.planner import Listed, Make, Process, Processed
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.session_graph import session_graph
from cryopick.pipeline.session_order import NewestFirst
from cryopick.pipeline.session_runner import LiveRunner

GENERAL = RunParameters(diameter=180.0, picker="general", until="particles")


def runner_of(parameters=GENERAL, *, backlog):
    """A runner of which nobody asks to carry anything out."""
    runner = LiveRunner(
        project=None, context=None, micrographs=(), pixel_size=None, after=None,
        order=NewestFirst(backlog=backlog), least=4,
    )  # fmt: skip
    runner.follow(session_graph(parameters, has_ctf=False, pixel_size=None, is_live=True))
    return runner


def list_one_by_one(runner, first, stop):
    for count in range(first + 1, stop + 1):
        runner.hear(Listed(count=count, is_closed=False))


def take_all(runner, *, come=(), most=1000):
    """Do what is next, at once, until nothing is; others come after some of the turns."""
    found, come = [], dict(come)
    for turn in range(most):
        if turn in come:
            list_one_by_one(runner, runner.state.count, come[turn])
        one = runner.next_for(takes_sets=False)
        if one is None:
            return found
        is_ahead = type(one) is not Process
        found.append((one.step, one.start, one.stop, is_ahead))
        stop = runner.state.of(one.step).finished if is_ahead else one.stop
        runner.hear(Processed(step=one.step, identity=one.identity, stop=stop, content=""))
    raise AssertionError("there is no end")


def test_those_that_came_one_by_one_are_taken_together_and_finished_before_others():
    runner = runner_of(backlog=1.0)
    list_one_by_one(runner, 0, 10)

    steps = ("ctf", "picks", "particles")
    assert take_all(runner) == [
        (step, first, min(first + 4, 10), False) for first in (0, 4, 8) for step in steps
    ]


@pytest.mark.parametrize("backlog", [0.1, 0.5, 1.0])
def test_each_step_goes_through_all_in_order_whoever_comes_meanwhile(backlog):
    runner = runner_of(backlog=backlog)
    list_one_by_one(runner, 0, 30)

    taken = take_all(runner, come={3: 33, 7: 50, 8: 51, 20: 60})

    assert runner.state.count == 60
    by_step = defaultdict(list)
    for step, start, stop, is_ahead in taken:
        assert 0 < stop - start <= 4
        if not is_ahead:
            by_step[step].append((start, stop))
    for edges in by_step.values():
        assert [start for start, _ in edges] == [0, *(stop for _, stop in edges[:-1])]
        assert edges[-1][1] == 60
    assert set(by_step) == {"ctf", "picks", "particles"}
    assert any(is_ahead for *_, is_ahead in taken) == (backlog < 1)


def test_the_newest_take_all_steps_that_they_can_before_others_are_begun():
    runner = runner_of(backlog=0.25)
    list_one_by_one(runner, 0, 30)

    taken = take_all(runner)

    assert [step for step, *_ in taken] == ["ctf", "picks", "particles"] * (len(taken) // 3)
    assert taken[:6] == [
        *((step, 0, 4, False) for step in ("ctf", "picks", "particles")),
        *((step, 26, 30, True) for step in ("ctf", "picks", "particles")),
    ]


def test_what_the_picker_learns_from_comes_before_the_newest():
    runner = runner_of(RunParameters(diameter=180.0, subset=20), backlog=0.1)
    list_one_by_one(runner, 0, 60)

    taken = take_all(runner)

    first = next(k for k, (*_, is_ahead) in enumerate(taken) if is_ahead)
    assert 20 <= max(stop for step, _, stop, _ in taken[:first] if step == "ctf") <= 24
    assert {step for step, *_ in taken[first:]} >= {"ctf", "live_picks", "live_particles"}


def test_what_was_taken_and_not_done_is_taken_again():
    runner = runner_of(backlog=0.25)
    list_one_by_one(runner, 0, 30)
    for _ in range(3):
        one = runner.next_for(takes_sets=False)
        runner.hear(Processed(step=one.step, identity=one.identity, stop=one.stop, content=""))
    newest = runner.next_for(takes_sets=False)

    runner.put_back(newest)

    assert not isinstance(newest, Make)
    assert runner.next_for(takes_sets=False) == newest
    assert type(newest) is not Process
