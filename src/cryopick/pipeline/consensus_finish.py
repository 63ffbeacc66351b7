"""Judge the candidates of a consensus and write everything that its folder holds."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryopick.io.atomic import output_errors, write_json
from cryopick.picking.field_picks import FieldPicks
from cryopick.pipeline.consensus_chances import Chances, ShareCallback, find_chances
from cryopick.pipeline.consensus_judge import judge_by_votes
from cryopick.pipeline.consensus_models import MODELS, trained_networks
from cryopick.pipeline.consensus_output import (
    extract_consensus,
    forget_particles,
    score_candidates_of_fields,
    write_consensus_xmd,
    write_picks,
)
from cryopick.pipeline.consensus_plan import TrainingPlan
from cryopick.pipeline.consensus_report import write_consensus_report
from cryopick.pipeline.consensus_request import RESULT, XMD, ConsensusRequest
from cryopick.pipeline.consensus_result import ConsensusResult, count_shared, picker_records
from cryopick.pipeline.consensus_sets import CandidateField, CoordinateSet
from cryopick.pipeline.consensus_tested import read_tests
from cryopick.pipeline.job import Job
from cryopick.tables.model import Micrographs

__all__ = ["ConsensusInput", "judge", "write_consensus"]

_FOLDS = 2
_SEARCHED = 0.25  # diameters about a candidate, at least, where a network looks for its centre


@dataclass(frozen=True, kw_only=True)
class ConsensusInput:
    """What there is to be judged."""

    table: Micrographs
    sets: list[CoordinateSet]
    fields: list[CandidateField]  # of all micrographs that a set has looked at
    radius: float  # A, within which picks are of one particle
    box_size: int  # px, in which particles are cut

    def search_radius(self, diameter: float) -> float:
        """How far from a candidate a network looks for its centre, A."""
        return max(self.radius, _SEARCHED * diameter)


def judge(
    folder: Path,
    request: ConsensusRequest,
    given: ConsensusInput,
    plan: TrainingPlan | None,
    *,
    spool: Path | None = None,
    progress: ShareCallback,
) -> Chances:
    """Find how likely candidates are, by votes or by networks too.

    Parameters
    ----------
    folder
        That takes the networks and what they say.
    request, given
        What is asked, and of what.
    plan
        Of the networks; None where votes decide.
    spool
        As `find_chances` takes it.
    progress
        Called with the step and the share of it that is done.

    Raises
    ------
    CryopickError
        If no micrograph can be read, or the folder cannot be written.
    """
    if plan is None:
        return Chances(given.fields, judge_by_votes(given.fields), {})
    return find_chances(
        given.fields,
        folder,
        parameters=request.parameters,
        plan=plan,
        radius=given.search_radius(request.parameters.diameter),
        compute=request.compute,
        spool=spool,
        progress=progress,
    )


def write_consensus(
    job: Job,
    request: ConsensusRequest,
    given: ConsensusInput,
    judged: Chances,
    plan: TrainingPlan | None,
    *,
    judged_in: Path | None = None,
    remarks: Sequence[str] = (),
    has_report: bool = True,
    progress: ShareCallback,
) -> ConsensusResult:
    """Write picks, tables, particles and report.

    Parameters
    ----------
    job
        Whose folder takes it all.
    request, given, plan, progress
        As for `judge`.
    judged
        What it has found.
    judged_in
        Folder of the networks; that of the job if not given.
    remarks
        For the reader of the report.
    has_report
        Whether to draw it: that takes a second, and more is to come in a stream.

    Raises
    ------
    OutputError
        If something cannot be written.
    """
    folder, compute = job.folder, request.compute
    found = score_candidates_of_fields(judged.fields, judged.trust, request.parameters)
    picks = write_picks(
        job,
        given.table,
        given.fields,
        judged,
        found,
        parameters=request.parameters,
        compute=compute,
        progress=lambda done, total: progress("Writing", done / total),
    )
    result = ConsensusResult(
        picks=picks,
        pickers=picker_records(given.sets, given.fields, judged.trust),
        shared=count_shared(given.fields),
        radius=given.radius,
        n_unseen=judged.trust.n_unseen,
        n_unseen_micrographs=len(given.table) - len(given.fields),
        n_crowded=judged.n_crowded,
    )
    if plan is not None:
        result = _with_networks(judged_in or folder, result, plan)
    if request.output.xmd:
        write_consensus_xmd(folder / XMD, judged.fields, found)
    else:
        with output_errors(folder / XMD):
            (folder / XMD).unlink(missing_ok=True)
    if request.output.particles and picks.to_dict()["n_picks"]:
        made = extract_consensus(
            folder,
            given.table,
            box_size=given.box_size,
            white_particles=request.parameters.white_particles,
            output=request.output,
            compute=compute,
            progress=lambda done, total: progress("Extracting", done / total),
        )
        result = replace(result, particles=made)
    else:
        forget_particles(folder)
    write_json(folder / RESULT, result.to_dict())
    if has_report:
        _report(request, result, judged.fields, found, remarks)
    return result


def _with_networks(folder: Path, result: ConsensusResult, plan: TrainingPlan) -> ConsensusResult:
    networks = tuple(trained_networks(folder / MODELS))
    is_skipped = plan.training.is_skipped
    return replace(
        result,
        networks=networks,
        untrained_folds=0 if is_skipped else _FOLDS - len({n.fold for n in networks}),
        testing=read_tests(folder) if plan.tests.positives is not None else None,
    )


def _report(
    request: ConsensusRequest,
    result: ConsensusResult,
    fields: Sequence[CandidateField],
    found: Mapping[str, FieldPicks],
    remarks: Sequence[str],
) -> None:
    with contextlib.suppress(Exception):  # no fault of drawing may cost the picks
        write_consensus_report(
            result.picks.folder,
            result,
            fields,
            found,
            diameter=request.parameters.diameter,
            is_probability=request.parameters.method != "votes",
            remarks=remarks,
        )
