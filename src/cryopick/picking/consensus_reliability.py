"""How far each of several pickers can be trusted, and so each candidate.

A latent class says whether a candidate is a particle; given that, pickers vote independently,
each with its own sensitivity and rate of false votes (Dawid and Skene, Applied Statistics 1979).
Expectation-maximisation finds both, and three things besides:

- A candidate without a vote is never seen, so the votes come from a truncated distribution: the
  unseen candidates of each class are counted in (as Dempster, Laird and Rubin, 1977, section 4.2).
- A picker's scores weigh its votes: the log-odds grow with the normal score of their rank.
- What else is known of a candidate, as the answer of a network, is where its log-odds begin
  before any vote (Raykar et al., JMLR 2010); `consensus_votes` says what votes add to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri
from scipy.stats import rankdata

from cryopick.checks import require_shape
from cryopick.picking.consensus_logistic import fit_logistic
from cryopick.picking.consensus_related import related_pickers
from cryopick.picking.consensus_votes import VoteEffects, weigh_votes

__all__ = ["Reliability", "fit_reliability"]

_ROUNDS, _CLOSE = 400, 1e-5
_LIKE_PARTICLES, _LIKE_OTHERS = (7.0, 3.0), (1.0, 9.0)  # votes and none of a picker not yet known
_MOST_UNSEEN = 20.0  # unseen candidates of a class for each candidate
_LEAST = 1e-4  # of a rate, and of what it lacks to 1
_SCORE_SLOPE = (1.0, 1.0)  # log-odds for a deviation of the score: expected, spread
_SHIFT = (0.0, 3.0)  # of the log-odds before any vote, where nothing is known
_NONE = (0.0, 1e-6)  # a slope or a shift that is left out
_AGREED, _ALONE = 0.95, 0.4  # probability to begin with, of what all or one has voted for
_OF_ONE = 1.0  # log-odds of the picks of a single picker, which nothing tells

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """What the votes say of pickers and candidates."""

    probability: Floats  # (n,) that a candidate is a particle
    sensitivity: Floats  # (pickers,) share of the particles that a picker finds
    false_share: Floats  # (pickers,) share of its picks that are no particles
    group: NDArray[np.int64]  # (pickers,) pickers of one number were counted as one
    n_unseen: float  # particles that are no candidates, as no picker has found them
    effects: VoteEffects | None = None  # what votes mean beside a network, if there is one

    @property
    def n_groups(self) -> int:
        """Pickers that are counted."""
        return int(self.group.max()) + 1


def fit_reliability(
    has_vote: Bools,
    *,
    scores: Floats | None = None,
    is_seen: Bools | None = None,
    prior: Floats | None = None,
    effects: VoteEffects | None = None,
) -> Reliability:
    """Find how reliable pickers are and how likely candidates.

    Parameters
    ----------
    has_vote
        (n, pickers), candidates of all micrographs. Each has a vote, unless `prior` is given: then
        candidates that only the network has found are among them, and none is unseen.
    scores
        (n, pickers), higher is better; nan where there is none.
    is_seen
        (n, pickers) whether the picker has looked at the micrograph of the candidate; all have if
        not given.
    prior
        (n,) log-odds that something other than these votes gives, calibrated.
    effects
        What votes mean beside that, if it was found before for the same pickers.

    Returns
    -------
    Reliability
        Of pickers that are related only one counts, so copies of one set gain nothing. With one
        picker alone, candidates are in the order of its scores.

    Raises
    ------
    ShapeError
        If the arrays do not match.
    """
    require_shape(has_vote, "n k", name="has_vote")
    n, k = has_vote.shape
    given = np.full((n, k), np.nan) if scores is None else np.asarray(scores, np.float64)
    seen = np.ones((n, k), bool) if is_seen is None else np.asarray(is_seen, bool)
    for name, array in (("scores", given), ("is_seen", seen)):
        require_shape(array, f"{n} {k}", name=name)
    if prior is not None:
        require_shape(prior, f"{n}", name="prior")
    seen = seen | has_vote
    group = related_pickers(has_vote, given, seen)
    votes = _Votes(has_vote, given, seen, group)
    if prior is not None and k:
        known = np.asarray(prior, np.float64)
        unseen = 0.0
        chance, effects = weigh_votes(votes.vote, votes.seen, votes.weight, known, effects=effects)
    else:
        chance, unseen = _fit_votes(votes)
    sensitivity = np.zeros(k)
    n_true = chance.sum() + unseen
    for j in range(k):
        share = chance[seen[:, j]].sum() / max(chance.sum(), 1e-9)
        sensitivity[j] = (chance @ has_vote[:, j]) / max(n_true * share, 1e-9)
    of_picks = (chance @ has_vote) / np.maximum(has_vote.sum(0), 1)
    return Reliability(
        probability=chance,
        sensitivity=sensitivity,
        false_share=np.where(has_vote.any(0), 1 - of_picks, 0.0),
        group=group,
        n_unseen=unseen,
        effects=effects,
    )


class _Votes:
    """The votes of groups of related pickers, and how strong each is."""

    def __init__(
        self, has_vote: Bools, scores: Floats, is_seen: Bools, group: NDArray[np.int64]
    ) -> None:
        strength = _strength(has_vote, scores)
        n_groups = int(group.max()) + 1 if len(group) else 0
        members = [group == g for g in range(n_groups)]
        self.vote = np.stack([has_vote[:, m].any(1) for m in members], 1)
        self.seen = np.stack([is_seen[:, m].any(1) for m in members], 1)
        self.weight = np.zeros(self.vote.shape)
        for g, mine in enumerate(members):
            looked = np.maximum(is_seen[:, mine].sum(1), 1)
            mean = strength[:, mine].sum(1) / looked
            self.weight[:, g] = _normal_scores(mean, self.vote[:, g])
        patterns, which = np.unique(self.seen, axis=0, return_inverse=True)
        self.patterns, self.pattern = patterns, which.reshape(-1)


def _strength(has_vote: Bools, scores: Floats) -> Floats:
    """0 without a vote, else from 1 to 2 by the rank of the score among those of the picker."""
    strength = np.where(has_vote, 1.5, 0.0)
    for j in range(has_vote.shape[1]):
        scored = has_vote[:, j] & np.isfinite(scores[:, j])
        if scored.any():
            strength[scored, j] = 1 + (rankdata(scores[scored, j]) - 0.5) / scored.sum()
    return strength


def _normal_scores(values: Floats, used: Bools) -> Floats:
    """Give some values the normal scores of their ranks (van der Waerden), the others 0."""
    found = np.zeros(len(values))
    if used.any() and np.ptp(values[used]) > 0:
        ranks = (rankdata(np.round(values[used], 9)) - 0.5) / used.sum()
        found[used] = ndtri(ranks)
    return found


class _Fit:
    """Expectation-maximisation."""

    def __init__(self, votes: _Votes) -> None:
        self.votes = votes
        n, groups = votes.vote.shape
        self.shift = 0.0
        self.rates = np.zeros((2, groups))  # of votes for others and for particles
        self.gain = np.zeros((n, groups))  # log-odds that the score of a vote adds
        self.missed = np.ones((2, len(votes.patterns)))  # chance that nobody votes
        self.unseen = 0.0
        share = votes.vote.sum(1) / np.maximum(votes.seen.sum(1), 1)
        self.chance = _ALONE + (_AGREED - _ALONE) * share

    def run(self) -> None:
        if not self.votes.vote.size:
            return
        if self.votes.vote.shape[1] == 1:
            self.chance = expit(_OF_ONE + _SCORE_SLOPE[0] * self.votes.weight[:, 0])
            return
        for _ in range(_ROUNDS):
            before = self.chance
            self._maximise()
            self.chance = expit(self._log_odds())
            if np.abs(self.chance - before).max() < _CLOSE:
                break

    def _log_odds(self) -> Floats:
        vote, seen = self.votes.vote, self.votes.seen
        yes = np.log(self.rates[1]) - np.log(self.rates[0])
        no = np.log1p(-self.rates[1]) - np.log1p(-self.rates[0])
        said = np.where(vote, yes + self.gain, np.where(seen, no, 0.0)).sum(1)
        return np.asarray(self.shift + said)

    def _maximise(self) -> None:
        votes, classes = self.votes, np.stack([1 - self.chance, self.chance])
        seen = votes.patterns.astype(np.float64)  # (patterns, groups)
        in_pattern = np.stack([np.bincount(votes.pattern, c, minlength=len(seen)) for c in classes])
        odds = self.missed / np.maximum(1 - self.missed, 1e-9)
        most = _MOST_UNSEEN * in_pattern.sum(0)
        lost = np.minimum(in_pattern * odds, most) if self.rates.any() else 0 * in_pattern
        prior = np.array([_LIKE_OTHERS, _LIKE_PARTICLES])
        looked = (in_pattern + lost) @ seen
        self.rates = (classes @ votes.vote + prior[:, :1]) / (looked + prior.sum(1)[:, None])
        self.rates = self.rates.clip(_LEAST, 1 - _LEAST)
        self.missed = np.exp(np.log1p(-self.rates) @ seen.T)
        self.unseen = float(lost[1].sum())
        self._weigh_scores()
        self._place_shift()

    def _weigh_scores(self) -> None:
        for g in range(self.votes.vote.shape[1]):
            mine = self.votes.vote[:, g]
            weight, chance = self.votes.weight[mine, g], self.chance[mine]
            if not len(weight) or not weight.any():
                continue
            slope, shift = fit_logistic(weight, chance, 0.0, _SCORE_SLOPE, (0.0, 10.0))
            even = chance.mean().clip(_LEAST, 1 - _LEAST)
            slope = max(slope, 0.0)
            self.gain[mine, g] = slope * weight + shift - np.log(even / (1 - even))

    def _place_shift(self) -> None:
        offset = (np.log1p(-self.missed[1]) - np.log1p(-self.missed[0]))[self.votes.pattern]
        nothing = np.zeros(len(self.chance))
        _, self.shift = fit_logistic(nothing, self.chance, offset, _NONE, _SHIFT)


def _fit_votes(votes: _Votes) -> tuple[Floats, float]:
    """Probabilities (n,), and the number of particles that nobody has voted for."""
    fit = _Fit(votes)
    fit.run()
    return fit.chance, fit.unseen
