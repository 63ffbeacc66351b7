"""The steps of a session: those of a run, and two that pick at once while the picker learns."""

from __future__ import annotations

from dataclasses import replace

from cryopick.pipeline.planner import Step
from cryopick.pipeline.run_graph import run_graph
from cryopick.pipeline.run_parameters import RunParameters

__all__ = ["LIVE_STEPS", "live_parameters", "session_graph"]

LIVE_STEPS = {"live_picks": "picks", "live_particles": "particles"}  # and the steps they are like


def live_parameters(parameters: RunParameters) -> RunParameters:
    """Parameters of the picks that need no learning: those of the general model."""
    return replace(parameters, picker="general", also_pick="")


def session_graph(
    parameters: RunParameters,
    *,
    has_ctf: bool,
    pixel_size: float | None,
    is_live: bool,
) -> tuple[Step, ...]:
    """Make the steps of a session, in order.

    Parameters
    ----------
    parameters
        Of the run.
    has_ctf, pixel_size
        As for `run_graph`.
    is_live
        Whether micrographs are picked with the general model until a picker has learned and has
        picked them all; or, with several pickers, until their consensus is found. Without either
        there is nothing to wait for.

    Returns
    -------
    tuple
        The steps of `run_graph`, all of them, and `LIVE_STEPS` before those that are waited for.
    """
    steps = run_graph(parameters, has_ctf=has_ctf, pixel_size=pixel_size)
    names = [step.name for step in steps]
    first = next((n for n in ("first_picks", "consensus") if n in names), None)
    if not is_live or first is None:
        return steps
    general = replace(live_parameters(parameters), until="particles")
    like = {s.name: s for s in run_graph(general, has_ctf=has_ctf, pixel_size=pixel_size)}
    base = like["picks"].needs
    picks = "live_picks" if first == "first_picks" else "picks"
    needs = {"live_picks": base, "live_particles": (picks, *base)}
    live = tuple(
        replace(like[model], name=name, needs=needs[name])
        for name, model in LIVE_STEPS.items()
        if name != "live_picks" or picks == "live_picks"
    )
    place = names.index(first)
    return (*steps[:place], *live, *steps[place:])
