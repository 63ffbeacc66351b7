"""What a round of a stream is made of: iterations, maintenance, assignment, parting a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cryopick.class2d.em_course import Progress
from cryopick.class2d.em_schedule import Stage
from cryopick.class2d.em_start import split_classes
from cryopick.class2d.em_state import EmState
from cryopick.class2d.stream_classes import ClassChange, compare_classes, find_changes
from cryopick.class2d.stream_engine import Part, StreamEngine

__all__ = [
    "Count",
    "Maintained",
    "iterate",
    "maintain",
    "part_class",
    "reference_drift",
    "renumbered",
    "settle",
    "shares_of",
]

_PARTING = 8  # iterations that part a class
_DIFFERENCE = 0.3  # of the two parts of a split class, in its own standard deviations


@dataclass
class Count:
    """Tells how many particles are done, over the passes of a round."""

    total: int
    progress: Progress | None
    done: int = 0

    def __call__(self, more: int) -> None:
        """Count more particles."""
        self.done += more
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)


@dataclass(frozen=True, kw_only=True)
class Maintained:
    """Averages after merges and splits."""

    em: EmState
    changes: tuple[ClassChange, ...]


def iterate(
    engine: StreamEngine,
    em: EmState,
    subset: NDArray[np.int64],
    weights: NDArray[np.float32],
    count: Callable[[int], None],
) -> EmState:
    """Do one iteration on some particles; those not seen yet are searched widely.

    Parameters
    ----------
    engine
        Over all particles.
    em
        Where the classes are.
    subset
        The particles that make the next averages.
    weights
        (n,) of all particles in the averages.
    count
        Told how many particles have been aligned.
    """
    rings = engine.rings_of(em)
    is_known = em.poses.seen[subset]
    near, wide = engine.near(rings), engine.wide(rings)
    harmonics = engine.harmonics_of(em, near.n_rings)
    parts = _by_weight(subset[is_known], near, weights)
    parts += _by_weight(subset[~is_known], wide, weights)
    found = engine.align(em, harmonics, parts, count)
    return engine.centred(engine.maximise(em, harmonics, near, found))


def settle(
    engine: StreamEngine,
    em: EmState,
    weights: NDArray[np.float32],
    count: Callable[[int], None],
) -> EmState:
    """Assign every particle to one version of the averages, poses below the grid, and find junk.

    Those not seen yet are located first. Arguments are those of `iterate`.
    """
    n, rings = len(em.poses), engine.rings_of(em)
    unseen = np.flatnonzero(~em.poses.seen)
    if len(unseen):
        part = Part(indices=unseen, stage=engine.wide(em.n_rings))
        em = replace(em, poses=engine.align(em, em.harmonics, [part], count)[0])
    fine = engine.fine(rings)
    harmonics = engine.harmonics_of(em, fine.n_rings)
    found = engine.align(em, harmonics, _by_weight(np.arange(n), fine, weights), count)
    fresh = engine.maximise(em, harmonics, fine, found)
    if not engine.parameters.junk:
        return fresh
    return replace(fresh, poses=engine.junk_of(fresh, em, fine, harmonics))


def maintain(engine: StreamEngine, em: EmState, *, seed: int) -> Maintained:
    """Merge classes that are alike and split those that explain their members badly."""
    basis = engine.layout.basis(em.n_rings)
    noise = em.noise.mean(0)[: em.n_rings]
    found = compare_classes(em.harmonics, em.harmonics, basis, noise=noise)
    changes, parent = find_changes(em.poses, em.shares, found.difference, em.own_gain)
    if changes:
        em = replace(em, harmonics=_parted(em.harmonics, parent, seed=seed))
    return Maintained(em=em, changes=changes)


def part_class(
    engine: StreamEngine,
    em: EmState,
    class_index: int,
    members: NDArray[np.int64],
    parts: int,
    *,
    seed: int,
    progress: Progress | None,
) -> EmState:
    """Part a class among its members; the largest part stays, the others come at the end.

    Parameters
    ----------
    engine
        Over all particles.
    em
        Where the classes are; averages of other classes do not change.
    class_index
        From 0.
    members
        Particles of the class.
    parts
        Two or more.
    seed
        Of the small differences the parts begin with.
    progress
        Called with the particles done and in all.
    """
    own = em.harmonics[class_index : class_index + 1]
    part = replace(
        em,
        harmonics=split_classes(own, torch.ones(1), parts, seed=seed),
        shares=torch.full((parts,), 1 / parts),
    )
    count = Count(_PARTING * len(members), progress)
    for number in range(_PARTING):
        is_last = number == _PARTING - 1
        stage = (engine.fine if is_last else engine.near)(em.n_rings)
        found = engine.align(part, part.harmonics, [Part(indices=members, stage=stage)], count)
        part = engine.maximise(part, part.harmonics, stage, found)
    sizes = np.bincount(part.poses.class_index[members], minlength=parts)
    order = np.argsort(-sizes, kind="stable")
    k, others = len(em.shares), order[1:].tolist()
    number_of = np.empty(parts, np.int32)
    number_of[order] = [class_index, *range(k, k + parts - 1)]
    poses = part.poses.copy()
    poses.class_index[members] = number_of[part.poses.class_index[members]]
    harmonics = torch.cat([em.harmonics, part.harmonics[others]])
    harmonics[class_index] = part.harmonics[int(order[0])]
    counts = np.bincount(poses.class_index, poses.membership, minlength=k + parts - 1)
    return replace(
        em,
        poses=poses,
        harmonics=harmonics,
        own_gain=torch.cat([em.own_gain, part.own_gain[others]]),
        shares=shares_of(counts),
    )


def reference_drift(engine: StreamEngine, before: EmState, after: EmState) -> NDArray[np.float32]:
    """How far each average has gone: 1 - correlation with what it was, (K,)."""
    rings = min(before.n_rings, after.n_rings)
    one, other = (engine.harmonics_of(em, rings) for em in (before, after))
    noise = after.noise.mean(0)[:rings]
    found = compare_classes(one, other, engine.layout.basis(rings), noise=noise).correlation
    drift: NDArray[np.float32] = (1 - torch.diagonal(found)).clamp(0, 1).float().numpy()
    return drift


def renumbered(engine: StreamEngine, before: EmState, after: EmState) -> EmState:
    """Give classes the numbers of those before that they resemble most, taken together."""
    rings = min(before.n_rings, after.n_rings)
    one, other = (engine.harmonics_of(em, rings) for em in (before, after))
    noise = after.noise.mean(0)[:rings]
    found = compare_classes(one, other, engine.layout.basis(rings), noise=noise).correlation
    _, place = linear_sum_assignment(found.numpy(), maximize=True)
    new_number = np.argsort(place).astype(np.int32)
    poses = after.poses.copy()
    poses.class_index[:] = new_number[poses.class_index]
    order = torch.from_numpy(place)
    return replace(
        after,
        poses=poses,
        harmonics=after.harmonics[order],
        shares=after.shares[order],
        own_gain=after.own_gain[order],
    )


def shares_of(counts: NDArray[Any]) -> Tensor:
    """Turn counts of members into shares."""
    return torch.from_numpy(counts / max(float(counts.sum()), 1e-9)).float()


def _by_weight(
    indices: NDArray[np.int64], stage: Stage, weights: NDArray[np.float32]
) -> list[Part]:
    """Part particles by their weight in the averages."""
    own = weights[indices]
    return [
        Part(indices=indices[own == w], stage=stage, weight=float(w)) for w in np.unique(own)[::-1]
    ]


def _parted(harmonics: Tensor, parent: list[int], *, seed: int) -> Tensor:
    """Put a part of each class's parent in its place, with small random differences."""
    source = torch.tensor(parent)
    parts = torch.bincount(source, minlength=len(parent))[source]
    generator = torch.Generator().manual_seed(seed)
    split = harmonics[source]
    noise = torch.view_as_complex(torch.randn(*split.shape, 2, generator=generator)) / 2**0.5
    spread = split.abs().square().mean(2, keepdim=True).sqrt()
    return split + (parts > 1)[:, None, None] * _DIFFERENCE * spread * noise
