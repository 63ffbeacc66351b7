"""What votes add to the answer of a network, though pickers and networks see the same images.

What is clear to the network is clear to the pickers, too, whether it is a particle or not. So how
often a picker votes depends on the log-odds of the network, in any smooth way that the data show,
and beyond that on the latent class, particle or not; only the latter speaks for a particle.
Expectation-maximisation finds both (Dawid and Skene, Applied Statistics 1979, with a covariate;
the curve is one of P-splines of degree 1, Eilers and Marx, Statistical Science 1996). Even so
pickers share more than that, so their likelihood counts with a power below 1, as for composite
likelihoods (Pauli, Racugno and Ventura, Statistica Sinica 2011).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cryopick.picking.consensus_logistic import fit_logistic

__all__ = ["VoteEffects", "weigh_votes"]

_ROUNDS, _CLOSE = 150, 1e-3
_POWER = 0.75  # of the likelihood of the votes
_KNOTS, _BINS = 7, 16  # of the curve; of the log-odds of the network, for the sums
_LEVEL, _BEND = 2.0, 1.0  # spreads of the curve's values and of its second differences
_CLASS = (2.0, 0.5)  # log-odds of a vote that a particle adds: expected, spread
_SLOPE, _SHIFT = (1.0, 0.03), (0.0, 0.03)  # of the network's log-odds: expected, spread
_MOST = 8.0  # log-odds beyond which pickers see no difference
_STEPS, _LONGEST = 3, 2.0  # of Newton's method
_LEAST_VARIANCE = 0.1

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class VoteEffects:
    """What the votes and scores of each picker mean beside a network."""

    knots: Floats  # (k,) log-odds of the network
    votes: tuple[Floats, ...]  # of each picker: (k + 1,) the curve at the knots, and the class
    scores: tuple[tuple[Floats, float] | None, ...]  # the same for scores, and their variance


def weigh_votes(
    vote: Bools,
    seen: Bools,
    weight: Floats,
    known: Floats,
    *,
    effects: VoteEffects | None = None,
) -> tuple[Floats, VoteEffects | None]:
    """Find how likely candidates are, from votes and from what a network says.

    Parameters
    ----------
    vote, seen
        (n, pickers) who has voted, and who has looked; candidates may be without a vote.
    weight
        (n, pickers) normal score of each vote among those of the picker; 0 where there is none.
    known
        (n,) log-odds of the network, calibrated.
    effects
        What votes mean, as it was found beside another network that had not learned from them;
        found from these votes if not given.

    Returns
    -------
    tuple
        (n,) probability of a particle, and what votes mean. Where votes explain more than the
        network does, its log-odds count less; they never count for more than they say.
    """
    if not len(known):
        return np.zeros(0), effects
    if effects is not None:
        said = _said(_design(_clipped(known), effects.knots), effects, vote, seen, weight)
        return expit(known + _POWER * (said[:, 1] - said[:, 0])), effects
    fit = _Fit(known)
    for _ in range(_ROUNDS):
        before = fit.chance
        fit.update(vote, seen, weight)
        if np.abs(fit.chance - before).max() < _CLOSE:
            break
    return fit.chance, fit.effects


def _said(each: Floats, effects: VoteEffects, vote: Bools, seen: Bools, weight: Floats) -> Floats:
    """(n, 2) log-likelihoods of what all pickers say."""
    said = np.zeros((len(vote), 2))
    pickers = zip(effects.votes, effects.scores, strict=True)
    for (of_vote, of_score), yes, looked, score in zip(
        pickers, vote.T, seen.T, weight.T, strict=True
    ):
        odds = each @ of_vote
        no = np.where(looked[:, None], -np.logaddexp(0, odds), 0.0)
        said += np.where(yes[:, None], -np.logaddexp(0, -odds), no)
        if of_score is not None:
            missed = (score[yes, None] - each[yes] @ of_score[0]) ** 2
            said[yes] -= 0.5 * missed / of_score[1]
    return said


def _clipped(known: Floats) -> Floats:
    return np.clip(known, -_MOST, _MOST)


class _Fit:
    """Expectation-maximisation over the class."""

    def __init__(self, known: Floats) -> None:
        self.known = known
        self.chance: Floats = expit(known)
        clear = _clipped(known)
        edges = np.quantile(clear, np.linspace(0, 1, _BINS + 1)[1:-1])
        bins = np.searchsorted(edges, clear)
        self._bin = (bins[None] == np.arange(_BINS)[:, None]).astype(np.float64)
        of_bin = self._bin @ clear / np.maximum(self._bin.sum(1), 1)
        knots = np.quantile(clear, np.linspace(0.02, 0.98, _KNOTS))
        self._knots = knots = np.maximum.accumulate(knots + 1e-6 * np.arange(_KNOTS))
        self._each = _design(clear, knots)  # (n, 2, knots + 1)
        self._binned = _design(of_bin, knots).reshape(2 * _BINS, -1)
        bend = np.diff(np.eye(_KNOTS), 2, axis=0)
        self._precision = np.zeros((_KNOTS + 1, _KNOTS + 1))
        self._precision[:-1, :-1] = np.eye(_KNOTS) / _LEVEL**2 + bend.T @ bend / _BEND**2
        self._precision[-1, -1] = 1 / _CLASS[1] ** 2
        self._expected = np.append(np.zeros(_KNOTS), _CLASS[0])
        self._votes: dict[int, Floats] = {}
        self._scores: dict[int, tuple[Floats, float] | None] = {}

    @property
    def _classes(self) -> Floats:
        """(n, 2) probabilities of no particle and of a particle."""
        return np.stack([1 - self.chance, self.chance], 1)

    def update(self, vote: Bools, seen: Bools, weight: Floats) -> None:
        """Fit pickers to the classes, then the classes to what pickers say."""
        for picker in range(vote.shape[1]):
            yes, looked = vote[:, picker], seen[:, picker]
            self._votes[picker] = self._fit_votes(picker, yes, looked)
            has_scores = yes.any() and np.ptp(weight[yes, picker]) > 0
            fitted = self._fit_scores(yes, weight[yes, picker]) if has_scores else None
            self._scores[picker] = fitted
        said = _said(self._each, self.effects, vote, seen, weight)
        slope, shift = fit_logistic(self.known, self.chance, 0.0, _SLOPE, _SHIFT)
        odds = float(np.clip(slope, 0.0, 1.0)) * self.known + shift
        self.chance = expit(odds + _POWER * (said[:, 1] - said[:, 0]))

    @property
    def effects(self) -> VoteEffects:
        """What has been found of all pickers."""
        return VoteEffects(self._knots, tuple(self._votes.values()), tuple(self._scores.values()))

    def _fit_votes(self, picker: int, yes: Bools, looked: Bools) -> Floats:
        """Fit the effects on the votes of a picker, by some steps of Newton's method."""
        found = self._votes.get(picker, self._expected)
        rows, classes = self._binned, self._classes
        total = (self._bin @ (classes * looked[:, None])).ravel()
        voted = (self._bin @ (classes * yes[:, None])).ravel()
        for _ in range(_STEPS):
            rate = expit(rows @ found)
            gradient = rows.T @ (voted - total * rate)
            gradient -= self._precision @ (found - self._expected)
            hessian = (rows * (total * rate * (1 - rate))[:, None]).T @ rows + self._precision
            found = found + np.clip(np.linalg.solve(hessian, gradient), -_LONGEST, _LONGEST)
            found[-1] = max(found[-1], 0.0)  # a vote never speaks against a particle
        return found

    def _fit_scores(self, yes: Bools, weight: Floats) -> tuple[Floats, float]:
        """Fit the effects on the scores of a picker, and their variance."""
        rows, classes = self._each[yes], self._classes[yes]
        weighed = rows * classes[:, :, None]
        normal = np.tensordot(weighed, rows, ([0, 1], [0, 1])) + self._precision
        effects = np.linalg.solve(normal, np.tensordot(weight, weighed.sum(1), 1))
        missed = (weight[:, None] - rows @ effects) ** 2
        variance = max(float((classes * missed).sum() / len(weight)), _LEAST_VARIANCE)
        return np.asarray(effects), variance


def _design(clear: Floats, knots: Floats) -> Floats:
    """Hats at the knots, and the class, (n, 2, knots + 1)."""
    hats = np.stack([np.interp(clear, knots, one) for one in np.eye(len(knots))], -1)
    both = np.repeat(hats[:, None], 2, axis=1)
    of_class = np.broadcast_to(np.array([0.0, 1.0])[None, :, None], (len(clear), 2, 1))
    return np.concatenate([both, of_class], -1)
