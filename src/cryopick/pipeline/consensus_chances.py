"""How likely the candidates of a job are, judged by networks and kept so that it is done once.

``candidates.npz`` in the folder of the job holds what came of it. A job that is killed before it
is written goes on with the networks in ``models/`` whose training had ended, to the same result.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.errors import CryopickError
from cryopick.execution.local import count_cores, make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import writing
from cryopick.io.micrograph import read_micrograph_size
from cryopick.picking.consensus_examples import as_training_field
from cryopick.picking.consensus_learning import GivenExamples, Learning
from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.picking.consensus_reliability import Reliability
from cryopick.picking.network_parameters import NetworkParameters
from cryopick.picking.network_pick import network_bytes
from cryopick.picking.network_training import TrainingField
from cryopick.pipeline.consensus_judge import judge_by_network, with_places
from cryopick.pipeline.consensus_models import MODELS, ModelKeeper, is_finished
from cryopick.pipeline.consensus_negatives import simulate_negatives
from cryopick.pipeline.consensus_plan import TrainingPlan
from cryopick.pipeline.consensus_prepare import PreparedCandidates, prepare_candidates
from cryopick.pipeline.consensus_sets import CandidateField
from cryopick.pipeline.consensus_spool import (
    SPOOL,
    SpooledAnswers,
    is_spooled,
    open_spooled,
    spool_field,
)
from cryopick.pipeline.consensus_tested import read_tests, write_tests
from cryopick.pipeline.job import identity_of

__all__ = ["CHANCES", "Chances", "ShareCallback", "find_chances"]

CHANCES = "candidates.npz"
_FIELDS = ("probability", "sensitivity", "false_share", "group")
ShareCallback = Callable[[str, float], None]  # step, share done


class Chances(NamedTuple):
    """Candidates of all micrographs that could be read, and how likely they are."""

    fields: list[CandidateField]  # with the places that the networks give them
    trust: Reliability
    failed: dict[str, str]  # micrographs that were refused, and why
    n_crowded: int = 0  # micrographs so full that noise was drawn half a box from candidates


def find_chances(
    fields: Sequence[CandidateField],
    folder: Path,
    *,
    parameters: ConsensusParameters,
    plan: TrainingPlan,
    radius: float,
    compute: ComputeParameters,
    spool: Path | None = None,
    progress: ShareCallback,
) -> Chances:
    """Judge candidates by networks, unless the same was done before.

    Parameters
    ----------
    fields
        With their candidates.
    folder
        Of the job.
    parameters
        Of the consensus.
    plan
        What networks begin from, learn from and are tested on.
    radius
        How far a centre may lie from its candidate, A.
    compute
        How much of the machine to use; the first device trains.
    spool
        Folder that keeps what the networks see and answer, for another time; if not given it is
        in `folder`, and removed in the end.
    progress
        Called with the step and the share of it that is done.

    Raises
    ------
    CryopickError
        The last reason, if no micrograph can be read.
    OutputError
        If the result cannot be written.
    """
    path = folder / CHANCES
    identity = _identity(fields, parameters, plan, radius)
    tests = f"{identity} {plan.tests.identity}"
    before = _load(path, identity, fields)
    is_tested = plan.tests.positives is None or read_tests(folder, identity=tests) is not None
    if before is not None and is_tested and is_finished(folder / MODELS):
        return before
    room = spool or folder / SPOOL
    prepared, failed = _prepare(fields, room, parameters, plan, compute, progress)
    kept = [f for f in fields if f.micrograph in prepared]
    seen = [_with_examples(prepared[f.micrograph], plan) for f in kept]
    keeper = ModelKeeper(
        folder=folder / MODELS,
        identity=f"{parameters.diameter:g} {plan.identity}",
        diameter=parameters.diameter,
        phase_flip=plan.phase_flip,
    )
    extra = _extra_fields(kept, parameters, plan)
    learning = _learning(plan, keeper, extra, device=compute.devices[0])
    share = radius / parameters.diameter
    found = judge_by_network(
        kept,
        seen,
        learning=learning,
        radius=share,
        adds_peaks=parameters.adds_peaks(len(fields[0].is_seen)),
        seed=parameters.seed,
        threads=compute.threads or count_cores(),
        keep=SpooledAnswers(room),
        progress=lambda fold, done: progress("Training", (fold + done) / 2),
    )
    keeper.finish(found.fit.models, plan.start)
    write_tests(
        folder,
        plan,
        seen,
        found.fit,
        learning,
        diameter=parameters.diameter,
        radius=share,
        identity=tests,
    )
    n_crowded = found.fit.n_crowded if any(found.fit.models) else 0
    chances = Chances(found.fields, found.final, failed, n_crowded)
    _save(path, identity, chances)
    if spool is None:
        shutil.rmtree(room, ignore_errors=True)
    return chances


def _learning(
    plan: TrainingPlan, keeper: ModelKeeper, extra: Sequence[TrainingField], *, device: str
) -> Learning:
    """Say how networks are made, and bring those that they begin from to the device."""
    for start in plan.start:
        start.model.network.to(device)
    return Learning(
        start=plan.start,
        training=plan.training,
        extra=tuple(extra),
        device=device,
        kept=keeper.kept,
        keep=keeper.keep,
        begun=keeper.begun,
        keep_begun=keeper.keep_begun,
    )


def _with_examples(one: PreparedCandidates, plan: TrainingPlan) -> PreparedCandidates:
    """Lay the positions that the user has named into the field."""
    named = [
        one.in_image(np.empty((0, 2)) if e is None else e.in_field(one.seen.name))
        for e in plan.examples
    ]
    return one._replace(seen=one.seen._replace(examples=GivenExamples(*named)))


def _extra_fields(
    fields: Sequence[CandidateField], parameters: ConsensusParameters, plan: TrainingPlan
) -> list[TrainingField]:
    """Gather what networks learn from beside the micrographs."""
    most = plan.training.training_particles
    made = [
        as_training_field(sheet, is_particle=is_particle)
        for examples, is_particle in zip(plan.examples, (True, False), strict=True)
        if examples is not None
        for sheet in examples.sheets(diameter=parameters.diameter, most=most, seed=parameters.seed)
    ]
    if plan.training.shipped_negatives:
        known = [plan.ctfs[f.micrograph] for f in fields if f.micrograph in plan.ctfs]
        made += simulate_negatives(
            pixel_size=float(np.median([f.pixel_size for f in fields])),
            diameter=parameters.diameter,
            ctfs=known,
            phase_flip=plan.phase_flip,
            mask=parameters.mask,
            seed=parameters.seed,
        )
    return made


def _prepare(
    fields: Sequence[CandidateField],
    spool: Path,
    parameters: ConsensusParameters,
    plan: TrainingPlan,
    compute: ComputeParameters,
    progress: ShareCallback,
) -> tuple[dict[str, PreparedCandidates], dict[str, str]]:
    """Read micrographs side by side; give those that can be read, and why others cannot."""
    like = NetworkParameters(diameter=parameters.diameter)
    alone = replace(compute, device="cpu", threads=1)  # transforms differ with threads, in a digit
    largest = 0
    for field in fields[:: max(1, len(fields) // 20)]:
        try:
            side = max(read_micrograph_size(field.path))
        except CryopickError:
            continue  # its task says so
        largest = max(largest, network_bytes(side, field.pixel_size, parameters=like))
    executor = make_executor(alone, n_items=len(fields), bytes_per_item=largest)
    function = partial(
        _prepare_one,
        spool=spool,
        diameter=parameters.diameter,
        white_particles=parameters.white_particles,
        mask=parameters.mask,
    )
    prepared: dict[str, PreparedCandidates] = {}
    failed: dict[str, str] = {}
    last: CryopickError | None = None
    wanted = [_Wanted(f, plan.flip(f.micrograph)) for f in fields]
    for outcome in executor.map_unordered(function, wanted):
        name = fields[outcome.index].micrograph
        if outcome.error is not None or outcome.value is None:
            last = outcome.error
            failed[name] = str(last)
        else:
            places = fields[outcome.index].found.positions
            prepared[name] = open_spooled(outcome.value, positions=places)
        progress("Preparing", (len(prepared) + len(failed)) / len(fields))
    if last is not None and not prepared:
        raise last
    return prepared, failed


class _Wanted(NamedTuple):
    field: CandidateField
    ctf: FieldCtf | None


def _prepare_one(
    wanted: _Wanted, *, spool: Path, diameter: float, white_particles: bool, mask: bool
) -> Path:
    """Prepare a field, unless it is spooled already, and name its file."""
    field = wanted.field
    path = spool / f"{field.key}.field"
    made_from = (identity_of(field.path), field.pixel_size, diameter, white_particles, mask)
    identity = " ".join(map(str, (*made_from, wanted.ctf)))
    if not is_spooled(path, identity=identity):
        prepared = prepare_candidates(
            field,
            diameter=diameter,
            white_particles=white_particles,
            mask=mask,
            ctf=wanted.ctf,
        )
        spool_field(path, prepared, identity=identity)
    return path


def _identity(
    fields: Sequence[CandidateField],
    parameters: ConsensusParameters,
    plan: TrainingPlan,
    radius: float,
) -> str:
    """Name all that makes candidates be judged again when it changes."""
    judged = {
        n: v for n, v in parameters.to_dict().items() if n not in ("threshold", "min_distance")
    }
    digest = hashlib.sha256(f"{judged} {plan.identity} {radius:.6g}".encode())
    for field in fields:
        digest.update(f"{field.micrograph} {field.pixel_size:.6g}".encode())
        digest.update(identity_of(field.path).encode())
        for values in (field.found.positions, field.found.scores):
            digest.update(values.astype("<f8").tobytes())
        digest.update(field.found.has_vote.tobytes() + field.is_seen.tobytes())
    return digest.hexdigest()


def _save(path: Path, identity: str, chances: Chances) -> None:
    counts = [len(f.found.positions) for f in chances.fields]
    places = np.concatenate([f.found.positions for f in chances.fields])
    with writing(path) as handle:
        np.savez(
            handle,
            identity=np.array(identity),
            places=places,
            counts=np.array(counts, np.int64),
            names=np.array([f.micrograph for f in chances.fields], dtype=str),
            failed=np.array(list(chances.failed.items()), dtype=str).reshape(-1, 2),
            n_unseen=np.array(chances.trust.n_unseen),
            n_crowded=np.array(chances.n_crowded),
            **{name: getattr(chances.trust, name) for name in _FIELDS},
        )


def _load(path: Path, identity: str, fields: Sequence[CandidateField]) -> Chances | None:
    """Read what was found for the same candidates; None if there is nothing whole."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["identity"]) != identity or len(stored["failed"]):
                return None  # what failed is tried again
            trust = Reliability(
                n_unseen=float(stored["n_unseen"]), **{name: stored[name] for name in _FIELDS}
            )
            names = set(stored["names"].tolist())
            kept = [f for f in fields if f.micrograph in names]
            places = np.split(stored["places"], np.cumsum(stored["counts"])[:-1])
            moved = [with_places(f, p) for f, p in zip(kept, places, strict=True)]
            return Chances(moved, trust, {}, int(stored["n_crowded"]))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
