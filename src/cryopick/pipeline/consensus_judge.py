"""How likely each candidate is: by votes alone, or with networks that learn from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.errors import DataError
from cryopick.image.peaks import suppress_close
from cryopick.io.micrograph import read_micrograph
from cryopick.picking.consensus_network import (
    ConsensusField,
    CrossFit,
    cross_fit,
    score_candidates,
)
from cryopick.picking.consensus_reliability import Reliability, fit_reliability
from cryopick.picking.network_field import prepare_network_field
from cryopick.picking.network_pick import PickModel
from cryopick.pipeline.consensus_sets import CandidateField

__all__ = [
    "NetworkJudgement",
    "PreparedCandidates",
    "by_field",
    "judge_by_network",
    "judge_by_votes",
    "keep_apart",
    "prepare_candidates",
]

Floats = NDArray[np.float64]


class NetworkJudgement(NamedTuple):
    """What votes and networks say together, and what led there."""

    votes: Reliability  # by votes and the scores of the pickers
    first: Reliability  # with the model that training began from
    final: Reliability  # with the networks that were trained
    fit: CrossFit
    positions: list[Floats]  # (n, 2) x and y of the candidates of each field, px: as the network
    # sees their centres where it takes them for particles


class PreparedCandidates(NamedTuple):
    """A micrograph as the network sees it, and how its pixels lie in the micrograph."""

    seen: ConsensusField
    scale: Floats  # (2,) y and x, micrograph px per px
    offset: Floats  # (2,) y and x, micrograph px

    def in_micrograph(self, places: Floats) -> Floats:
        """Bring (n, 2) y and x, px of the image, to x and y in px of the micrograph."""
        return np.asarray((places * self.scale + self.offset)[:, ::-1])


def judge_by_votes(fields: Sequence[CandidateField], *, prior: Floats | None = None) -> Reliability:
    """Estimate pickers and candidates of all micrographs together.

    Parameters
    ----------
    fields
        With their candidates.
    prior
        (n,) log-odds of all candidates, in the order of the fields, from elsewhere.
    """
    seen = [np.repeat(f.is_seen[None], len(f.found.positions), 0) for f in fields]
    return fit_reliability(
        np.concatenate([f.found.has_vote for f in fields]),
        scores=np.concatenate([f.found.scores for f in fields]),
        is_seen=np.concatenate(seen),
        prior=prior,
    )


def by_field(fields: Sequence[CandidateField], values: Floats) -> list[Floats]:
    """Cut the values of all candidates into those of each field."""
    counts = [len(f.found.positions) for f in fields]
    return np.split(values, np.cumsum(counts)[:-1])


def prepare_candidates(
    field: CandidateField, *, diameter: float, white_particles: bool, mask: bool
) -> PreparedCandidates:
    """Read a micrograph as the network sees it, with its candidates.

    Parameters
    ----------
    field
        The micrograph and its candidates.
    diameter
        Of the particle, A.
    white_particles
        Whether particles are already white.
    mask
        Whether to leave out ice, carbon and holes.

    Raises
    ------
    FormatError
        If the micrograph cannot be read.
    DataError
        If it is constant or not finite, or the particle too small to be seen.
    """
    try:
        prepared = prepare_network_field(
            torch.from_numpy(read_micrograph(field.path)),
            pixel_size=field.pixel_size,
            diameter=diameter,
            edge_distance=0.0,
            white_particles=white_particles,
            mask=mask,
        )
    except DataError as error:
        if error.what == "micrograph":  # pure functions know no file
            error.what = str(field.path)
        raise
    working = prepared.search.field
    scale, offset = np.array(working.scale), np.array(working.offset)
    places = (field.found.positions[:, ::-1] - offset) / scale
    seen = ConsensusField(prepared.image, prepared.search.is_valid, places)
    return PreparedCandidates(seen, scale, offset)


def judge_by_network(
    fields: Sequence[CandidateField],
    prepared: Sequence[PreparedCandidates],
    *,
    model: PickModel,
    steps: int,
    radius: float,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int, float], None] | None = None,
) -> NetworkJudgement:
    """Judge candidates by votes, then by a model as it is, then by networks trained on that, too.

    The log-odds of the model and of the network that was trained count alike.

    Parameters
    ----------
    fields, prepared
        The micrographs with their candidates, and as the network sees them.
    model
        To begin from. It has not seen these micrographs.
    steps
        Of each training, at most.
    radius
        How far a centre may lie from its candidate, diameters.
    seed, threads, progress
        As `cross_fit` takes them.
    """
    votes = judge_by_votes(fields)
    plain = [score_candidates(model, p.seen, radius=radius) for p in prepared]
    first = judge_by_votes(fields, prior=np.concatenate([p.logits for p in plain]))
    fit = cross_fit(
        [p.seen for p in prepared],
        by_field(fields, first.probability),
        model=model,
        steps=steps,
        radius=radius,
        seed=seed,
        threads=threads,
        progress=progress,
    )
    # labels out of votes are not marked at random, so what calibrates on them alone may be far off
    both = [(p.logits + j.logits) / 2 for p, j in zip(plain, fit.fields, strict=True)]
    final = judge_by_votes(fields, prior=np.concatenate(both))
    positions = [p.in_micrograph(j.centres) for p, j in zip(prepared, fit.fields, strict=True)]
    return NetworkJudgement(votes, first, final, fit, positions)


def keep_apart(positions: Floats, score: Floats, *, distance: float) -> NDArray[np.int64]:
    """Order candidates of a field by score and leave out those too close to a better one.

    Parameters
    ----------
    positions
        (n, 2) in any unit.
    score
        (n,), higher is better.
    distance
        Least distance of two candidates, in the same unit.

    Returns
    -------
    numpy.ndarray
        (k,) int64: places of those kept, best first.
    """
    order = np.argsort(-score, kind="stable")
    kept = suppress_close(positions[order], min_distance=distance)
    return np.asarray(order[kept])
