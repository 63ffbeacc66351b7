"""How likely each candidate is: by votes alone, or with networks that learn from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.image.peaks import suppress_close
from cryopick.picking.consensus_learning import Learning
from cryopick.picking.consensus_network import CrossFit, KeepAnswer, answer_of, cross_fit
from cryopick.picking.consensus_places import Places, find_places, share_shift
from cryopick.picking.consensus_points import Consensus
from cryopick.picking.consensus_reliability import Reliability, fit_reliability
from cryopick.picking.consensus_votes import VoteEffects
from cryopick.pipeline.consensus_prepare import PreparedCandidates
from cryopick.pipeline.consensus_sets import CandidateField

__all__ = [
    "NetworkJudgement",
    "by_field",
    "judge_by_network",
    "judge_by_votes",
    "keep_apart",
    "with_places",
]

Floats = NDArray[np.float64]


class NetworkJudgement(NamedTuple):
    """What votes and networks say together, and what led there."""

    votes: Reliability  # by votes and the scores of the pickers
    first: Reliability  # with the model that training began from
    first_fields: list[CandidateField]  # that this is about
    final: Reliability  # with the networks that were trained
    fields: list[CandidateField]  # that this is about: the candidates given in their order, where
    # the networks see their centres, and then those that only the networks have found
    fit: CrossFit


def judge_by_votes(
    fields: Sequence[CandidateField],
    *,
    prior: Floats | None = None,
    effects: VoteEffects | None = None,
) -> Reliability:
    """Estimate pickers and candidates of all micrographs together.

    Parameters
    ----------
    fields
        With their candidates.
    prior
        (n,) log-odds of all candidates, in the order of the fields, from elsewhere.
    effects
        What votes mean beside that, if it was found before.
    """
    seen = [np.repeat(f.is_seen[None], len(f.found.positions), 0) for f in fields]
    return fit_reliability(
        np.concatenate([f.found.has_vote for f in fields]),
        scores=np.concatenate([f.found.scores for f in fields]),
        is_seen=np.concatenate(seen),
        prior=prior,
        effects=effects,
    )


def by_field(fields: Sequence[CandidateField], values: Floats) -> list[Floats]:
    """Cut the values of all candidates into those of each field."""
    counts = [len(f.found.positions) for f in fields]
    return np.split(values, np.cumsum(counts)[:-1])


def judge_by_network(
    fields: Sequence[CandidateField],
    prepared: Sequence[PreparedCandidates],
    *,
    learning: Learning,
    radius: float,
    adds_peaks: bool = True,
    seed: int = 0,
    threads: int = 1,
    keep: KeepAnswer | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> NetworkJudgement:
    """Judge candidates by votes, then by a model as it is, then by networks trained on that, too.

    The log-odds of the model and of the network that was trained count alike. Peaks of their
    answers are candidates, too.

    Parameters
    ----------
    fields, prepared
        The micrographs with their candidates, and as the network sees them.
    learning
        How networks are made. Where they begin from random weights, only the networks that were
        trained have a say beside the votes.
    radius
        How far a centre may lie from its candidate, diameters.
    adds_peaks
        Whether what only networks have found is a candidate.
    seed, threads, keep, progress
        As `cross_fit` takes them.
    """
    votes = judge_by_votes(fields)
    plain = _begin(prepared, learning, keep or answer_of)
    first, first_fields, seen = votes, list(fields), list(prepared)
    if plain is not None:
        first, first_fields, seen = _judge(
            fields, prepared, plain, radius=radius, adds_peaks=adds_peaks
        )
    fit = cross_fit(
        [p.seen for p in seen],
        by_field(first_fields, first.probability),
        learning=learning,
        seed=seed,
        threads=threads,
        keep=keep,
        progress=progress,
    )
    if plain is None and all(a is None for a in fit.answers):
        return NetworkJudgement(votes, first, first_fields, votes, list(fields), fit)
    # networks have learned from the votes; what votes mean was found beside one that has not
    final, found, _ = _judge(
        fields,
        prepared,
        _Joined(plain, fit),
        radius=radius,
        adds_peaks=adds_peaks,
        effects=first.effects,
    )
    return NetworkJudgement(votes, first, first_fields, final, found, fit)


class _Shifted:
    """Answers, with something added to all log-odds; each is made when it is asked for."""

    def __init__(self, answers: Sequence[Tensor], shift: float) -> None:
        self._answers, self._shift = answers, shift

    def __iter__(self) -> Iterator[Tensor]:
        for answer in self._answers:
            yield torch.cat([answer[:1] + self._shift, answer[1:]])


class _Joined:
    """Answers of networks that were trained, beside those that they began from.

    Labels out of votes are not marked at random, so what calibrates on them alone may be far off.
    """

    def __init__(self, plain: _Shifted | None, fit: CrossFit) -> None:
        self._plain, self._fit = plain, fit

    def __iter__(self) -> Iterator[Tensor | None]:
        fit = self._fit
        if self._plain is None:
            yield from fit.answers
            return
        for p, t, f in zip(self._plain, fit.answers, fit.fold.tolist(), strict=True):
            is_same = not fit.models[f] or t is None
            yield p if is_same or t is None else torch.cat([(p[:1] + t[:1]) / 2, t[1:]])


def _begin(
    prepared: Sequence[PreparedCandidates], learning: Learning, ask: KeepAnswer
) -> _Shifted | None:
    """Ask the models to begin from; None if there is none."""
    judges = [learning.judges(p.seen.name) for p in prepared]
    if not all(judges):
        return None
    answers = [ask(own, p.seen) for own, p in zip(judges, prepared, strict=True)]
    prior = float(np.mean([m.prior for own in judges for m in own])) if judges else 0.5
    return _Shifted(answers, share_shift(answers, [p.seen for p in prepared], prior=prior))


def _judge(
    fields: Sequence[CandidateField],
    prepared: Sequence[PreparedCandidates],
    answers: Iterable[Tensor | None],
    *,
    radius: float,
    adds_peaks: bool,
    effects: VoteEffects | None = None,
) -> tuple[Reliability, list[CandidateField], list[PreparedCandidates]]:
    """Judge candidates and the peaks of networks by what these say, and by votes."""
    places = [
        find_places(a, p.seen, radius=radius, adds_peaks=adds_peaks)
        for a, p in zip(answers, prepared, strict=True)
    ]
    found = [
        with_places(f, p.in_micrograph(one.centres))
        for f, p, one in zip(fields, prepared, places, strict=True)
    ]
    trust = judge_by_votes(found, prior=_logits(places), effects=effects)
    seen = [
        p._replace(seen=p.seen._replace(candidates=one.centres))
        for p, one in zip(prepared, places, strict=True)
    ]
    return trust, found, seen


def _logits(places: Sequence[Places]) -> Floats:
    return np.concatenate([np.empty(0), *(p.logits for p in places)])


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


def with_places(field: CandidateField, positions: Floats) -> CandidateField:
    """Move candidates to where networks see them, and add those that nobody has voted for.

    Parameters
    ----------
    field
        With the candidates of the pickers.
    positions
        (n, 2) x and y, px: of these in their order, then of the others.
    """
    found = field.found
    n_new = len(positions) - len(found.positions)
    nobody = (n_new, found.has_vote.shape[1])
    return replace(
        field,
        found=Consensus(
            positions=positions,
            has_vote=np.concatenate([found.has_vote, np.zeros(nobody, bool)]),
            scores=np.concatenate([found.scores, np.full(nobody, np.nan)]),
            spread=np.concatenate([found.spread, np.zeros(n_new)]),
        ),
    )
