"""What the steps of a session do in the folders of their jobs: what those of a run do.

They do it for the micrographs of a portion alone. Particles are cut out of these, too, and the
table that joins all of them is made when the session closes: to make it anew for each micrograph
would take longer and longer.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace

from cryopick.errors import DataError
from cryopick.pipeline.growing import PORTION
from cryopick.pipeline.run_context import Outcome, RunContext, StepTell
from cryopick.pipeline.run_parameters import ALSO_PICKERS
from cryopick.pipeline.run_steps import STEPS, box_size_for
from cryopick.pipeline.runner import StepDone, Work
from cryopick.pipeline.session_graph import LIVE_STEPS, live_parameters
from cryopick.pipeline.session_portion import LiveTables
from cryopick.pipeline.session_runner import LiveWork
from cryopick.tables.paths import micrograph_key
from cryopick.tables.relion import read_micrographs, write_coordinate_files

__all__ = ["perform_live", "perform_set", "tidy_portions"]

_FINISHED_BY_RUN = ("ctf", "picks", *(f"{kind}_picks" for kind in ALSO_PICKERS), "particles")


def perform_live(work: Work, tables: LiveTables) -> Outcome:
    """Do the work of a step over micrographs, for those that are asked for.

    Parameters
    ----------
    work
        What is to be done.
    tables
        Of the session.

    Raises
    ------
    CryopickError
        If no micrograph so far can be worked on, or the disk does not take the results.
    """
    if not isinstance(work, LiveWork):
        tables.write()
        return STEPS[work.step](work.context, work.folder, work.wanted)
    run, name = work.context, work.step
    if name in LIVE_STEPS:
        run = replace(run, parameters=live_parameters(run.parameters))
        name = LIVE_STEPS[name]
    part = tables.begin(run, work.folder, work.numbers)
    if part is None:
        return Outcome(content=(), facts=tables.end(work.folder, {}, is_last=work.is_last))
    if name == "particles":
        is_live = work.step != name and "live_picks" in run.folders
        finest = tables.micrographs.finest_pixel
        return _cut(part, work, picks="live_picks" if is_live else "picks", finest=finest)
    outcome = STEPS[name](part, work.folder, work.wanted)
    facts = tables.end(work.folder, outcome.facts, is_last=work.is_last)
    return replace(outcome, facts=facts)


def perform_set(work: Work, *, tell: StepTell, say: Callable[[str], None]) -> Outcome:
    """Do the work of a set in a process of its own, which lends `tell` and `say`.

    Raises
    ------
    CryopickError
        If it cannot be done.
    """
    context = replace(work.context, tell=tell, say=say)
    return STEPS[work.step](context, work.folder, work.wanted)


def tidy_portions(steps: Iterable[StepDone]) -> None:
    """Remove what portions have left in the folders of jobs that `run` finishes."""
    for step in steps:
        if step.name in _FINISHED_BY_RUN:
            (step.folder / "subset.star").unlink(missing_ok=True)
            shutil.rmtree(step.folder / PORTION, ignore_errors=True)


def _cut(run: RunContext, work: LiveWork, *, picks: str, finest: float) -> Outcome:
    """Cut particles out of some micrographs, in boxes that do for all."""
    names = [str(n) for n in read_micrographs(run.table).rows["micrograph"]]
    picked = run.folders[picks]
    places = [(n, picked / f"{micrograph_key(n)}_autopick.star") for n in names]
    listed = work.folder / PORTION / "autopick.star"
    write_coordinate_files(listed, [(n, str(path)) for n, path in places if path.exists()])
    parameters = run.parameters
    if not parameters.box_size:
        box = box_size_for(run.sizes.max_diameter, pixel_size=finest)
        parameters = replace(parameters, box_size=box)
    run = replace(run, parameters=parameters, folders={**run.folders, "picks": listed.parent})
    try:
        return STEPS["particles"](run, work.folder, work.wanted)
    except DataError as error:
        if error.what != str(listed):
            raise
        return Outcome(content=(), facts={"n_particles": 0, "failed": {}})  # none was picked
