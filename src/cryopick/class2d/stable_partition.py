"""One partition of the images into classes of about equal size: equal-size K-means (EQK-means).

A partition begins with few classes of images at random rotations; these are halved until there are
as many as wanted: averages of few classes find rotations better than those of many. A pass makes
averages of the classes there are, filters them by what all classes have in common and by the
tangent filter, compares every image with every class, and assigns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.sums import RingSums
from cryopick.class2d.ring_prior import RegularisedAverages, regularise
from cryopick.class2d.stable_assign import assign_greedily, assign_within_bounds, class_prices
from cryopick.class2d.stable_candidates import Candidates2d, shift_grid2d
from cryopick.class2d.stable_engine import Poses2d, StableEngine, tanh_filter
from cryopick.class2d.stable_merge import alike_limit, class_distances, merge_classes
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_search import find_candidates
from cryopick.class2d.stable_sums import sum_classes
from cryopick.class2d.stable_workers import Run

__all__ = ["Partition", "Plan", "filtered", "next_partition", "partition_plan"]

_FEWEST_RINGS = 14
_SSNR = 0.1  # of the averages: rings with less are not compared
_SPARE_RINGS = 2
_LEAST_NOISE = 0.1  # of the power of the images
_FEWEST_IMAGES = 40  # in a class, for it to be made finer than wanted
_FINER = 2  # classes for each one wanted, before they are merged
_LAST_PASSES = 2
_LEAST_SHARE = 0.05  # of an image, that is added to an average
_FOLDS = 3  # an image is compared with averages of the images of the other folds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One pass."""

    n_classes: int  # 0: those there are
    cut_off: float  # 1/px
    is_free: bool = False  # sizes do not count
    merges_to: int | None = None  # number of classes after the pass


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What parts of images the next averages are made of."""

    image: NDArray[np.int64]  # (m,) place in the pool
    label: NDArray[np.int64]  # (m,)
    weight: NDArray[np.float32]  # (m,) those of an image sum to at most 1
    poses: Poses2d  # (m,)


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Classes of the images of a pool."""

    label: NDArray[np.int64]  # (n,) -1: in no class
    poses: Poses2d  # (n,)
    shares: Shares
    noise: Tensor  # (most rings,)
    n_rings: int  # rings that the averages have signal in
    n_classes: int
    agreement: float = 0.0  # share of images that a pass has left in their class


def partition_plan(parameters: StableParameters, n_classes: int, n_images: int) -> list[Plan]:
    """Lay out the passes of a partition.

    Classes are made up to twice as fine as wanted, if enough images are left for each; those that
    images do not tell apart are merged, then the nearest, until there are as many as wanted. A
    few last passes have these.
    """
    fine = min(_FINER * n_classes, max(n_classes, n_images // _FEWEST_IMAGES))
    plans = [Plan(n_classes=fine, cut_off=f) for f in parameters.cut_offs()]
    plans[-1] = replace(plans[-1], merges_to=n_classes)
    return plans + [Plan(n_classes=0, cut_off=parameters.fh, is_free=True)] * _LAST_PASSES


def next_partition(
    engine: StableEngine,
    rows: NDArray[np.int64],
    partition: Partition,
    plan: Plan,
    parameters: StableParameters,
    *,
    run: Run,
    generator: np.random.Generator,
) -> Partition:
    """Do one pass.

    Parameters
    ----------
    engine
        Of the images.
    rows
        (n,) the images of the pool.
    partition
        Of these.
    plan
        What to do.
    parameters
        What the user chose.
    run
        Workers.
    generator
        For the halving of classes.
    """
    k = plan.n_classes or partition.n_classes
    fold = generator.permutation(len(rows)) % _FOLDS
    averages = _averages(engine, rows, partition, fold, k, plan, parameters, run=run)
    grid = shift_grid2d(parameters.xr, parameters.range_y, parameters.ts)
    before = partition.poses.shifts
    candidates = find_by_fold(
        engine, rows, before, averages.by_fold, fold,
        grid=grid, noise=averages.noise, run=run,
    )  # fmt: skip
    fresh = _assigned(candidates, k, plan, parameters)
    place = candidates.place_of(fresh)
    if plan.merges_to is None:
        fresh_shares = _shares(candidates, fresh, k, before, grid, plan, parameters)
    else:
        fresh, place, k = _merged(candidates, fresh, place, k, plan.merges_to, parameters)
        fresh_shares = _whole(candidates, fresh, place, before, grid)
    return Partition(
        label=fresh,
        poses=candidates.poses(place, before, grid),
        shares=fresh_shares,
        noise=averages.noise,
        n_rings=averages.strong_rings,
        n_classes=k,
        agreement=float((fresh == partition.label).mean()),
    )


@dataclass(frozen=True, kw_only=True)
class _Averages:
    """Averages that images are compared with in a pass."""

    by_fold: Tensor  # (F, K, R, B) without the images of each fold
    noise: Tensor  # (most rings,)
    strong_rings: int  # rings up to the last with signal


def _averages(
    engine: StableEngine,
    rows: NDArray[np.int64],
    partition: Partition,
    fold: NDArray[np.int64],
    k: int,
    plan: Plan,
    parameters: StableParameters,
    *,
    run: Run,
) -> _Averages:
    """Make the averages of a partition, and measure the noise that they leave."""
    shares = partition.shares
    n_rings = min(engine.rings_to(plan.cut_off), partition.n_rings + _SPARE_RINGS)
    n_rings = max(min(_FEWEST_RINGS, engine.most_rings), n_rings)
    label = np.where(shares.label < 0, -1, shares.label + k * fold[shares.image])
    joined = sum_classes(
        engine, rows[shares.image], label, shares.poses,
        weight=shares.weight,
        n_classes=k * _FOLDS, n_rings=n_rings, noise=partition.noise, run=run,
    )  # fmt: skip
    sums = parted(joined, _FOLDS)
    found, harmonics = filtered(
        engine, without_each(sums), cut_off=plan.cut_off, fall_off=parameters.ff, n_rings=n_rings
    )
    by_fold = harmonics.view(_FOLDS, k, *harmonics.shape[1:])
    total = reduce(RingSums.merge, sums)
    strong = (found.ssnr > _SSNR).nonzero()
    return _Averages(
        by_fold=by_fold,
        noise=_left_over(engine, rows, total, by_fold.mean(0), partition.noise),
        strong_rings=int(strong.max()) + 1 if len(strong) else 0,
    )


def parted(sums: RingSums, count: int) -> list[RingSums]:
    """Cut sums of (count K) classes into `count` times those of K."""
    k = len(sums.counts) // count
    return [
        RingSums(
            numerator=sums.numerator[i * k : i * k + k],
            denominator=sums.denominator[i * k : i * k + k],
            counts=sums.counts[i * k : i * k + k],
        )
        for i in range(count)
    ]


def without_each(sums: list[RingSums]) -> RingSums:
    """Add all folds but one, for each fold: (F K) classes, fold by fold."""
    total = reduce(RingSums.merge, sums)
    rest = [total.merge(one.weighted(-1.0)) for one in sums]
    return RingSums(
        numerator=torch.cat([r.numerator for r in rest]),
        denominator=torch.cat([r.denominator for r in rest]),
        counts=torch.cat([r.counts for r in rest]),
    )


def find_by_fold(
    engine: StableEngine,
    rows: NDArray[np.int64],
    before: Tensor,
    by_fold: Tensor,
    fold: NDArray[np.int64],
    *,
    grid: Tensor,
    noise: Tensor,
    run: Run,
    is_scale_free: bool = False,
) -> Candidates2d:
    """Compare each image with averages that it has no part in.

    Parameters
    ----------
    by_fold
        (F, K, R, B) averages without the images of each fold.
    fold
        (n,) of each image.
    """
    found: Candidates2d | None = None
    for f in range(len(by_fold)):
        mine = np.flatnonzero(fold == f)
        if not len(mine):
            continue
        part = find_candidates(
            engine, rows[mine], before[mine], by_fold[f],
            grid=grid, noise=noise, run=run, is_scale_free=is_scale_free,
        )  # fmt: skip
        if found is None:
            found = Candidates2d.room(len(rows), part.score.shape[1])
        found.put(mine, part)
    assert found is not None
    return found


def filtered(
    engine: StableEngine, sums: RingSums, *, cut_off: float, fall_off: float, n_rings: int
) -> tuple[RegularisedAverages, Tensor]:
    """Averages of sums, filtered by the prior and the tangent filter, (K, R, B)."""
    basis = engine.basis(n_rings)
    found = regularise(
        sums,
        basis,
        engine.noise_covariance(n_rings),
        share=engine.sampler(n_rings).share,
        regularisation=1.0,
    )
    transfer = tanh_filter(basis.frequencies, cut_off=cut_off, fall_off=fall_off)
    return found, found.harmonics * transfer[:, None]


def _assigned(
    candidates: Candidates2d, k: int, plan: Plan, parameters: StableParameters
) -> NDArray[np.int64]:
    if plan.is_free:
        return candidates.class_index[:, 0].copy()
    if parameters.assignment == "greedy":
        return assign_greedily(candidates.score, candidates.class_index, n_classes=k)
    return assign_within_bounds(
        candidates.score,
        candidates.class_index,
        n_classes=k,
        tolerance=parameters.size_tolerance,
    )


def _shares(
    candidates: Candidates2d,
    label: NDArray[np.int64],
    k: int,
    before: Tensor,
    grid: Tensor,
    plan: Plan,
    parameters: StableParameters,
) -> Shares:
    """Parts of images by their posterior, sizes kept equal by prices; or whole ones if greedy."""
    if parameters.assignment == "greedy" and not plan.is_free:
        return _whole(candidates, label, candidates.place_of(label), before, grid)
    prices = np.zeros(k)
    if not plan.is_free:
        prices = class_prices(
            candidates.score, candidates.class_index,
            n_classes=k, tolerance=parameters.size_tolerance,
        )  # fmt: skip
    chance = candidates.score - prices[candidates.class_index]
    chance = np.exp(chance - chance.max(1, keepdims=True))
    chance /= chance.sum(1, keepdims=True)
    image, place = np.nonzero(chance > _LEAST_SHARE)
    chosen = candidates.take(image)
    return Shares(
        image=image,
        label=chosen.class_index[np.arange(len(image)), place],
        weight=chance[image, place].astype(np.float32),
        poses=chosen.poses(place, before[image], grid),
    )


def _whole(
    candidates: Candidates2d,
    label: NDArray[np.int64],
    place: NDArray[np.int64],
    before: Tensor,
    grid: Tensor,
) -> Shares:
    """Whole images in their classes."""
    image = np.flatnonzero(label >= 0)
    return Shares(
        image=image,
        label=label[image],
        weight=np.ones(len(image), np.float32),
        poses=candidates.take(image).poses(place[image], before[image], grid),
    )


def _merged(
    candidates: Candidates2d,
    label: NDArray[np.int64],
    place: NDArray[np.int64],
    k: int,
    wanted: int,
    parameters: StableParameters,
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Merge classes that are alike, and then the nearest; members take the pose in the largest.

    An image for which that part is no candidate leaves its class.
    """
    sizes = np.bincount(label[label >= 0], minlength=k)
    most = (1 + parameters.size_tolerance) * len(label) / wanted
    distances = class_distances(candidates, label, n_classes=k)
    number = merge_classes(
        distances, sizes, wanted=wanted, most=most, alike=alike_limit(candidates)
    )
    count = int(number.max()) + 1
    order = np.lexsort((-sizes, number))
    main = order[np.concatenate([[True], np.diff(number[order]) > 0])]  # the largest of each
    target = main[number[label]]
    is_known = (candidates.class_index == target[:, None]).any(1) & (label >= 0)
    fresh = np.where(is_known, number[label], -1)
    return fresh, np.where(is_known, candidates.place_of(target), place), count


def _left_over(
    engine: StableEngine,
    rows: NDArray[np.int64],
    sums: RingSums,
    harmonics: Tensor,
    before: Tensor,
) -> Tensor:
    """Power of the noise, ring by ring: of the images, less what their averages explain."""
    n_rings = harmonics.shape[1]
    basis = engine.basis(n_rings)
    factor = torch.where(basis.orders == 0, 1.0, 2.0)
    cross = (factor * (sums.numerator.to(torch.complex64) * harmonics.conj()).real).sum((0, 2))
    power = (factor * harmonics.abs().square()).sum(2)  # (K, R)
    norm = (sums.denominator[..., 0].real.float() * power).sum(0)
    noise = before.clone()
    explained = (2 * cross - norm) / (basis.weights / before[:n_rings].to(cross))
    images, lens = engine.total_power(rows, n_rings)
    left = (images - explained.cpu() * lens / len(rows)) / lens
    share = engine.sampler(n_rings).share
    noise[:n_rings] = torch.maximum(left, _LEAST_NOISE * images / lens) / share
    return noise
