"""The networks of a consensus: what they begin from, what they learn from, how they are made.

Each network learns from one part of the micrographs and judges the other. A model of an earlier
consensus says which micrographs it has learned from, so that it never judges these either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryopick.picking.consensus_training_parameters import ConsensusTraining
from cryopick.picking.label_split import split_micrographs
from cryopick.picking.network import PARTICLE, PickNetwork
from cryopick.picking.network_fit import PATIENCE, FitState, TrainedModel, fit_model
from cryopick.picking.network_pick import PickModel
from cryopick.picking.network_training import TrainingField

__all__ = [
    "FEWEST",
    "NO_EXAMPLES",
    "GivenExamples",
    "LearnedNetwork",
    "Learning",
    "NetworkPlace",
    "StartModel",
    "assign_folds",
    "train_networks",
    "with_examples",
]

FEWEST = 30  # marked particles
_NEAR = 0.5  # diameters: a candidate so near to a given example is the same thing
_TEST_SHARE = 0.25  # of the marked particles, to validate and calibrate on
_SHORT, _FEW_LOOKS, _MORE_LOOKS = 400, 4, 8  # steps of a short training; looks at what is held out

Points = NDArray[np.float64]
Floats = NDArray[np.float64]


class StartModel(NamedTuple):
    """A model that training begins from, or that scores as it is."""

    model: PickModel
    seen: frozenset[str] = frozenset()  # names of files of micrographs that it has learned from
    fold: int | None = None  # that it judged in an earlier consensus, from 0; None for any


class LearnedNetwork(NamedTuple):
    """A network of a consensus and how it came about."""

    model: PickModel
    step: int  # of the network that was taken; 0 if it is the one that training began from
    precision: float  # average precision on micrographs held out; unmarked counts as wrong
    first_precision: float | None  # of the model that training began from
    n_expected: float  # particles of a field


class NetworkPlace(NamedTuple):
    """Which network of a consensus one is, and what it learns from."""

    fold: int  # that it judges, from 0
    member: int  # from 0
    content: str  # digest of all that it learns from
    seen: tuple[str, ...]  # names of files of micrographs, also of an earlier consensus


class GivenExamples(NamedTuple):
    """Places of a field that the user has named, px of the image."""

    positives: Points  # (n, 2) y and x
    negatives: Points  # (m, 2)


NO_EXAMPLES = GivenExamples(np.empty((0, 2)), np.empty((0, 2)))


@dataclass(frozen=True, kw_only=True)
class Learning:
    """All that says how the networks of a consensus are made.

    What `keep` was given, `kept` gives back when the same consensus is started again; and so for
    a training that has begun.
    """

    start: tuple[StartModel, ...]  # random weights if empty
    training: ConsensusTraining = field(default_factory=ConsensusTraining)
    extra: tuple[TrainingField, ...] = ()  # fields of examples that every network learns from
    device: str = "cpu"  # where networks are trained
    kept: Callable[[NetworkPlace], LearnedNetwork | None] | None = None
    keep: Callable[[NetworkPlace, LearnedNetwork], None] | None = None
    begun: Callable[[NetworkPlace], FitState | None] | None = None
    keep_begun: Callable[[NetworkPlace, FitState], None] | None = None

    def judges(self, name: str) -> list[PickModel]:
        """Models to begin from that have not learned from a micrograph; all, if none is left."""
        unseen = [s.model for s in self.start if _bare(name) not in s.seen]
        return unseen or [s.model for s in self.start]

    def first(self, fold: int, member: int) -> StartModel | None:
        """Say what the training of a network begins from; None for random weights."""
        own = [s for s in self.start if s.fold in (None, fold)]
        return own[member % len(own)] if own else None


def assign_folds(
    names: Sequence[str], start: Sequence[StartModel], *, folds: int = 2, seed: int
) -> NDArray[np.int64]:
    """Part micrographs at random, but none into a fold whose model has learned from it.

    Parameters
    ----------
    names
        Of the micrographs.
    start
        Models of an earlier consensus, if there was one.
    folds
        Parts of sizes as like one another as can be.
    seed
        Of the order.

    Examples
    --------
    >>> sorted(assign_folds(list("abcde"), (), seed=1).tolist())
    [0, 0, 0, 1, 1]
    """
    fold = np.full(len(names), -1, np.int64)
    for place, name in enumerate(names):
        barred = {s.fold for s in start if _bare(name) in s.seen}
        free = [n for n in range(folds) if n not in barred]
        if barred and len(free) == 1:
            fold[place] = free[0]
    for place in np.random.default_rng([seed, 11]).permutation(len(names)):
        if fold[place] < 0:
            fold[place] = int(np.bincount(fold[fold >= 0], minlength=folds).argmin())
    return fold


def with_examples(
    marked: Sequence[TrainingField],
    examples: Sequence[GivenExamples],
    extra: Sequence[TrainingField],
    training: ConsensusTraining,
    *,
    seed: int,
) -> tuple[list[TrainingField], list[TrainingField]]:
    """Add what the user has named to what candidates say.

    Parameters
    ----------
    marked
        Fields with their candidates marked, also those without a marked particle.
    examples
        For each, what the user has named there. A candidate near to it is the same thing.
    extra
        Fields of other examples, whose weights are 1.
    training
        Weights of the examples, and how many candidates count at most.
    seed
        Of the candidates that are drawn.

    Returns
    -------
    tuple of list
        The fields in their order, with or without a marked particle, and the extra ones.
    """
    limited = _limited(list(marked), training.training_particles, seed=seed)
    n_internal = sum(len(f.particles) for f in limited), sum(len(f.rejected) for f in limited)
    n_given = [
        sum(len(e[kind]) for e in examples)
        + sum(len(f.particles if kind == 0 else f.rejected) for f in extra)
        for kind in (0, 1)
    ]
    wanted = (training.positive_weight, training.negative_weight)
    weights = [
        max(1, own) / max(1, given) if weight == -1 else weight
        for weight, own, given in zip(wanted, n_internal, n_given, strict=True)
    ]
    joined = [_joined(f, e, weights) for f, e in zip(limited, examples, strict=True)]
    weighed = [
        replace(
            f,
            particle_weights=np.full(len(f.particles), weights[0]),
            rejected_weights=np.full(len(f.rejected), weights[1]),
        )
        for f in extra
    ]
    return joined, weighed


def _limited(fields: list[TrainingField], most: int, *, seed: int) -> list[TrainingField]:
    """Leave so many marked particles, drawn at random; nothing is said of the others."""
    counts = [len(f.particles) for f in fields]
    if most == -1 or sum(counts) <= most:
        return fields
    is_kept = np.zeros(sum(counts), bool)
    is_kept[np.random.default_rng([seed, 13]).permutation(len(is_kept))[:most]] = True
    return [
        replace(
            one,
            particles=one.particles[kept],
            ignored=np.concatenate([one.ignored, one.particles[~kept]]),
        )
        for one, kept in zip(fields, np.split(is_kept, np.cumsum(counts)[:-1]), strict=True)
    ]


def _joined(one: TrainingField, given: GivenExamples, weights: Sequence[float]) -> TrainingField:
    """Put examples in the place of the candidates near to them."""
    if not len(given.positives) and not len(given.negatives):
        return one
    particles, rejected, ignored = (
        _away(_away(p, given.positives), given.negatives)
        for p in (one.particles, one.rejected, one.ignored)
    )
    negatives = _away(given.negatives, given.positives)
    return replace(
        one,
        particles=np.concatenate([particles, given.positives]),
        rejected=np.concatenate([rejected, negatives]),
        ignored=ignored,
        particle_weights=np.repeat([1.0, weights[0]], [len(particles), len(given.positives)]),
        rejected_weights=np.repeat([1.0, weights[1]], [len(rejected), len(negatives)]),
    )


def _away(points: Points, others: Points) -> Points:
    """Keep the points that are not near to others."""
    if not len(points) or not len(others):
        return points
    return points[cKDTree(others).query(points)[0] > _NEAR * PARTICLE]


def train_networks(
    fields: Sequence[TrainingField],
    *,
    learning: Learning,
    fold: int,
    names: Sequence[str] = (),
    extra: Sequence[TrainingField] = (),
    missed_share: float | None = None,
    seed: int = 0,
    threads: int = 1,
    tell: Callable[[float], None] | None = None,
) -> list[LearnedNetwork]:
    """Train the networks of one fold on the fields of the others.

    Parameters
    ----------
    fields
        To learn from and to validate on; those without a marked particle are left out.
    learning
        What to begin from and how to train; networks that it has kept are not trained again.
    fold
        That the networks will judge, from 0.
    names
        Of the micrographs that are learned from, which are kept with the networks.
    extra
        Fields to learn from, on which nothing is validated.
    missed_share
        Particles that are not marked, for each one that is; counted by the network if not given.
    seed, threads
        As `fit_model` takes them; the second network of a fold has the next seed.
    tell
        Called with the share that is done.

    Returns
    -------
    list of LearnedNetwork
        None where training is skipped, there are fewer than two fields, or fewer than 30 marked
        particles.
    """
    training = learning.training
    fields = [f for f in fields if len(f.particles)]
    n_marked = sum(len(f.particles) for f in fields)
    if training.is_skipped or len(fields) < 2 or n_marked < FEWEST:
        return []
    content = _digest([*fields, *extra], seed)
    made = []
    for member in range(training.ensemble):
        first = learning.first(fold, member)
        seen = {*map(_bare, names), *(() if first is None else first.seen)}
        place = NetworkPlace(fold, member, content, tuple(sorted(seen)))
        found = None if learning.kept is None else learning.kept(place)
        if found is None:
            trained = _train(
                fields,
                extra,
                place=place,
                learning=learning,
                missed_share=missed_share,
                seed=seed + 1000 * member,
                threads=threads,
                tell=_share_of(member, training.ensemble, tell),
            )
            found = _learned(trained)
            if learning.keep is not None:
                learning.keep(place, found)
        found.model.network.to(learning.device)
        made.append(found)
    return made


def _bare(name: str) -> str:
    """Leave out the folders: a later table may name them otherwise."""
    return PurePosixPath(name).name


def _digest(fields: Sequence[TrainingField], seed: int) -> str:
    """Name what is learned from, to the last pixel."""
    digest = hashlib.sha256(str(seed).encode())
    for one in fields:
        for mask in (one.is_valid, one.is_known):
            digest.update(mask.cpu().numpy().tobytes())
        digest.update(one.image.cpu().numpy().tobytes())
        for points in (one.particles, one.rejected, one.ignored):
            digest.update(points.astype("<f8").tobytes() + b";")
        for weights in (one.particle_weights, one.rejected_weights):
            digest.update(b"1;" if weights is None else weights.astype("<f8").tobytes() + b";")
    return digest.hexdigest()[:16]


def _share_of(
    member: int, members: int, tell: Callable[[float], None] | None
) -> Callable[[float], None]:
    return lambda share: None if tell is None else tell((member + share) / members)


def _train(
    fields: Sequence[TrainingField],
    extra: Sequence[TrainingField],
    *,
    place: NetworkPlace,
    learning: Learning,
    missed_share: float | None,
    seed: int,
    threads: int,
    tell: Callable[[float], None],
) -> TrainedModel:
    training = learning.training
    counts = [len(f.particles) for f in fields]
    learn, held_out = split_micrographs(counts, test_share=_TEST_SHARE, seed=seed)
    learned = [*(fields[i] for i in learn), *extra]
    mean = float(np.mean([len(f.particles) for f in learned]))
    first = learning.first(place.fold, place.member)
    network = PickNetwork(seed=seed) if first is None else first.model.network
    steps = training.most_steps
    looks = _FEW_LOOKS if steps <= _SHORT else _MORE_LOOKS
    return fit_model(
        learned,
        [fields[i] for i in held_out],
        network=network.to(learning.device),
        steps=steps,
        n_expected=None if missed_share is None else mean * (1 + missed_share),
        rate=training.learning_rate,
        decay=training.l2,
        seed=seed,
        every=max(1, steps // looks),
        patience=PATIENCE if training.auto_stop else steps + 1,
        enough=training.stop_accuracy,
        threads=threads,
        is_trained=first is not None,
        start=None if learning.begun is None else learning.begun(place),
        keep=None if learning.keep_begun is None else partial(learning.keep_begun, place),
        report=lambda now, _: tell(now.step / now.steps),
    )


def _learned(trained: TrainedModel) -> LearnedNetwork:
    return LearnedNetwork(
        model=trained.model,
        step=trained.taken.step,
        precision=trained.taken.precision,
        first_precision=None if trained.first is None else trained.first.precision,
        n_expected=trained.n_expected,
    )
