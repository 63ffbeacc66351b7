"""From marked fields to a model that can be trusted: validation, calibration, threshold."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from cryopick.picking.evaluate import average_precision, is_near, match_picks
from cryopick.picking.network import PARTICLE, PickNetwork, apply_in_tiles
from cryopick.picking.network_learner import DECAY, Learner, LearnerState
from cryopick.picking.network_pick import FLOOR, PickModel, field_chances, find_centres
from cryopick.picking.network_training import (
    POSITIVE,
    RATE,
    TrainingField,
    TrainingProgress,
    fit_network,
)

__all__ = [
    "PATIENCE",
    "FitState",
    "Found",
    "Look",
    "TrainedModel",
    "calibrate",
    "chances",
    "find_in_field",
    "fit_model",
    "success",
    "validate",
]

_MATCH = 0.3  # diameters
_IGNORED = 0.5  # diameters: the peak lies on what is ignored
_APART = 0.7  # diameters between two picks
_TILE = 1024
_CHANCE = 2.0  # marked particles that a network finds by chance where an equal one does not
_MOST = 0.2  # share of the success that is put down to chance
PATIENCE = 3  # reports without a better validation
_MOST_HIDDEN = 4.0  # unmarked particles for each marked one, at most
_SAMPLED = 6  # fields that particles are counted on
_WEIGHT = math.log(POSITIVE)  # what training adds to the log-odds of a particle
_HALF = 0.5 * _WEIGHT  # taken off in training: with all of it, a share too low confirms itself
_LOWEST_LOGIT = -8.0
_OFFSET = 3.0  # spread of the offset that a calibration finds, before it has seen anything

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Found:
    """Peaks of some fields, best first within each, and which are marked particles."""

    logit: Floats  # (n,)
    is_marked: Bools  # (n,) matched with a marked particle
    field: NDArray[np.int64]  # (n,) number of the field, from 0
    n_marked: int  # particles marked in these fields
    n_fields: int


class Look(NamedTuple):
    """What a network is worth on the fields held out."""

    step: int  # 0 before training
    loss: float | None  # mean since the look before
    precision: float  # average precision; what is not marked counts as wrong
    success: float  # by which networks are compared; see `success`


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model and how it came about."""

    model: PickModel
    validation: Found
    taken: Look  # of the network; its step is 0 if it is the one that training began from
    n_expected: float  # particles of a field, marked or not
    first: Look | None = None  # of the network that training began from, if it was a model already
    history: list[Look] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class FitState:
    """A training at one of its reports: all that it goes on from."""

    learner: LearnerState
    best: Mapping[str, NDArray[np.floating]]  # weights of the best network so far
    hidden_share: float  # unmarked particles for each marked one
    first: Look | None  # of the network that training began from, if it was a model already
    history: tuple[Look, ...]


def fit_model(
    fields: Sequence[TrainingField],
    held_out: Sequence[TrainingField],
    *,
    network: PickNetwork,
    steps: int,
    n_expected: float | None = None,
    rejected_weight: float = 0.5,
    rate: float = RATE,
    decay: float = DECAY,
    seed: int = 0,
    every: int = 100,
    patience: int = PATIENCE,
    enough: float | None = None,
    threads: int = 1,
    is_trained: bool = False,
    start: FitState | None = None,
    report: Callable[[TrainingProgress, float], None] | None = None,
    keep: Callable[[FitState], None] | None = None,
) -> TrainedModel:
    """Train, stop when fields held out are picked no better, calibrate, and set the threshold.

    Parameters
    ----------
    fields, held_out
        To learn from, and to validate on; both with marked particles.
    network
        To begin from.
    steps
        At most.
    n_expected
        Particles in a field on average, marked or not; estimated if not given.
    rejected_weight, rate, decay, seed, every, threads
        As `fit_network` takes them.
    patience
        Reports without a better validation after which training ends.
    enough
        Average precision on the fields held out with which training ends.
    is_trained
        Whether the network is a model already: it stays if training makes nothing better of it.
    start
        State that `keep` got in the same training, to go on from to the same result.
    report
        Called with where training stands and the average precision on the fields held out.
    keep
        Called with the state at each report, before `report`.
    """
    n_marked = sum(len(f.particles) for f in fields) / len(fields)
    share = _HiddenShare(n_marked, n_expected)
    course = _Course(held_out, fields, share, patience, enough, threads, report, keep)
    if start is not None:
        course.take_up(start, network)
    elif is_trained:
        course.begin_with(network)
    if not course.is_over:
        fit_network(
            fields,
            network=network,
            steps=steps,
            hidden_share=share.value,
            rejected_weight=rejected_weight,
            rate=rate,
            decay=decay,
            seed=seed,
            every=every,
            threads=threads,
            start=None if start is None else start.learner,
            report=course.look,
        )
    assert course.best is not None
    model, found = _calibrated(course.best, held_out, share.value(), threads=threads)
    return TrainedModel(
        model=model,
        validation=found,
        taken=course.taken,
        n_expected=n_marked * (1 + share.value()),
        first=course.first,
        history=course.history,
    )


def _calibrated(
    network: PickNetwork, held_out: Sequence[TrainingField], hidden_share: float, *, threads: int
) -> tuple[PickModel, Found]:
    """Calibrate a network on fields held out, and set its threshold there."""
    found = validate(network, held_out, threads=threads)
    marked_share = 1 / (1 + hidden_share)
    slope, offset = calibrate(found, marked_share=marked_share)
    # a gentle slope lifts many peaks above the floor, which a picker then counts, too
    found = validate(network, held_out, threads=threads, slope=slope, offset=offset)
    prior = peak_share(expit(slope * found.logit + offset))
    chance = chances(found, slope=slope, offset=offset, prior=prior)
    model = PickModel(
        network=network,
        slope=slope,
        offset=offset,
        threshold=best_threshold(chance, n_true=found.n_marked / marked_share),
        prior=prior,
    )
    return model, found


class _HiddenShare:
    """Unmarked particles for each marked one: given, or counted as training goes on."""

    def __init__(self, n_marked: float, n_expected: float | None) -> None:
        self._is_given = n_expected is not None
        self._n_marked = max(n_marked, 1e-6)
        expected = 1.2 * n_marked if n_expected is None else n_expected
        self._share = max(0.0, expected / self._n_marked - 1)

    def value(self) -> float:
        return self._share

    def take_up(self, share: float) -> None:
        self._share = share

    def count(
        self,
        network: PickNetwork,
        fields: Sequence[TrainingField],
        *,
        threads: int,
        trust: float = 0.5,
        weight: float = _HALF,
    ) -> None:
        """Count the particles expected on some fields; go part of the way to what is found."""
        if self._is_given:
            return
        some = fields[:: max(1, len(fields) // _SAMPLED)]
        marked = sum(len(f.particles) for f in some)
        peaks = _find_in_fields(network, some, threads, slope=1.0, offset=0.0)
        expected = sum(float(expit(logit - weight).sum()) for _, logit in peaks)
        hidden = min(max(0.0, expected / max(marked, 1) - 1), _MOST_HIDDEN)
        self._share += trust * (hidden - self._share)


class _Course:
    """Follows training: the best network so far, and when to stop."""

    def __init__(
        self,
        held_out: Sequence[TrainingField],
        fields: Sequence[TrainingField],
        share: _HiddenShare,
        patience: int,
        enough: float | None,
        threads: int,
        report: Callable[[TrainingProgress, float], None] | None,
        keep: Callable[[FitState], None] | None,
    ) -> None:
        self.best: PickNetwork | None = None
        self.first: Look | None = None
        self.history: list[Look] = []
        self._held_out, self._fields, self._share = held_out, fields, share
        self._report, self._keep, self._patience, self._threads = report, keep, patience, threads
        self._enough = math.inf if enough is None else enough

    @property
    def taken(self) -> Look:
        """The last look that is as good as the best."""
        looks = self.history if self.first is None else [self.first, *self.history]
        return looks[-1 - self._since_good(looks)]

    @property
    def is_over(self) -> bool:
        """Whether looks are good enough, or have been worse than the best for too long."""
        looks = [look for look in (self.first, *self.history) if look is not None]
        if looks and looks[-1].precision >= self._enough:
            return True
        return bool(self.history) and self._since_good(self.history) >= self._patience

    def _since_good(self, looks: Sequence[Look]) -> int:
        """Count looks after the last that is as good as the best, to a few marked particles."""
        n_marked = sum(len(f.particles) for f in self._held_out)
        chance = min(_CHANCE / max(n_marked, 1), _MOST)
        least = max(look.success for look in looks) * (1 - chance) ** 2  # hits come squared
        return [look.success >= least for look in reversed(looks)].index(True)

    def begin_with(self, network: PickNetwork) -> None:
        """Take a network that is a model already for the best so far."""
        self.best = copy.deepcopy(network).eval()
        found = validate(self.best, self._held_out, threads=self._threads)
        self.first = _look(found, step=0, loss=None)
        # it has not learned from these labels, so it takes no unmarked particle for empty
        self._share.count(network, self._fields, threads=self._threads, trust=1.0, weight=_WEIGHT)

    def take_up(self, state: FitState, network: PickNetwork) -> None:
        """Go on from where a training stood; `network` says device and layout."""
        self.best = copy.deepcopy(network).eval()
        self.best.load_arrays(state.best)
        self.history, self.first = list(state.history), state.first
        self._share.take_up(state.hidden_share)

    def look(self, progress: TrainingProgress, learner: Learner) -> bool:
        """Validate; True ends training."""
        network = learner.network.eval()
        found = validate(network, self._held_out, threads=self._threads)
        self.history.append(_look(found, step=progress.step, loss=progress.loss))
        self._share.count(network, self._fields, threads=self._threads)
        if self.taken.step == progress.step:
            self.best = copy.deepcopy(network)
        network.train()
        if self._keep is not None:
            self._keep(self._state(learner))
        if self._report is not None:
            self._report(progress, self.history[-1].precision)
        return self.is_over

    def _state(self, learner: Learner) -> FitState:
        assert self.best is not None
        return FitState(
            learner=learner.state(),
            best={n: a.copy() for n, a in self.best.arrays().items()},
            hidden_share=self._share.value(),
            first=self.first,
            history=tuple(self.history),
        )


def _look(found: Found, *, step: int, loss: float | None) -> Look:
    return Look(step, loss, _average_precision(found), success(found))


def find_in_field(
    network: PickNetwork, field: TrainingField, *, slope: float = 1.0, offset: float = 0.0
) -> tuple[Floats, Floats]:
    """Find the peaks of a field, where its particles are known.

    Parameters
    ----------
    network
        To pick with.
    field
        To be picked.
    slope, offset
        Of a calibration, with which the peaks are those that a picker stores.

    Returns
    -------
    tuple of numpy.ndarray
        Positions (n, 2), y and x in px, and logits (n,), best first.
    """
    answer = apply_in_tiles(network, field.image.to(network.prior.device), tile=_TILE)
    known = field.is_known.to(answer.device)
    positions, chance = find_centres(
        torch.sigmoid(slope * answer[0] + offset), answer[1:], known, min_distance=_APART * PARTICLE
    )
    sure = chance.double().cpu().numpy().clip(1e-9, 1 - 1e-9)
    return positions.double().cpu().numpy(), (np.log(sure / (1 - sure)) - offset) / slope


def _find_in_fields(
    network: PickNetwork,
    fields: Sequence[TrainingField],
    threads: int,
    *,
    slope: float,
    offset: float,
) -> list[tuple[Floats, Floats]]:
    """Find the peaks of fields side by side, each on one core."""
    find = partial(find_in_field, network, slope=slope, offset=offset)
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(find, fields))


def validate(
    network: PickNetwork,
    fields: Sequence[TrainingField],
    *,
    threads: int = 1,
    slope: float = 1.0,
    offset: float = 0.0,
) -> Found:
    """Pick fields and match what is found with what is marked; what is ignored does not count.

    Parameters
    ----------
    network
        To pick with.
    fields
        With their marks.
    threads
        Fields side by side.
    slope, offset
        Of a calibration, with which the peaks are those that a picker stores.
    """
    logits: list[Floats] = []
    marked: list[Bools] = []
    fields_of: list[NDArray[np.int64]] = []
    peaks = _find_in_fields(network, fields, threads, slope=slope, offset=offset)
    for one, (positions, logit) in zip(fields, peaks, strict=True):
        matched = match_picks(
            positions[:, ::-1], logit, one.particles[:, ::-1], radius=_MATCH * PARTICLE
        )
        is_marked = np.isfinite(matched)
        is_ignored = is_near(positions, one.ignored, radius=_IGNORED * PARTICLE) & ~is_marked
        fields_of.append(np.full(int((~is_ignored).sum()), len(logits)))
        logits.append(logit[~is_ignored])
        marked.append(is_marked[~is_ignored])
    return Found(
        logit=np.concatenate(logits),
        is_marked=np.concatenate(marked),
        field=np.concatenate(fields_of),
        n_marked=sum(len(f.particles) for f in fields),
        n_fields=len(fields),
    )


def _average_precision(found: Found) -> float:
    order = np.argsort(-found.logit, kind="stable")
    return average_precision(found.is_marked[order], n_truth=found.n_marked)


def success(found: Found) -> float:
    """Compare networks by their labels alone: recall times precision at the best threshold.

    It grows as F1 squared, whatever share of the particles is marked (Lee and Liu, ICML 2003).
    The order of marked and unmarked particles above the threshold, which is chance, does not
    count; it makes average precision go up and down.
    """
    if not len(found.logit):
        return 0.0
    order = np.argsort(-found.logit, kind="stable")
    hits = np.cumsum(found.is_marked[order])
    product = hits.astype(np.float64) ** 2 / np.arange(1, len(hits) + 1)
    return float(product.max() / max(found.n_marked, 1))


def calibrate(found: Found, *, marked_share: float) -> tuple[float, float]:
    """Find slope and offset that make logits those of being a particle.

    Parameters
    ----------
    found
        Of fields held out.
    marked_share
        Share of the particles that are marked: a particle is marked with this probability,
        whatever it looks like (Elkan and Noto, KDD 2008).
    """
    logit, truth = found.logit, found.is_marked.astype(np.float64)
    used = logit > _LOWEST_LOGIT
    logit, truth = logit[used], truth[used]
    if not len(logit):
        return 1.0, 0.0
    n_marked = truth.sum()  # one more of each kind than was seen, as Platt (1999) has it
    truth = np.where(truth > 0, (n_marked + 1) / (n_marked + 2), 1 / (len(truth) - n_marked + 2))

    def loss(values: Floats) -> float:
        chance = marked_share * expit(values[0] * logit + values[1])
        chance = np.clip(chance, 1e-9, 1 - 1e-9)
        fit = -(truth * np.log(chance) + (1 - truth) * np.log(1 - chance)).sum()
        return float(fit + 0.5 * (values[0] - 1) ** 2 + 0.5 * (values[1] / _OFFSET) ** 2)

    best = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x
    return float(max(best[0], 0.05)), float(best[1])


def peak_share(chance: Floats) -> float:
    """Share of particles among the peaks that a picker stores, from their probabilities."""
    stored = chance[chance > FLOOR]
    return float(np.clip(stored.mean(), 0.05, 0.95)) if len(stored) else 0.5


def chances(found: Found, *, slope: float, offset: float, prior: float) -> Floats:
    """Give each peak the probability that a picker would give it in its field."""
    chance = expit(slope * found.logit + offset)
    for number in np.unique(found.field):
        mine = (found.field == number) & (chance > FLOOR)
        chance[mine] = field_chances(chance[mine], prior=prior)
    return np.asarray(chance)


def best_threshold(chance: Floats, *, n_true: float) -> float:
    """Find the probability at which the expected F1 is best.

    Parameters
    ----------
    chance
        (n,) probabilities of the peaks of fields like those to be picked.
    n_true
        Particles in these fields.
    """
    descending = np.sort(chance)[::-1]
    if not len(descending):
        return 0.5
    hits = np.cumsum(descending)
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + max(n_true, hits[-1] * 0.5))
    best = int(f1.argmax())
    following = descending[best + 1] if best + 1 < len(descending) else 0.0
    return float(np.clip((descending[best] + following) / 2, 0.05, 0.95))
