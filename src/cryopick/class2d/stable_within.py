"""Alignment of the members of a class, several times, each with other images in the average.

Of L runs each leaves a random part, 1 / L, of the members out of its averages and aligns all of
them, from the poses they came with until they stay where they are. Members lie in folds besides;
each is compared with averages that it has no part in, so it does not hold on to itself. All classes
of a batch share the prior of their averages (`ring_prior`). Members stay at hand at all shifts of
the grid, but for a class with more than `BATCH_IMAGES` of them, whose parts are moved when it is
their turn: memory does not grow with the largest class as the grid of shifts does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.refine import refine_poses
from cryopick.alignment.search import Rotations, Tile, Workspace, make_rotations
from cryopick.alignment.sums import RingSums
from cryopick.class2d.stable_candidates import best_poses, shift_grid2d
from cryopick.class2d.stable_engine import (
    Poses2d,
    ReadyImages,
    StableEngine,
    class_scores,
    fold_mirrors,
    mirrored_references,
    parts_of,
)
from cryopick.class2d.stable_error import Frames
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_partition import filtered, without_each

__all__ = ["BATCH_IMAGES", "ClassMembers", "align_classes"]

BATCH_IMAGES = 1200  # that are kept at all shifts at once

_FOLDS = 3
_PART = BATCH_IMAGES // _FOLDS  # images of a fold that are moved together
_FEWEST = 4  # iterations
_JUMP_EVERY = 4  # iterations
_NO_JUMP = 10  # last iterations
_STILL = 0.02  # share of poses that still change when an alignment has settled
_ANYWHERE = 1e6  # px, spread of the prior on shifts: none
_TURNED = 3.0  # deg: a larger change of angle counts


@dataclass(frozen=True, kw_only=True)
class ClassMembers:
    """Images of one class, and where they lie."""

    rows: NDArray[np.int64]  # (n,)
    poses: Poses2d  # (n,)


@dataclass
class _Part:
    """Some members of one class in one fold, at work."""

    fold: int
    images: NDArray[np.int64]  # places in the class
    ready: ReadyImages
    kept: Tile | None  # at all shifts
    counts: NDArray[np.bool_]  # (L, n) whether an image is in the averages of a run
    psi: Tensor  # (L, n) rad
    shift: Tensor  # (L, n) place in the grid
    mirror: Tensor  # (L, n) bool


def align_classes(
    engine: StableEngine,
    classes: list[ClassMembers],
    parameters: StableParameters,
    *,
    n_rings: int,
    noise: Tensor,
    seed: int,
) -> list[Frames]:
    """Align the members of some classes, `stab_ali` times each.

    Parameters
    ----------
    engine
        Of the images.
    classes
        Each with at least `_FOLDS` images.
    parameters
        What the user chose.
    n_rings, noise
        As for `StableEngine.ready`.
    seed
        Of the starts.

    Returns
    -------
    list of Frames
        (L, n) of the members of each class, every run in a frame of its own.
    """
    generator = np.random.default_rng(seed)
    grid = shift_grid2d(parameters.xr, parameters.range_y, parameters.ts)
    table = _Table(
        engine=engine, parameters=parameters, grid=grid, n_rings=n_rings, noise=noise,
        rotations=make_rotations(engine.basis(n_rings)), workspace=Workspace(device=engine.device),
        keeps=sum(len(one.rows) for one in classes) <= BATCH_IMAGES,
    )  # fmt: skip
    works = [_parts(table, one, generator) for one in classes]
    averages = _averages(table, [_summed(table, parts) for parts in works])
    for step in range(parameters.maxit):
        jumps = _is_jump(step, parameters)
        moved, sums = [], []
        for parts, own in zip(works, averages, strict=True):
            shares, added = _aligned(table, parts, own, parameters.dst if jumps else 0.0)
            moved += shares
            sums.append(added)
        averages = _averages(table, sums)
        if step >= _FEWEST and not jumps and np.mean(moved) < _STILL:
            break
    return [
        _joined([_refined(table, part, own[part.fold], one.poses) for part in parts], parts)
        for one, parts, own in zip(classes, works, averages, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class _Table:
    """What all parts are worked on with."""

    engine: StableEngine
    parameters: StableParameters
    grid: Tensor
    n_rings: int
    noise: Tensor
    rotations: Rotations
    workspace: Workspace
    keeps: bool  # whether images stay at all shifts

    def tile(self, part: _Part) -> Tile:
        """Images of a part at all shifts; in the workspace until the next is asked for."""
        if part.kept is not None:
            return part.kept
        return self.engine.tile(part.ready, self.grid, self.n_rings, self.workspace)


def _parts(table: _Table, one: ClassMembers, generator: np.random.Generator) -> list[_Part]:
    """Make the members of a class ready, fold by fold, and choose what each run leaves out."""
    engine, n, n_runs = table.engine, len(one.rows), table.parameters.stab_ali
    fold = generator.permutation(n) % _FOLDS
    counts = generator.permutation(n) % n_runs != np.arange(n_runs)[:, None]
    found = []
    for f in range(_FOLDS):
        whole = np.flatnonzero(fold == f)
        for some in parts_of(slice(0, len(whole)), _PART):
            mine = whole[some]
            own = one.poses.take(mine)
            shape = (n_runs, len(mine))
            psi, mirror = torch.from_numpy(own.psi), torch.from_numpy(own.mirror)
            part = _Part(
                fold=f,
                images=mine,
                ready=engine.ready(
                    one.rows[mine], own.shifts, n_rings=table.n_rings, noise=table.noise
                ),
                kept=None,
                counts=counts[:, mine],
                psi=psi.to(engine.device).expand(shape),
                shift=torch.zeros(shape, dtype=torch.int64, device=engine.device),
                mirror=mirror.to(engine.device).expand(shape),
            )
            if table.keeps:
                tile = table.tile(part)
                part.kept = replace(tile, weighted=tile.weighted.clone())
            found.append(part)
    return found


def _is_jump(step: int, parameters: StableParameters) -> bool:
    is_due = parameters.dst > 0 and step % _JUMP_EVERY == _JUMP_EVERY - 1
    return is_due and step < parameters.maxit - _NO_JUMP


def _averages(table: _Table, sums: list[list[RingSums]]) -> Tensor:
    """Averages of all runs of all classes without each fold, (C, F, L, R, B)."""
    parameters = table.parameters
    _, harmonics = filtered(
        table.engine, _beside([without_each(own) for own in sums]),
        cut_off=parameters.fh, fall_off=parameters.ff, n_rings=table.n_rings,
    )  # fmt: skip
    return harmonics.view(len(sums), _FOLDS, parameters.stab_ali, *harmonics.shape[1:])


def _summed(table: _Table, parts: list[_Part]) -> list[RingSums]:
    """Sum of each fold of a class in each run."""
    sums = [_sums(table, part, table.tile(part)) for part in parts]
    return _by_fold(sums, parts)


def _aligned(
    table: _Table, parts: list[_Part], averages: Tensor, jump: float
) -> tuple[list[float], list[RingSums]]:
    """Align the parts of a class; gives the share of each fold that has moved, and new sums."""
    moved, count, sums = np.zeros(_FOLDS), np.zeros(_FOLDS), []
    for part in parts:
        tile, n = table.tile(part), len(part.images)
        moved[part.fold] += n * _align(table, part, tile, averages[part.fold], jump)
        count[part.fold] += n
        sums.append(_sums(table, part, tile))
    return list(moved / count), _by_fold(sums, parts)


def _by_fold(sums: list[RingSums], parts: list[_Part]) -> list[RingSums]:
    """Add the parts of each fold."""
    return [
        reduce(RingSums.merge, [s for s, p in zip(sums, parts, strict=True) if p.fold == f])
        for f in range(_FOLDS)
    ]


def _sums(table: _Table, one: _Part, tile: Tile) -> RingSums:
    """Sum of each run over the images that count in it."""
    return _beside([_run_sum(table, one, tile, run) for run in range(len(one.psi))])


def _beside(sums: list[RingSums]) -> RingSums:
    return RingSums(
        numerator=torch.cat([s.numerator for s in sums]),
        denominator=torch.cat([s.denominator for s in sums]),
        counts=torch.cat([s.counts for s in sums]),
    )


def _run_sum(table: _Table, one: _Part, tile: Tile, run: int) -> RingSums:
    kept = np.flatnonzero(one.counts[run])
    place = torch.from_numpy(kept).to(one.psi.device)
    zero = np.zeros(len(kept), np.float32)
    poses = Poses2d(
        psi=one.psi[run, place].cpu().numpy(), shift_x=zero, shift_y=zero,
        mirror=one.mirror[run, place].cpu().numpy(),
    )  # fmt: skip
    return fold_mirrors(
        table.engine.sum_tile(
            tile, np.zeros(len(kept), np.int64), poses, 1, table.workspace,
            image=place, shift_index=one.shift[run, place],
        )
    )  # fmt: skip


def _align(table: _Table, one: _Part, tile: Tile, harmonics: Tensor, jump: float) -> float:
    """Align images to the averages of the runs (L, R, B); gives the share that has moved."""
    rotations = table.rotations
    references = mirrored_references(harmonics, table.engine.basis(table.n_rings))
    even, odd = class_scores(tile, references, rotations, table.workspace)
    allowed = None
    if jump > 0:
        n_psi = len(rotations.angles)
        turns = torch.arange(0, 360, jump, device=one.psi.device) * (torch.pi / 180)
        at = ((one.psi[None] + turns[:, None, None]) * (n_psi / (2 * torch.pi))).round().long()
        allowed = torch.zeros(n_psi, *one.psi.shape, dtype=torch.bool, device=one.psi.device)
        allowed.scatter_(0, at % n_psi, value=True)
    _, psi, shift, mirror = best_poses(even, odd, rotations, allowed=allowed)
    turned = torch.cos(psi - one.psi) < np.cos(np.deg2rad(_TURNED))
    moved = (shift != one.shift) | (mirror != one.mirror) | turned
    one.psi, one.shift, one.mirror = psi, shift, mirror
    return float(moved.float().mean())


def _refined(table: _Table, one: _Part, harmonics: Tensor, poses: Poses2d) -> Frames:
    """Poses in the averages of the runs (L, R, B) between the points of the grid, by Newton."""
    tile = table.tile(one)
    _align(table, one, tile, harmonics, 0.0)
    references = mirrored_references(harmonics, table.engine.basis(table.n_rings))
    before = poses.take(one.images).shifts.double()
    runs = []
    for run in range(len(harmonics)):  # one after the other: each takes several times its images
        start = table.grid.to(one.psi.device)[one.shift[run]]
        refined = refine_poses(
            one.ready.real,
            one.ready.imaginary,
            tile.power,
            references,
            class_index=run + len(harmonics) * one.mirror[run],
            psi=one.psi[run],
            shift=start,
            before=torch.zeros_like(start),
            sigma_offset=_ANYWHERE,
            largest_turn=4 * math.pi / len(table.rotations.angles),
            largest_shift=table.parameters.ts,
        )
        runs.append(torch.cat([refined.psi[:, None], refined.shift], 1).cpu().double())
    psi, x, y = torch.stack(runs).unbind(2)
    return Frames.from_poses(
        psi.numpy(),
        (x + before[:, 0]).numpy(),
        (y + before[:, 1]).numpy(),
        one.mirror.cpu().numpy(),
    )


def _joined(found: list[Frames], parts: list[_Part]) -> Frames:
    """Put the parts of a class together, its images in their order."""
    order = np.argsort(np.concatenate([part.images for part in parts]))
    return reduce(Frames.beside, found).take(order)
