"""The judgement of a generation: which candidate classes are stable, and who belongs to them.

Every image of the pool is compared with the candidates as each partition has made them, in averages
that it has no part in. It fits the class it is likeliest in, on average over the partitions, if it
does better there than decoys: images of noise of the same power. The images that fit are aligned
within their class several times (`stable_within`), and their pixel error over these runs tells who
is stable. A class is accepted if it has enough stable images, and the partitions agreed upon it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.search import Workspace
from cryopick.alignment.sums import RingSums
from cryopick.class2d.stable_candidates import Candidates2d, shift_grid2d
from cryopick.class2d.stable_consensus import Consensus
from cryopick.class2d.stable_engine import Poses2d, StableEngine
from cryopick.class2d.stable_error import (
    Frames,
    apply_gauges,
    find_gauges,
    mean_pose,
    pixel_errors,
)
from cryopick.class2d.stable_merge import alike_limit, class_distances, merge_classes
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_partition import filtered, find_by_fold, without_each
from cryopick.class2d.stable_search import find_candidates
from cryopick.class2d.stable_sums import sum_classes
from cryopick.class2d.stable_within import BATCH_IMAGES, ClassMembers, align_classes
from cryopick.class2d.stable_workers import Run

__all__ = [
    "FOLDS",
    "Judgement",
    "Pool",
    "averages_by_fold",
    "averages_of",
    "decoy_significance",
    "judge",
    "measure_errors",
]

FOLDS = 3
_SAME = 0.15  # of their log-likelihood, which members of classes lose in those of the same view

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Candidates of a generation, and what became of the images of its pool."""

    label: Integers  # (n,) candidate that an image is a stable member of; -1: none
    is_accepted: NDArray[np.bool_]  # (C,)
    stable_share: Floats  # (C,) of the images that fit
    class_error: Floats  # (C,) px, root mean square over the stable members
    pixel_error: Floats  # (n,) NaN: not tested
    significance: Floats  # (n,) over the limit from decoys
    poses: Poses2d  # (n,)
    averages: Tensor  # (C, size, size)
    alike: Integers  # (C,) number of the group of like candidates that each is in


@dataclass(frozen=True, kw_only=True)
class Pool:
    """What all steps of a judgement work on."""

    engine: StableEngine
    decoys: StableEngine
    rows: Integers  # (n,)
    parameters: StableParameters
    n_rings: int
    noise: Tensor
    run: Run


@dataclass(frozen=True)
class _Fit:
    """How images fit the candidates; a few numbers for each image, as there may be many."""

    label: Integers  # (n,) -1: fits none
    significance: Floats  # (n,) over the limit from decoys, in the best class
    poses: Poses2d  # in the best class, as the first partition made it
    alike: Integers  # (C,) as in `Judgement`


def judge(
    engine: StableEngine,
    decoys: StableEngine,
    rows: Integers,
    labels: Integers,
    poses: list[Poses2d],
    candidates: list[Consensus],
    parameters: StableParameters,
    *,
    least: int,
    n_rings: int,
    noise: Tensor,
    seed: int,
    run: Run,
) -> Judgement:
    """Judge the candidates of a generation.

    Parameters
    ----------
    engine, decoys
        Of the images, and of decoys.
    rows
        (n,) images of the pool.
    labels
        (P, n) classes of the partitions.
    poses
        Of the images in each partition.
    candidates
        What the partitions agree upon.
    parameters
        What the user chose.
    least
        A class needs more stable members than this.
    n_rings, noise
        As for `StableEngine.ready`.
    seed
        Of random choices.
    run
        Workers.
    """
    pool = Pool(
        engine=engine, decoys=decoys, rows=rows, parameters=parameters, n_rings=n_rings,
        noise=noise, run=run,
    )  # fmt: skip
    fit = _fitted(pool, labels, poses, candidates, np.random.default_rng(seed))
    return _judged(pool, fit, candidates, least, seed)


def _fitted(
    pool: Pool,
    labels: Integers,
    poses: list[Poses2d],
    candidates: list[Consensus],
    generator: np.random.Generator,
) -> _Fit:
    """Compare all images with the candidates of each partition."""
    n, n_classes = len(pool.rows), len(candidates)
    grid = shift_grid2d(pool.parameters.xr, pool.parameters.range_y, pool.parameters.ts)
    score, significance = np.zeros((2, n, n_classes), np.float32)
    first: Candidates2d | None = None
    reached = []
    for p, label in enumerate(labels):
        number = np.full(label.max() + 2, -1)
        number[[c.matched[p] for c in candidates]] = np.arange(n_classes)
        fold = generator.permutation(n) % FOLDS
        by_fold = averages_by_fold(pool, number[label], poses[p], fold, n_classes)
        one = find_by_fold(
            pool.engine, pool.rows, poses[p].shifts, by_fold, fold,
            grid=grid, noise=pool.noise, run=pool.run,
        )  # fmt: skip
        one.add_to(score, "score", of=len(labels))
        one.add_to(significance, "significance", of=len(labels))
        reached.append(decoy_significance(pool, by_fold, grid))
        first = first or one
    assert first is not None
    limit = np.quantile(np.concatenate(reached), 1 - pool.parameters.decoys / 100)
    significance /= max(float(limit), 1e-6)
    score[:, ~_is_single(first, n_classes)] = -np.inf
    best = score.argmax(1)
    reach = significance[np.arange(n), best]
    label = np.where(reach > 1, best, -1)
    place = first.place_of(best)
    return _Fit(
        label=label, significance=reach, poses=first.poses(place, poses[0].shifts, grid),
        alike=_groups(first, n_classes),
    )  # fmt: skip


def averages_by_fold(
    pool: Pool, label: Integers, poses: Poses2d, fold: Integers, n_classes: int
) -> Tensor:
    """Averages without each fold, (F, C, R, B)."""
    sums = [
        sum_classes(
            pool.engine, pool.rows, np.where(fold == f, label, -1), poses,
            n_classes=n_classes, n_rings=pool.n_rings, noise=pool.noise, run=pool.run,
        )
        for f in range(FOLDS)
    ]  # fmt: skip
    harmonics = _filtered(pool, without_each(sums))
    return harmonics.view(FOLDS, n_classes, *harmonics.shape[1:])


def _filtered(pool: Pool, sums: RingSums) -> Tensor:
    p = pool.parameters
    return filtered(pool.engine, sums, cut_off=p.fh, fall_off=p.ff, n_rings=pool.n_rings)[1]


def decoy_significance(pool: Pool, by_fold: Tensor, grid: Tensor) -> Floats:
    """Best significance of each decoy, in averages (F, C, R, B) at the shifts of a grid."""
    rows = np.arange(len(pool.decoys.images))
    still = torch.zeros(len(rows), 2)
    found = find_candidates(
        pool.decoys, rows, still, by_fold[0], grid=grid, noise=pool.noise, run=pool.run, most=1
    )
    return found.significance[:, 0]


def _groups(found: Candidates2d, n_classes: int) -> Integers:
    """Give like classes the same number, (C,): they may be one, split by chance.

    A split by noise takes some log-likelihood from members in the other half, too; but little
    beside what they have.
    """
    label = found.class_index[:, 0]
    sizes = np.bincount(label, minlength=n_classes)
    own = np.bincount(label, found.score[:, 0], minlength=n_classes) / sizes.clip(1)
    apart = class_distances(found, label, n_classes=n_classes)
    share = apart / (own[:, None] + own).clip(1e-6)
    return merge_classes(share, sizes, wanted=n_classes, most=0, alike=_SAME)


def _is_single(found: Candidates2d, n_classes: int) -> NDArray[np.bool_]:
    """Whether a class stays, (C,): of those alike only the largest does."""
    label = found.class_index[:, 0]
    sizes = np.bincount(label, minlength=n_classes)
    distances = class_distances(found, label, n_classes=n_classes)
    number = merge_classes(distances, sizes, wanted=n_classes, most=0, alike=alike_limit(found))
    order = np.lexsort((-sizes, number))
    is_left = np.zeros(n_classes, bool)
    is_left[order[np.concatenate([[True], np.diff(number[order]) > 0])]] = True
    return is_left


def _aligned(
    pool: Pool, label: Integers, poses: Poses2d, n_classes: int, seed: int
) -> list[Frames | None]:
    """Align images within their classes, several classes together."""
    members = [np.flatnonzero(label == c) for c in range(n_classes)]
    batches: list[list[int]] = []
    for c in range(n_classes):
        if len(members[c]) < FOLDS:
            continue
        if not batches or sum(len(members[b]) for b in [*batches[-1], c]) > BATCH_IMAGES:
            batches.append([])
        batches[-1].append(c)
    work = _Alignment(
        engine=pool.engine, parameters=pool.parameters, n_rings=pool.n_rings, noise=pool.noise,
        seed=seed,
        batches=[
            [ClassMembers(rows=pool.rows[members[c]], poses=poses.take(members[c])) for c in batch]
            for batch in batches
        ],
    )  # fmt: skip
    frames: list[Frames | None] = [None] * n_classes
    for batch, found in zip(batches, pool.run(work, range(len(batches))), strict=True):
        for c, one in zip(batch, found, strict=True):
            frames[c] = one
    return frames


@dataclass(frozen=True, kw_only=True)
class _Alignment:
    """Aligns the members of the classes of a batch."""

    engine: StableEngine
    batches: list[list[ClassMembers]]
    parameters: StableParameters
    n_rings: int
    noise: Tensor
    seed: int

    def prepare(self) -> None:
        self.engine.noise_covariance(self.n_rings)

    def __call__(self, number: int, workspace: Workspace) -> list[Frames]:
        del workspace  # each class has its own
        return align_classes(
            self.engine, self.batches[number], self.parameters,
            n_rings=self.n_rings, noise=self.noise, seed=self.seed * 1000 + number,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Pixel errors of n images over repeated alignments within C classes."""

    pixel_error: Floats  # (n,) px; infinite where mirrors are not consistent, NaN: in no class
    stable_share: Floats  # (C,) of the images
    class_error: Floats  # (C,) px, root mean square over the stable ones
    poses: Poses2d  # (n,) mean over the alignments


def measure_errors(
    pool: Pool, label: Integers, poses: Poses2d, n_classes: int, seed: int
) -> Errors:
    """Align images within their classes several times, and tell how far their poses scatter.

    Parameters
    ----------
    pool
        The images.
    label, poses
        (n,) their classes, -1: in none; and poses to begin from.
    n_classes
        C.
    seed
        Of the alignments.
    """
    diameter, limit = 2.0 * pool.parameters.target_radius, pool.parameters.pixel_error_limit
    found = Errors(
        pixel_error=np.full(len(label), np.nan, np.float32),
        stable_share=np.zeros(n_classes, np.float32),
        class_error=np.full(n_classes, np.nan, np.float32),
        poses=Poses2d.empty(len(label)),
    )
    for c, one in enumerate(_aligned(pool, label, poses, n_classes, seed)):
        if one is None:
            continue
        own = np.flatnonzero(label == c)
        gauges, consistent = find_gauges(one, diameter=diameter, limit=limit)
        joined = apply_gauges(one, gauges)
        errors = np.where(consistent, pixel_errors(joined, diameter=diameter), np.inf)
        is_stable = errors < limit
        found.poses.put(own, _mean_poses(joined))
        found.pixel_error[own] = errors
        found.stable_share[c] = is_stable.mean()
        if is_stable.any():
            found.class_error[c] = np.sqrt((errors[is_stable] ** 2).mean())
    return found


def averages_of(pool: Pool, label: Integers, poses: Poses2d, n_classes: int) -> Tensor:
    """Averages of some classes, (C, size, size)."""
    sums = sum_classes(
        pool.engine, pool.rows, label, poses,
        n_classes=n_classes, n_rings=pool.n_rings, noise=pool.noise, run=pool.run,
    )  # fmt: skip
    return pool.engine.to_images(_filtered(pool, sums))


def _judged(pool: Pool, fit: _Fit, candidates: list[Consensus], least: int, seed: int) -> Judgement:
    """Accept the classes that have enough stable images."""
    k = len(candidates)
    tested = measure_errors(pool, fit.label, fit.poses, k, seed)
    with np.errstate(invalid="ignore"):
        is_stable = tested.pixel_error < pool.parameters.pixel_error_limit
    label = np.where(is_stable, fit.label, -1)
    counts = np.bincount(label[label >= 0], minlength=k)
    agreed = np.array([c.reproducibility for c in candidates])
    return Judgement(
        label=label,
        is_accepted=(counts > least) & (agreed >= pool.parameters.reproducibility),
        stable_share=tested.stable_share,
        class_error=tested.class_error,
        pixel_error=tested.pixel_error,
        significance=fit.significance,
        poses=tested.poses,
        averages=averages_of(pool, label, tested.poses, k),
        alike=fit.alike,
    )


def _mean_poses(frames: Frames) -> Poses2d:
    mean = mean_pose(frames)
    psi, x, y = mean.to_poses()
    return Poses2d(
        psi=psi[0].astype(np.float32),
        shift_x=x[0].astype(np.float32),
        shift_y=y[0].astype(np.float32),
        mirror=mean.mirror[0],
    )
