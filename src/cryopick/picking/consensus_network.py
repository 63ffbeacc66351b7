"""A network that learns from candidates of some micrographs and scores those of the others.

The micrographs are parted in two. For each part a network is trained on the other: likely
candidates are marked particles, unlikely ones are rejected, as are places drawn far from any
candidate, those between say nothing, and the rest of the field is unlabelled, not empty. So no
candidate is scored by a network that has seen its micrograph, and what the network says of it is
one more independent opinion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryopick.picking.consensus_learning import (
    FEWEST,
    NO_EXAMPLES,
    GivenExamples,
    LearnedNetwork,
    Learning,
    assign_folds,
    train_networks,
    with_examples,
)
from cryopick.picking.consensus_noise import sample_noise
from cryopick.picking.network import PARTICLE, STRIDE, apply_in_tiles
from cryopick.picking.network_pick import PickModel
from cryopick.picking.network_training import TrainingField

__all__ = [
    "ConsensusField",
    "CrossFit",
    "Judged",
    "KeepAnswer",
    "answer_of",
    "cross_fit",
    "score_candidates",
    "score_with",
]

_LIKELY, _UNLIKELY = 0.8, 0.1  # probabilities of marked and of rejected candidates
_NEAR = 0.5  # diameters: an unlikely candidate so near to a marked one is the same particle
_TILE = 1024
_BOX = 1.5  # diameters: noise is drawn so far from any candidate

Points = NDArray[np.float64]
Floats = NDArray[np.float64]
KeepAnswer = Callable[[Sequence[PickModel], "ConsensusField"], Tensor]
FoldCallback = Callable[[int, float], None]  # fold, share done


class ConsensusField(NamedTuple):
    """A field as the network sees it, with its candidates."""

    image: Tensor  # (y, x) float32, particles white, PARTICLE px to a diameter
    is_valid: Tensor  # (y, x) bool
    candidates: Points  # (n, 2) y and x, px of the image
    name: str = ""  # of the micrograph, by which a model knows what it has learned from
    examples: GivenExamples = NO_EXAMPLES
    origin: str = ""  # names all that the image was made from


class Judged(NamedTuple):
    """What a network says of the candidates of a field."""

    logits: Floats  # (n,) calibrated
    centres: Points  # (n, 2) y and x, px of the image: moved where a particle is likely


class CrossFit(NamedTuple):
    """What networks say of micrographs that they have not seen."""

    answers: list[Tensor | None]  # as `answer_of` has them; None where there is no network
    fold: NDArray[np.int64]  # (fields,)
    models: list[list[LearnedNetwork]]  # that scored each fold; none where too little was to learn
    n_crowded: int  # micrographs on which noise was drawn half a box from the candidates


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


def score_with(models: Sequence[PickModel], field: ConsensusField, *, radius: float) -> Judged:
    """Ask several models: the mean of their log-odds, and of the centres they mean.

    Parameters
    ----------
    models
        One or more.
    field, radius
        As `score_candidates` takes them.
    """
    each = [score_candidates(m, field, radius=radius) for m in models]
    return Judged(np.mean([e.logits for e in each], 0), np.mean([e.centres for e in each], 0))


def answer_of(models: Sequence[PickModel], field: ConsensusField) -> Tensor:
    """Ask several models about a whole field.

    Parameters
    ----------
    models
        One or more.
    field
        To look at.

    Returns
    -------
    Tensor
        (3, y, x) on the CPU, on the grid of the network: the mean of their calibrated log-odds,
        and of y and x of the way to the centre, px of the image.
    """
    answers = []
    for model in models:
        image = field.image.to(model.network.prior.device)
        answer = apply_in_tiles(model.network, image, tile=_TILE).cpu()
        answers.append(torch.cat([model.slope * answer[:1] + model.offset, answer[1:]]))
    return torch.stack(answers).mean(0)


def cross_fit(
    fields: Sequence[ConsensusField],
    chances: Sequence[Floats],
    *,
    learning: Learning,
    missed_share: float | None = None,
    seed: int = 0,
    threads: int = 1,
    keep: KeepAnswer | None = None,
    progress: FoldCallback | None = None,
) -> CrossFit:
    """Train networks for each part of the micrographs on the others, and ask them about it.

    Parameters
    ----------
    fields
        Of all micrographs.
    chances
        For each (n,), how likely each candidate is a particle.
    learning
        How networks are made. Where too little is to be learned, what they begin from answers;
        where that is nothing, there is no answer.
    missed_share
        Particles that are not marked, for each one that is; counted by the network if not given.
    seed
        Of all random choices.
    threads
        To compute with; the result does not depend on them.
    keep
        Gives the answer of models about a field, and may keep it outside of memory; `answer_of`
        if not given.
    progress
        Called with the number of the fold, from 0, and the share of its training done.
    """
    ask = keep or answer_of
    tell = progress or (lambda fold, share: None)
    names = [f.name for f in fields]
    fold = assign_folds(names, learning.start, seed=seed)
    answers: dict[int, Tensor | None] = {}
    every, n_crowded = _mark(fields, chances, seed=seed)
    models: list[list[LearnedNetwork]] = []
    for number in range(2):
        others = np.flatnonzero(fold != number).tolist()
        marked, extra = with_examples(
            [every[i] for i in others],
            [fields[i].examples for i in others],
            learning.extra,
            learning.training,
            seed=seed,
        )
        tell(number, 0.0)
        trained = train_networks(
            marked,
            learning=learning,
            fold=number,
            names=[names[i] for i in others],
            extra=extra,
            missed_share=missed_share,
            seed=seed,
            threads=threads,
            tell=partial(tell, number),
        )
        models.append(trained)
        for i in np.flatnonzero(fold == number).tolist():
            judges = [t.model for t in trained] or learning.judges(names[i])
            answers[i] = ask(judges, fields[i]) if judges else None
        tell(number, 1.0)
    return CrossFit([answers[i] for i in range(len(fields))], fold, models, n_crowded)


def _mark(
    fields: Sequence[ConsensusField], chances: Sequence[Floats], *, seed: int
) -> tuple[list[TrainingField], int]:
    """Mark likely and unlikely candidates, and noise; count fields too crowded to draw it."""
    every = np.sort(np.concatenate([*chances, np.empty(0)]))[::-1]
    least = _LIKELY
    if len(every) and (every > _LIKELY).sum() < FEWEST:
        least = min(_LIKELY, max(float(every[min(FEWEST, len(every)) - 1]), 0.5))
    marked, n_crowded = [], 0
    for number, (field, chance) in enumerate(zip(fields, chances, strict=True)):
        particles = field.candidates[chance >= least]
        away, _ = cKDTree(particles).query(field.candidates)  # infinite where there is none
        is_unlikely = (chance < _UNLIKELY) & (away > _NEAR * PARTICLE)
        is_between = (chance >= _UNLIKELY) & (chance < least) & (away > _NEAR * PARTICLE)
        noise = sample_noise(
            field.is_valid,
            field.candidates,
            count=len(particles),
            box=_BOX * PARTICLE,
            seed=seed + number,
        )
        n_crowded += noise.is_crowded
        marked.append(
            TrainingField(
                image=field.image,
                is_valid=field.is_valid,
                is_known=field.is_valid,
                particles=particles,
                rejected=np.concatenate([field.candidates[is_unlikely], noise.places]),
                ignored=field.candidates[is_between],
            )
        )
    return marked, n_crowded
