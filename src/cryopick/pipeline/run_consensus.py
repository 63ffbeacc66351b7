"""The consensus of the pickers of a run, and of a session while micrographs come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.pipeline.consensus_output_parameters import ConsensusOutputParameters
from cryopick.pipeline.consensus_request import ConsensusRequest
from cryopick.pipeline.picking import PickingResult
from cryopick.pipeline.run_context import RunContext

__all__ = ["consensus_request", "join_picks"]


def join_picks(run: RunContext, folder: Path) -> PickingResult:
    """Join the picks of all pickers of a run.

    Parameters
    ----------
    run
        With the folders of the pickers.
    folder
        Of the job.

    Raises
    ------
    CryopickError
        If they cannot be joined, or the folder cannot be written.
    """
    from cryopick.pipeline.consensus import join_request

    request = consensus_request(run, run.folders)
    return join_request(request, folder, progress=_told(run)).picks


def consensus_request(run: RunContext, folders: Mapping[str, Path]) -> ConsensusRequest:
    """Say what is joined.

    Parameters
    ----------
    run
        What its steps share.
    folders
        Of the jobs of the pickers, by step.
    """
    chosen = run.parameters
    steps = ("picks", *(f"{kind}_picks" for kind in chosen.also_pickers))
    parameters = ConsensusParameters(diameter=run.sizes.diameter, method=chosen.consensus)
    if chosen.consensus == "network":  # the others look at no micrograph
        parameters = replace(parameters, seed=chosen.seed, white_particles=chosen.white_particles)
    return ConsensusRequest(
        sets=tuple(folders[step] / "autopick.star" for step in steps),
        micrographs=(str(run.micrographs()),),
        parameters=parameters,
        output=ConsensusOutputParameters(particles=False, xmd=False),
        compute=run.compute,
    )


def _told(run: RunContext) -> Callable[[str, float], None]:
    return lambda step, share: run.tell(step, share, "")
