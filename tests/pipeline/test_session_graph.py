"""The steps of a session are those of a run, and picks that wait for nothing."""

from __future__ import annotations

import pytest

from cryopick.pipeline.run_graph import run_graph
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.session_graph import LIVE_STEPS, session_graph

TOLD = {"has_ctf": False, "pixel_size": None}


@pytest.mark.parametrize(
    "parameters",
    [
        RunParameters(),
        RunParameters(diameter=100.0, picker="template"),
        RunParameters(picker="general"),
        RunParameters(picker="general", also_pick="log"),
        RunParameters(until="first_classes"),
    ],
    ids=["learns", "templates", "general", "several", "until"],
)
def test_the_steps_of_a_run_are_all_there_and_the_same(parameters):
    of_run = run_graph(parameters, **TOLD)
    of_session = session_graph(parameters, is_live=True, **TOLD)

    assert tuple(s for s in of_session if s.name not in LIVE_STEPS) == of_run
    assert session_graph(parameters, is_live=False, **TOLD) == of_run


def test_live_picks_need_nothing_that_is_learned_and_are_those_of_the_general_model():
    steps = {s.name: s for s in session_graph(RunParameters(), is_live=True, **TOLD)}
    general = {s.name: s for s in run_graph(RunParameters(picker="general"), **TOLD)}

    assert steps["live_picks"].needs == ("ctf", "diameter")
    assert steps["live_particles"].needs == ("live_picks", "ctf", "diameter")
    assert steps["live_picks"].digest == general["picks"].digest
    assert steps["picks"].digest != general["picks"].digest


def test_without_learning_the_picks_are_live_themselves():
    names = [s.name for s in session_graph(RunParameters(picker="general"), is_live=True, **TOLD)]
    several = RunParameters(picker="general", also_pick="log,blob")
    steps = {s.name: s for s in session_graph(several, is_live=True, **TOLD)}

    assert not set(names) & set(LIVE_STEPS)
    assert "live_picks" not in steps
    assert steps["live_particles"].needs[0] == "picks"
    assert steps["particles"].needs[0] == "consensus"
