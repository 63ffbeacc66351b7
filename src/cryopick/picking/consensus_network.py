"""A network that learns from candidates of some micrographs and scores those of the others.

The micrographs are parted in two. For each part a network is trained on the other: likely
candidates are marked particles, unlikely ones are rejected, those between say nothing, and the
rest of the field is unlabelled, not empty. So no candidate is scored by a network that has seen
its micrograph, and what the network says of it is one more independent opinion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryopick.picking.label_split import split_micrographs
from cryopick.picking.network import PARTICLE, STRIDE, PickNetwork, apply_in_tiles
from cryopick.picking.network_fit import TrainedModel, fit_model
from cryopick.picking.network_pick import PickModel
from cryopick.picking.network_training import TrainingField

__all__ = ["ConsensusField", "CrossFit", "Judged", "cross_fit", "make_folds", "score_candidates"]

_LIKELY, _UNLIKELY = 0.8, 0.1  # probabilities of marked and of rejected candidates
_FEWEST = 30  # marked particles, of which the most likely candidates are taken if need be
_NEAR = 0.5  # diameters: an unlikely candidate so near to a marked one is the same particle
_TEST_SHARE = 0.25  # of the marked particles, to validate and calibrate on
_TILE = 1024

Points = NDArray[np.float64]
Floats = NDArray[np.float64]
FoldCallback = Callable[[int, float], None]  # fold, share done


class ConsensusField(NamedTuple):
    """A field as the network sees it, with its candidates."""

    image: Tensor  # (y, x) float32, particles white, PARTICLE px to a diameter
    is_valid: Tensor  # (y, x) bool
    candidates: Points  # (n, 2) y and x, px of the image


class Judged(NamedTuple):
    """What a network says of the candidates of a field."""

    logits: Floats  # (n,) calibrated
    centres: Points  # (n, 2) y and x, px of the image: moved where a particle is likely


class CrossFit(NamedTuple):
    """What networks say of candidates on micrographs that they have not seen."""

    fields: list[Judged]
    fold: NDArray[np.int64]  # (fields,)
    models: list[TrainedModel | None]  # that scored each fold; None where too little was to learn


def make_folds(count: int, *, folds: int = 2, seed: int) -> NDArray[np.int64]:
    """Part micrographs at random.

    Parameters
    ----------
    count
        Micrographs.
    folds
        Parts of sizes that differ by one at most.
    seed
        Of the order.

    Examples
    --------
    >>> sorted(make_folds(5, seed=1).tolist())
    [0, 0, 0, 1, 1]
    """
    fold = np.empty(count, np.int64)
    fold[np.random.default_rng([seed, 11]).permutation(count)] = np.arange(count) % folds
    return fold


def score_candidates(model: PickModel, field: ConsensusField, *, radius: float) -> Judged:
    """Ask a model for the best logit near each candidate, and for the centre it means.

    Parameters
    ----------
    model
        To look with; its logits are calibrated as it says.
    field
        With its candidates.
    radius
        How far a centre may lie from its candidate, diameters.
    """
    answer = apply_in_tiles(model.network, field.image.to(model.network.prior.device), tile=_TILE)
    logit, *ways = answer.double().cpu().numpy()
    reach = max(radius * PARTICLE / STRIDE, 1.0)  # grid points
    steps = np.arange(-int(reach), int(reach) + 1)
    rows, columns = (s.ravel() for s in np.meshgrid(steps, steps, indexing="ij"))
    is_near = np.hypot(rows, columns) <= reach
    places = np.rint(field.candidates / STRIDE).astype(int)
    last = np.array(logit.shape) - 1
    y = (places[:, :1] + rows[is_near]).clip(0, last[0])
    x = (places[:, 1:] + columns[is_near]).clip(0, last[1])
    best = logit[y, x].argmax(1, keepdims=True)
    y, x = np.take_along_axis(y, best, 1)[:, 0], np.take_along_axis(x, best, 1)[:, 0]
    found = model.slope * logit[y, x] + model.offset
    centres = np.stack([STRIDE * y + ways[0][y, x], STRIDE * x + ways[1][y, x]], 1)
    is_sure = (found > 0)[:, None]
    return Judged(np.asarray(found), np.where(is_sure, centres, field.candidates))


def cross_fit(
    fields: Sequence[ConsensusField],
    chances: Sequence[Floats],
    *,
    model: PickModel,
    steps: int,
    missed_share: float | None = None,
    radius: float,
    seed: int = 0,
    threads: int = 1,
    progress: FoldCallback | None = None,
) -> CrossFit:
    """Train a network for each part of the micrographs on the others, and score candidates.

    Parameters
    ----------
    fields
        Of all micrographs.
    chances
        For each (n,), how likely each candidate is a particle.
    model
        To begin from; where too little is to be learned, it scores.
    steps
        Of each training, at most; without any, the model scores.
    missed_share
        Particles that are not marked, for each one that is; counted by the network if not given.
    radius
        How far a centre may lie from its candidate, diameters.
    seed
        Of all random choices.
    threads
        To compute with; the result does not depend on them.
    progress
        Called with the number of the fold, from 0, and the share of its training done.
    """
    tell = progress or (lambda fold, share: None)
    fold = make_folds(len(fields), seed=seed)
    judged: dict[int, Judged] = {}
    models: list[TrainedModel | None] = []
    for number in range(2):
        others = [i for i in range(len(fields)) if fold[i] != number]
        marked = _mark([fields[i] for i in others], [chances[i] for i in others])
        tell(number, 0.0)
        trained = _train(
            marked,
            network=model.network,
            steps=steps,
            missed_share=missed_share,
            seed=seed,
            threads=threads,
            tell=partial(tell, number),
        )
        models.append(trained)
        judge = model if trained is None else trained.model
        for i in np.flatnonzero(fold == number).tolist():
            judged[i] = score_candidates(judge, fields[i], radius=radius)
        tell(number, 1.0)
    return CrossFit([judged[i] for i in range(len(fields))], fold, models)


def _mark(fields: Sequence[ConsensusField], chances: Sequence[Floats]) -> list[TrainingField]:
    """Mark likely and unlikely candidates; fields without a likely one are left out."""
    every = np.sort(np.concatenate([*chances, np.empty(0)]))[::-1]
    least = _LIKELY
    if len(every) and (every > _LIKELY).sum() < _FEWEST:
        least = min(_LIKELY, max(float(every[min(_FEWEST, len(every)) - 1]), 0.5))
    marked = []
    for field, chance in zip(fields, chances, strict=True):
        particles = field.candidates[chance >= least]
        if not len(particles):
            continue
        away, _ = cKDTree(particles).query(field.candidates)
        is_unlikely = (chance < _UNLIKELY) & (away > _NEAR * PARTICLE)
        is_between = (chance >= _UNLIKELY) & (chance < least) & (away > _NEAR * PARTICLE)
        marked.append(
            TrainingField(
                image=field.image,
                is_valid=field.is_valid,
                is_known=field.is_valid,
                particles=particles,
                rejected=field.candidates[is_unlikely],
                ignored=field.candidates[is_between],
            )
        )
    return marked


def _train(
    fields: Sequence[TrainingField],
    *,
    network: PickNetwork,
    steps: int,
    missed_share: float | None = None,
    seed: int,
    threads: int,
    tell: Callable[[float], None],
) -> TrainedModel | None:
    """Train on marked fields; None where they are too few."""
    counts = [len(f.particles) for f in fields]
    if not steps or len(fields) < 2 or sum(counts) < _FEWEST:
        return None
    learn, held_out = split_micrographs(counts, test_share=_TEST_SHARE, seed=seed)
    mean = float(np.mean([counts[i] for i in learn]))
    return fit_model(
        [fields[i] for i in learn],
        [fields[i] for i in held_out],
        network=network,
        steps=steps,
        n_expected=None if missed_share is None else mean * (1 + missed_share),
        seed=seed,
        every=max(1, steps // 4),
        threads=threads,
        is_trained=True,
        report=lambda now, _: tell(now.step / now.steps),
    )
