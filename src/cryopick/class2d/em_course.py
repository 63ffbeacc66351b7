"""Where a run stands: what has changed, what the averages hold, how far an iteration is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cryopick.class2d.em_state import EmState, Poses
from cryopick.class2d.em_workers import See

__all__ = [
    "SETTLED",
    "STILL",
    "Progress",
    "data_rings",
    "pose_changes",
    "seen_by",
    "within",
]

Progress = Callable[[int, int], None]

_SIGNAL = 0.2  # least ssnr of a ring that counts as signal
_RINGS_BEYOND = 3  # rings used beyond the last with signal
_LEAST_RINGS = 14
SETTLED = (0.05, 2.0, 2.0)  # changes of class (share), rotation (deg), shift (A): refine now
STILL = (0.01, 0.5, 0.5)  # and stop now


def data_rings(state: EmState) -> int:
    """Rings up to the last with signal, and a few more."""
    has_signal = (state.ssnr > _SIGNAL).nonzero()
    last = int(has_signal.max()) + 1 if len(has_signal) else 0
    return max(last + _RINGS_BEYOND, _LEAST_RINGS)


def seen_by(poses: Poses, total: int, progress: Progress | None) -> See:
    """Write the poses of each shard where they belong, and tell how many particles are done."""
    done = 0

    def see(indices: NDArray[np.int64], fresh: Poses) -> None:
        nonlocal done
        for name in Poses.__annotations__:
            getattr(poses, name)[indices] = getattr(fresh, name)
        done += len(indices)
        if progress:
            progress(done, total)

    return see


def within(changes: tuple[float, float, float], limits: tuple[float, float, float]) -> bool:
    """Tell whether no change is beyond its limit."""
    return all(c <= limit for c, limit in zip(changes, limits, strict=True))


def pose_changes(
    before: Poses, after: Poses, indices: NDArray[np.int64]
) -> tuple[float, float, float]:
    """Share that changed class, mean turn (deg) and rms shift along an axis (A) of those seen."""
    known = indices[before.seen[indices]]
    if not len(known):
        return (1.0, 180.0, 0.0)
    turn = (after.psi[known] - before.psi[known] + 180) % 360 - 180
    same = after.class_index[known] == before.class_index[known]
    dx = after.shift_x[known] - before.shift_x[known]
    dy = after.shift_y[known] - before.shift_y[known]
    return (
        float(1 - same.mean()),
        float(np.abs(turn[same]).mean()) if same.any() else 180.0,
        float(np.sqrt((dx**2 + dy**2).mean() / 2)),
    )
