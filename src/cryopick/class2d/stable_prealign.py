"""Prealignment: all images against their own average, to centre them; only shifts are kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.centring import centre_of_mass_shift
from cryopick.class2d.stable_candidates import shift_grid2d
from cryopick.class2d.stable_engine import Poses2d, StableEngine
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_partition import filtered
from cryopick.class2d.stable_search import find_candidates
from cryopick.class2d.stable_sums import sum_classes
from cryopick.class2d.stable_workers import Run

__all__ = ["Prealignment", "next_prealignment", "search_stages", "start_prealignment"]

_CUT_OFF = 0.12  # 1/px, of the average
_SETTLED = 0.1  # px, rms change of shifts at which a stage ends
_LEAST_SPREAD = 1.0  # px
_FEWEST = 3  # iterations of a stage


@dataclass(frozen=True, kw_only=True)
class Prealignment:
    """Shifts of all images, and how far the alignment has come."""

    poses: Poses2d
    noise: Tensor  # (most rings,)
    average: Tensor  # (size, size) of the images so far
    stage: int
    in_stage: int
    done: int  # iterations
    is_finished: bool


def search_stages(parameters: StableParameters) -> list[tuple[float, float]]:
    """Ranges and steps of the shift search, px: coarse and wide first.

    As ISAC: with t half of what the box leaves beside the particle, 9 x 9 shifts of step t // 4;
    then t is halved.
    """
    t = (parameters.target_nx - 2 * (parameters.target_radius + 1)) // 2
    stages = []
    while t // 4 > 0:
        stages.append((4.0 * (t // 4), float(t // 4)))
        t //= 2
    return stages or [(float(max(t, 1)), 1.0)]


def start_prealignment(
    engine: StableEngine, noise: Tensor, *, seed: int, is_skipped: bool
) -> Prealignment:
    """Begin with random rotations, or end at once with no shifts."""
    n, size = len(engine.images), engine.images.shrink.size
    generator = np.random.default_rng([seed, 0])
    poses = Poses2d.empty(n)
    if not is_skipped:
        poses.psi = generator.uniform(0, 2 * np.pi, n).astype(np.float32)
        poses.mirror = generator.random(n) < 0.5
    return Prealignment(
        poses=poses, noise=noise, average=torch.zeros(size, size), stage=0, in_stage=0, done=0,
        is_finished=is_skipped,
    )  # fmt: skip


def next_prealignment(
    engine: StableEngine, state: Prealignment, parameters: StableParameters, *, run: Run
) -> Prealignment:
    """Do one iteration: average, filter, centre, align."""
    n, stages = len(engine.images), search_stages(parameters)
    rows = np.arange(n)
    n_rings = engine.rings_to(_CUT_OFF * (1 + parameters.ff))
    sums = sum_classes(
        engine, rows, np.zeros(n, np.int64), state.poses,
        n_classes=1, n_rings=n_rings, noise=state.noise, run=run,
    )  # fmt: skip
    _, harmonics = filtered(engine, sums, cut_off=_CUT_OFF, fall_off=parameters.ff, n_rings=n_rings)
    average = engine.to_images(harmonics)
    before = state.poses.shifts
    reach, step = stages[state.stage]
    grid = shift_grid2d(reach, reach, step)
    # the widest search is about the middle of the box, so that none walks out of it
    start = torch.zeros_like(before) if state.stage == 0 else before
    found = find_candidates(
        engine, rows, start, harmonics,
        grid=grid, noise=state.noise, run=run, is_scale_free=True, sigma=_spread(before, reach),
    )  # fmt: skip
    poses = found.poses(np.zeros(n, np.int64), start, grid)
    poses = _centred(poses, average[0], parameters)
    change = float((poses.shifts - before).square().sum(1).mean().sqrt())
    stage, in_stage, done = state.stage, state.in_stage + 1, state.done + 1
    most = max(_FEWEST, parameters.maxit // len(stages))
    is_over = in_stage >= most or (in_stage >= _FEWEST and change < max(_SETTLED, 0.2 * step))
    if is_over:
        stage, in_stage = stage + 1, 0
    return Prealignment(
        poses=poses, noise=state.noise, average=average[0], stage=stage, in_stage=in_stage,
        done=done, is_finished=stage == len(stages) or done >= parameters.maxit,
    )  # fmt: skip


def _spread(shifts: Tensor, reach: float) -> float:
    """Spread along one axis that is expected of the shifts: that found so far, px."""
    found = float(shifts.square().mean().sqrt())
    return max(found, _LEAST_SPREAD) if found > 0 else reach / 4


def _centred(poses: Poses2d, average: Tensor, parameters: StableParameters) -> Poses2d:
    """Take the shift of the average away from the images."""
    if parameters.center_method == 0:
        return poses
    moved = (poses.shift_x + 1j * poses.shift_y) * np.exp(1j * poses.psi)
    frame = np.where(poses.mirror, -moved.conj(), moved)  # as the average sees it
    if parameters.center_method == -1:
        off = -frame.mean()
    else:
        x, y = centre_of_mass_shift(
            average[None],
            max_shift=parameters.target_radius / 2,
            mask_radius=float(parameters.target_radius),
        )
        off = complex(float(x), float(y))
    frame = frame + off
    moved = np.where(poses.mirror, -frame.conj(), frame) * np.exp(-1j * poses.psi)
    return Poses2d(
        psi=poses.psi,
        shift_x=moved.real.astype(np.float32),
        shift_y=moved.imag.astype(np.float32),
        mirror=poses.mirror,
    )


def centred_poses(poses: Poses2d, rows: NDArray[np.int64]) -> Poses2d:
    """Shifts alone, for some images: rotations and mirrors of the prealignment are dropped."""
    fresh = Poses2d.empty(len(rows))
    fresh.shift_x, fresh.shift_y = poses.shift_x[rows].copy(), poses.shift_y[rows].copy()
    return fresh
