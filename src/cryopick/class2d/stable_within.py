"""Alignment of the members of a class, several times, each with other images in the average.

Of L runs each leaves a random part, 1 / L, of the members out of its averages and aligns all of
them, from the poses they came with until they stay where they are. Members lie in folds besides;
each is compared with averages that it has no part in, so it does not hold on to itself. All classes
of a batch share the prior of their averages (`ring_prior`).
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
)
from cryopick.class2d.stable_error import Frames
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_partition import filtered, without_each

__all__ = ["ClassMembers", "align_classes"]

_FOLDS = 3
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
class _Fold:
    """The members of one class in one fold, at work."""

    images: NDArray[np.int64]  # places in the class
    ready: ReadyImages
    tile: Tile
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
    rotations, workspace = make_rotations(engine.basis(n_rings)), Workspace(device=engine.device)
    works = [
        _folds(engine, one, grid, parameters, generator, workspace, n_rings=n_rings, noise=noise)
        for one in classes
    ]
    averages = _averages(engine, works, parameters, n_rings, workspace)
    for step in range(parameters.maxit):
        jumps = _is_jump(step, parameters)
        moved = [
            _align(
                engine, fold, averages[c, f], rotations, workspace, parameters.dst if jumps else 0.0
            )
            for c, folds in enumerate(works)
            for f, fold in enumerate(folds)
        ]
        averages = _averages(engine, works, parameters, n_rings, workspace)
        if step >= _FEWEST and not jumps and np.mean(moved) < _STILL:
            break
    frames = []
    for c, (one, folds) in enumerate(zip(classes, works, strict=True)):
        parts = [
            _refined(
                engine, fold, averages[c, f], rotations, grid, one.poses, parameters, workspace
            )
            for f, fold in enumerate(folds)
        ]
        frames.append(_joined(parts, folds))
    return frames


def _folds(
    engine: StableEngine,
    one: ClassMembers,
    grid: Tensor,
    parameters: StableParameters,
    generator: np.random.Generator,
    workspace: Workspace,
    *,
    n_rings: int,
    noise: Tensor,
) -> list[_Fold]:
    """Make the members of a class ready, fold by fold, and choose what each run leaves out."""
    n, n_runs = len(one.rows), parameters.stab_ali
    fold = generator.permutation(n) % _FOLDS
    counts = generator.permutation(n) % n_runs != np.arange(n_runs)[:, None]
    works = []
    for f in range(_FOLDS):
        mine = np.flatnonzero(fold == f)
        own = one.poses.take(mine)
        ready = engine.ready(one.rows[mine], own.shifts, n_rings=n_rings, noise=noise)
        tile = engine.tile(ready, grid, n_rings, workspace)
        shape = (n_runs, len(mine))
        psi, mirror = torch.from_numpy(own.psi), torch.from_numpy(own.mirror)
        works.append(
            _Fold(
                images=mine,
                ready=ready,
                tile=replace(tile, weighted=tile.weighted.clone()),  # the workspace is shared
                counts=counts[:, mine],
                psi=psi.to(engine.device).expand(shape),
                shift=torch.zeros(shape, dtype=torch.int64, device=engine.device),
                mirror=mirror.to(engine.device).expand(shape),
            )
        )
    return works


def _is_jump(step: int, parameters: StableParameters) -> bool:
    is_due = parameters.dst > 0 and step % _JUMP_EVERY == _JUMP_EVERY - 1
    return is_due and step < parameters.maxit - _NO_JUMP


def _averages(
    engine: StableEngine,
    works: list[list[_Fold]],
    parameters: StableParameters,
    n_rings: int,
    workspace: Workspace,
) -> Tensor:
    """Averages of all runs of all classes without each fold, (C, F, L, R, B)."""
    sums = [without_each([_sums(engine, fold, workspace) for fold in folds]) for folds in works]
    _, harmonics = filtered(
        engine, _beside(sums), cut_off=parameters.fh, fall_off=parameters.ff, n_rings=n_rings
    )
    return harmonics.view(len(works), _FOLDS, parameters.stab_ali, *harmonics.shape[1:])


def _sums(engine: StableEngine, one: _Fold, workspace: Workspace) -> RingSums:
    """Sum of each run over the images that count in it."""
    runs = [_run_sum(engine, one, run, workspace) for run in range(len(one.psi))]
    return _beside(runs)


def _beside(sums: list[RingSums]) -> RingSums:
    return RingSums(
        numerator=torch.cat([s.numerator for s in sums]),
        denominator=torch.cat([s.denominator for s in sums]),
        counts=torch.cat([s.counts for s in sums]),
    )


def _run_sum(engine: StableEngine, one: _Fold, run: int, workspace: Workspace) -> RingSums:
    kept = np.flatnonzero(one.counts[run])
    place = torch.from_numpy(kept).to(one.psi.device)
    zero = np.zeros(len(kept), np.float32)
    poses = Poses2d(
        psi=one.psi[run, place].cpu().numpy(), shift_x=zero, shift_y=zero,
        mirror=one.mirror[run, place].cpu().numpy(),
    )  # fmt: skip
    return fold_mirrors(
        engine.sum_tile(
            one.tile, np.zeros(len(kept), np.int64), poses, 1, workspace,
            image=place, shift_index=one.shift[run, place],
        )
    )  # fmt: skip


def _align(
    engine: StableEngine,
    one: _Fold,
    harmonics: Tensor,
    rotations: Rotations,
    workspace: Workspace,
    jump: float,
) -> float:
    """Align images to the averages of the runs (L, R, B); gives the share that has moved."""
    basis = engine.basis(harmonics.shape[1])
    references = mirrored_references(harmonics, basis)
    even, odd = class_scores(one.tile, references, rotations, workspace)
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


def _refined(
    engine: StableEngine,
    one: _Fold,
    harmonics: Tensor,
    rotations: Rotations,
    grid: Tensor,
    poses: Poses2d,
    parameters: StableParameters,
    workspace: Workspace,
) -> Frames:
    """Poses in the averages of the runs (L, R, B) between the points of the grid, by Newton."""
    _align(engine, one, harmonics, rotations, workspace, 0.0)
    references = mirrored_references(harmonics, engine.basis(harmonics.shape[1]))
    before = poses.take(one.images).shifts.double()
    runs = []
    for run in range(len(harmonics)):  # one after the other: each takes several times its images
        start = grid.to(one.psi.device)[one.shift[run]]
        refined = refine_poses(
            one.ready.real,
            one.ready.imaginary,
            one.tile.power,
            references,
            class_index=run + len(harmonics) * one.mirror[run],
            psi=one.psi[run],
            shift=start,
            before=torch.zeros_like(start),
            sigma_offset=_ANYWHERE,
            largest_turn=4 * math.pi / len(rotations.angles),
            largest_shift=parameters.ts,
        )
        runs.append(torch.cat([refined.psi[:, None], refined.shift], 1).cpu().double())
    psi, x, y = torch.stack(runs).unbind(2)
    return Frames.from_poses(
        psi.numpy(),
        (x + before[:, 0]).numpy(),
        (y + before[:, 1]).numpy(),
        one.mirror.cpu().numpy(),
    )


def _joined(parts: list[Frames], folds: list[_Fold]) -> Frames:
    """Put the folds of a class together, its images in their order."""
    order = np.argsort(np.concatenate([fold.images for fold in folds]))
    return reduce(Frames.beside, parts).take(order)
