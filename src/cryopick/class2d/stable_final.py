"""The end of a run: accepted classes are refined by likelihood, and their members chosen again.

Every image, in a class or not, is compared with the accepted classes, in averages that it has no
part in. Those that do better than decoys take part in the refinement (`stable_refine`). They are
compared again with what has come out, and stay if

- they do better than decoys in the class they have come to,
- they fit about as well as images do: not far below their median, and
- not much more of them is left over, once the average is taken away, than of the other members:
  aggregates hold a particle, and more.

The pixel errors of members over repeated alignments are measured anew, for the record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.search import Workspace
from cryopick.alignment.sums import turn_phases
from cryopick.class2d.stable_candidates import shift_grid2d
from cryopick.class2d.stable_engine import Poses2d, StableEngine
from cryopick.class2d.stable_images import StableImages
from cryopick.class2d.stable_judge import (
    FOLDS,
    Pool,
    averages_by_fold,
    averages_of,
    decoy_significance,
    measure_errors,
)
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_partition import filtered, find_by_fold
from cryopick.class2d.stable_prealign import centred_poses
from cryopick.class2d.stable_refine import Refinement
from cryopick.class2d.stable_state import StableState
from cryopick.class2d.stable_sums import sum_classes
from cryopick.class2d.stable_workers import Run

__all__ = ["refine_state"]

_WIDE, _WIDE_STEP = 3.0, 1.5  # px at a target radius of 29: shifts of images that are in no class
_RADIUS = 29
_SSNR = 0.1  # of the averages: rings with less are not compared
_FEWEST_RINGS = 14
_LEAST_FIT = 0.78  # of the median significance of images that fit a class
_BEYOND = 2.0  # deviations beyond the median of what is left of the members of a class
_RESIDUAL_RINGS = 8  # where images that hold more than the particle have most power
_DEVIATION = 1.4826  # standard deviations over median absolute ones, if values are normal

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """How images fit the classes they are in."""

    label: Integers  # (n,) best class
    significance: Floats  # (n,) over the limit from decoys
    poses: Poses2d  # (n,)
    averages: Tensor  # (F, C, R, B)
    fold: Integers  # (n,)


def refine_state(
    images: StableImages,
    decoys: StableImages,
    state: StableState,
    parameters: StableParameters,
    *,
    least: int,
    threads: int,
    device: str,
    run: Run,
    keep: Callable[[StableState], None],
) -> StableState:
    """Refine the accepted classes of a run and choose their members again.

    Parameters
    ----------
    images, decoys
        All images, and images of noise of the same power.
    state
        At the end of a run, or one that `keep` was given.
    parameters
        What the user chose.
    least
        More images than this must come to a class and do better than decoys.
    threads, device, run
        To use, and workers; the result does not depend on the threads.
    keep
        Called after each iteration with a state that can be gone on from to the same result.

    Returns
    -------
    StableState
        With other members and averages. A class that is left with too few is not accepted.
    """
    accepted = np.flatnonzero(state.classes.is_accepted)
    if not len(accepted):
        return state
    pool, label = _pool_of(images, decoys, state, accepted, parameters, device=device, run=run)
    generator = np.random.default_rng([parameters.seed, len(accepted), 77])
    first = _fitted(pool, label, _known_poses(state), len(accepted), generator, is_wide=label < 0)
    rows = np.flatnonzero(first.significance > 1)
    if len(rows) < 2 * len(accepted):  # fewer images than classes and mirrors: nothing to refine
        return state
    averages = averages_of(pool, label, _known_poses(state), len(accepted))
    with Refinement(
        pool.engine.images, rows, averages, first.poses.take(rows).shifts,
        resolution=1 / (pool.n_rings * pool.engine.spacing), seed=parameters.seed,
        threads=threads, device=device, run=run,
    ) as work:  # fmt: skip
        now = state.refinement or work.start()
        while not now.is_finished:
            now = work.advance(now)
            keep(replace(state, refinement=now))
        refined, poses = work.found(now)
    found, label = first.poses, np.full(len(label), -1)
    found.put(rows, poses)
    label[rows] = refined
    second = _fitted(pool, label, found, len(accepted), generator)
    member = _members(pool, label, found, second, len(accepted), least)
    return _with_classes(pool, state, accepted, member, found, second)


def _pool_of(
    images: StableImages,
    decoys: StableImages,
    state: StableState,
    accepted: Integers,
    parameters: StableParameters,
    *,
    device: str,
    run: Run,
) -> tuple[Pool, Integers]:
    """Give all images, weighed by their CTF, and the accepted class of each, from 0."""
    engines = []
    for one in (images, decoys):
        engine = StableEngine(replace(one, has_lens=True), ring_step=parameters.rs, device=device)
        engine.measure_power(run)
        engines.append(engine)
    number = np.full(len(state.classes) + 1, -1)
    number[accepted] = np.arange(len(accepted))
    label = number[state.class_index]
    rows = np.arange(len(images))
    most = engines[0].rings_to(parameters.fh)
    sums = sum_classes(
        engines[0], rows, label, state.member_poses,
        n_classes=len(accepted), n_rings=most, noise=state.noise, run=run,
    )  # fmt: skip
    found, _ = filtered(
        engines[0], sums, cut_off=parameters.fh, fall_off=parameters.ff, n_rings=most
    )
    strong = (found.ssnr > _SSNR).nonzero()
    n_rings = min(most, max(int(strong.max()) + 1 if len(strong) else 0, _FEWEST_RINGS))
    pool = Pool(
        engine=engines[0], decoys=engines[1], rows=rows, parameters=parameters, n_rings=n_rings,
        noise=state.noise, run=run,
    )  # fmt: skip
    return pool, label


def _known_poses(state: StableState) -> Poses2d:
    """Poses of members, and of other images their shifts from the prealignment."""
    rows = np.arange(len(state.class_index))
    poses = centred_poses(state.centred, rows)
    members = np.flatnonzero(state.class_index >= 0)
    poses.put(members, state.member_poses.take(members))
    return poses


def _fitted(
    pool: Pool,
    label: Integers,
    poses: Poses2d,
    n_classes: int,
    generator: np.random.Generator,
    *,
    is_wide: NDArray[np.bool_] | None = None,
) -> _Fit:
    """Compare all images with averages of the other folds; some at more shifts."""
    p, n = pool.parameters, len(label)
    fold = generator.permutation(n) % FOLDS
    averages = averages_by_fold(pool, label, poses, fold, n_classes)
    narrow = shift_grid2d(p.xr, p.range_y, p.ts)
    scale = p.target_radius / _RADIUS
    wide = shift_grid2d(_WIDE * scale, _WIDE * scale, _WIDE_STEP * scale)
    best, significance = np.zeros(n, np.int64), np.zeros(n, np.float32)
    found = Poses2d.empty(n)
    is_wide = np.zeros(n, bool) if is_wide is None else is_wide
    for grid, mine in ((narrow, ~is_wide), (wide, is_wide)):
        rows = np.flatnonzero(mine)
        if not len(rows):
            continue
        one = find_by_fold(
            pool.engine, rows, poses.shifts[rows], averages, fold[rows],
            grid=grid, noise=pool.noise, run=pool.run,
        )  # fmt: skip
        best[rows], significance[rows] = one.class_index[:, 0], one.significance[:, 0]
        found.put(rows, one.poses(np.zeros(len(rows), np.int64), poses.shifts[rows], grid))
    reached = decoy_significance(pool, averages, narrow)
    limit = float(np.quantile(reached, 1 - p.decoys / 100))
    return _Fit(
        label=best, significance=significance / max(limit, 1e-6), poses=found, averages=averages,
        fold=fold,
    )  # fmt: skip


def _members(
    pool: Pool, label: Integers, poses: Poses2d, fit: _Fit, n_classes: int, least: int
) -> Integers:
    """Choose the images that stay in their classes; -1: the others."""
    is_beyond = (label >= 0) & (fit.significance > 1)
    fits = is_beyond & (fit.label == label)
    left = _left_over(pool, label, poses, fit)
    member = np.full(len(label), -1)
    if not fits.any():
        return member
    is_good = fits & (fit.significance >= _LEAST_FIT * np.median(fit.significance[fits]))
    for c in range(n_classes):
        own = np.flatnonzero(fits & (label == c))
        if (is_beyond & (label == c)).sum() <= least:
            continue
        middle = np.median(left[own])
        most = middle + _BEYOND * _DEVIATION * np.median(np.abs(left[own] - middle))
        member[own[is_good[own] & (left[own] <= most)]] = c
    return member


def _left_over(pool: Pool, label: Integers, poses: Poses2d, fit: _Fit) -> Floats:
    """Power that is left of images in the lowest rings, over that of the noise, (n,)."""
    kept, n_rings = np.flatnonzero(label >= 0), min(_RESIDUAL_RINGS, pool.n_rings)
    work = _Residual(
        engine=pool.engine, rows=pool.rows[kept], label=label[kept], fold=fit.fold[kept],
        poses=poses.take(kept), noise=pool.noise, averages=fit.averages[:, :, :n_rings],
    )  # fmt: skip
    result, blocks = np.zeros(len(label), np.float32), list(pool.engine.blocks(len(kept)))
    for block, left in zip(blocks, pool.run(work, blocks), strict=True):
        result[kept[block]] = left
    return result


@dataclass(frozen=True, kw_only=True)
class _Residual:
    """Measures what is left of the images of a block without their averages."""

    engine: StableEngine
    rows: Integers  # (n,)
    label: Integers
    fold: Integers
    poses: Poses2d
    noise: Tensor
    averages: Tensor  # (F, C, R, B or more)

    def prepare(self) -> None:
        self.engine.basis(self.averages.shape[2])

    def __call__(self, block: slice, workspace: Workspace) -> Floats:
        engine, n_rings = self.engine, self.averages.shape[2]
        basis = engine.basis(n_rings)
        factor = torch.where(basis.orders == 0, 1.0, 2.0)
        own = self.poses.take(np.arange(block.start, block.stop))
        ready = engine.ready(self.rows[block], own.shifts, n_rings=n_rings, noise=self.noise)
        tile = engine.tile(ready, torch.zeros(1, 2), n_rings, workspace)
        average = self.averages[self.fold[block], self.label[block], :, : len(basis.orders)]
        average = average.to(engine.device)
        is_mirrored = torch.from_numpy(own.mirror).to(engine.device)[:, None, None]
        average = torch.where(is_mirrored, average.conj(), average)  # (n, R, B)
        turn = turn_phases(torch.from_numpy(own.psi).to(engine.device), basis)  # (n, B)
        turned = (factor * turn)[:, None] * average.conj()
        rings = tile.weighted[..., 0]  # (B, 2 R, n)
        image = torch.complex(rings[:, :n_rings], rings[:, n_rings:]).permute(2, 1, 0)
        cross = (image * turned).sum(2).real  # (n, R)
        norm = ready.weight.T * (factor * average.abs().square()).sum(2)
        white = (basis.weights / self.noise[:n_rings].to(engine.device))[:, None]
        lens = ready.weight / white  # CTF^2
        left = ready.power * white - (lens * (2 * cross - norm).T)
        expected = (lens * basis.weights[:, None]).sum(0) * engine.sampler(n_rings).share
        found: Floats = (left.sum(0) / expected).cpu().numpy()
        return found


def _with_classes(
    pool: Pool,
    state: StableState,
    accepted: Integers,
    member: Integers,
    poses: Poses2d,
    fit: _Fit,
) -> StableState:
    """Write down the classes and their members."""
    k = len(accepted)
    tested = measure_errors(pool, member, poses, k, pool.parameters.seed)
    sizes = np.bincount(member[member >= 0], minlength=k)
    classes = state.classes
    columns = {
        name: getattr(classes, name).copy()
        for name in ("is_accepted", "n_members", "pixel_error", "stable_share", "averages")
    }
    columns["is_accepted"][accepted] = sizes > 0
    columns["n_members"][accepted] = sizes
    columns["pixel_error"][accepted] = tested.class_error
    columns["stable_share"][accepted] = tested.stable_share
    columns["averages"][accepted] = averages_of(pool, member, poses, k).numpy()
    error = np.where(member >= 0, tested.pixel_error, state.pixel_error).astype(np.float32)
    return replace(
        state,
        class_index=np.where(member >= 0, accepted[member], -1),
        member_poses=poses,
        pixel_error=error,
        significance=fit.significance,
        refinement=None,
        classes=replace(classes, **columns),
    )
