"""How likely the candidates of a job are, judged by networks and kept so that it is done once.

``candidates.npz`` in the folder of the job holds what came of it. A job that is killed before it
is written trains again, to the same result.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import CryopickError
from cryopick.execution.local import count_cores, make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import writing
from cryopick.io.micrograph import read_micrograph_size
from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.picking.consensus_reliability import Reliability
from cryopick.picking.network_parameters import NetworkParameters
from cryopick.picking.network_pick import PickModel, network_bytes
from cryopick.pipeline.consensus_judge import (
    PreparedCandidates,
    by_field,
    judge_by_network,
    prepare_candidates,
)
from cryopick.pipeline.consensus_sets import CandidateField
from cryopick.pipeline.job import identity_of
from cryopick.pipeline.network_picker import model_identity

__all__ = ["CHANCES", "Chances", "ShareCallback", "find_chances"]

CHANCES = "candidates.npz"
_FIELDS = ("probability", "sensitivity", "false_share", "group")
ShareCallback = Callable[[str, float], None]  # step, share done


class Chances(NamedTuple):
    """Candidates of all micrographs that could be read, and how likely they are."""

    fields: list[CandidateField]  # with the places that the networks give them
    trust: Reliability
    failed: dict[str, str]  # micrographs that were refused, and why


def find_chances(
    fields: Sequence[CandidateField],
    folder: Path,
    *,
    parameters: ConsensusParameters,
    model: PickModel,
    radius: float,
    compute: ComputeParameters,
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
    model
        That training begins from.
    radius
        How far a centre may lie from its candidate, A.
    compute
        How much of the machine to use; the first device trains.
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
    identity = _identity(fields, parameters, model, radius)
    before = _load(path, identity, fields)
    if before is not None:
        return before
    prepared, failed = _prepare(fields, parameters, compute, progress)
    kept = [f for f in fields if f.micrograph in prepared]
    model.network.to(compute.devices[0])
    found = judge_by_network(
        kept,
        [prepared[f.micrograph] for f in kept],
        model=model,
        steps=parameters.most_steps,
        radius=radius / parameters.diameter,
        seed=parameters.seed,
        threads=compute.threads or count_cores(),
        progress=lambda fold, share: progress("Training", (fold + share) / 2),
    )
    chances = Chances(_moved(kept, found.positions), found.final, failed)
    _save(path, identity, chances)
    return chances


def _prepare(
    fields: Sequence[CandidateField],
    parameters: ConsensusParameters,
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
        prepare_candidates,
        diameter=parameters.diameter,
        white_particles=parameters.white_particles,
        mask=parameters.mask,
    )
    prepared: dict[str, PreparedCandidates] = {}
    failed: dict[str, str] = {}
    last: CryopickError | None = None
    for outcome in executor.map_unordered(function, list(fields)):
        name = fields[outcome.index].micrograph
        if outcome.error is not None or outcome.value is None:
            last = outcome.error
            failed[name] = str(last)
        else:
            prepared[name] = outcome.value
        progress("Preparing", (len(prepared) + len(failed)) / len(fields))
    if last is not None and not prepared:
        raise last
    return prepared, failed


def _moved(
    fields: Sequence[CandidateField], positions: Sequence[NDArray[np.float64]]
) -> list[CandidateField]:
    return [
        replace(f, found=f.found._replace(positions=p))
        for f, p in zip(fields, positions, strict=True)
    ]


def _identity(
    fields: Sequence[CandidateField],
    parameters: ConsensusParameters,
    model: PickModel,
    radius: float,
) -> str:
    """Name all that makes candidates be judged again when it changes."""
    judged = {
        n: v for n, v in parameters.to_dict().items() if n not in ("threshold", "min_distance")
    }
    digest = hashlib.sha256(f"{judged} {model_identity(model)} {radius:.6g}".encode())
    for field in fields:
        digest.update(f"{field.micrograph} {field.pixel_size:.6g}".encode())
        digest.update(identity_of(field.path).encode())
        for values in (field.found.positions, field.found.scores):
            digest.update(values.astype("<f8").tobytes())
        digest.update(field.found.has_vote.tobytes() + field.is_seen.tobytes())
    return digest.hexdigest()


def _save(path: Path, identity: str, chances: Chances) -> None:
    places = np.concatenate([f.found.positions for f in chances.fields])
    with writing(path) as handle:
        np.savez(
            handle,
            identity=np.array(identity),
            places=places,
            names=np.array([f.micrograph for f in chances.fields], dtype=str),
            failed=np.array(list(chances.failed.items()), dtype=str).reshape(-1, 2),
            n_unseen=np.array(chances.trust.n_unseen),
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
            return Chances(_moved(kept, by_field(kept, stored["places"])), trust, {})
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
