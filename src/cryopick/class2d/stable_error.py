"""Is a class aligned the same way from every random start? The pixel error of ISAC.

A pose takes an image onto its class: y = R(a) M^m x + u, M: (x, y) -> (-x, y). Each run has a
frame of its own, a turn, a shift and maybe a mirror, that says nothing about the images: its gauge.
With the gauges taken out, and d the diameter of the particle, the error of image i over L runs is

    e_i^2 = d^2 / 4 (1 - |sum_j exp(i a_ij)| / L) + var_j x_ij + var_j y_ij

(Yang et al., Structure 20, 237-247, 2012). The best gauges follow in closed form from the mean
poses and the other way round, a few times in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Frames",
    "Gauges",
    "apply_gauges",
    "find_gauges",
    "mean_pose",
    "mirror_consistency",
    "pixel_errors",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_ROUNDS = 8
_BRUTE_RUNS = 8  # up to so many runs, every choice of mirrors is tried
_OUTLIER = 3.0  # times the limit: such images do not count in the gauges
_FEWEST = 3  # images that gauges are found from


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Poses of n images in L runs: mirrored first, then turned, then shifted."""

    angle: Floats  # (L, n) rad
    shift: NDArray[np.complex128]  # (L, n) px: x + i y, in the frame of the class
    mirror: Bools  # (L, n)

    def take(self, images: NDArray[np.int64] | Bools) -> Frames:
        """Poses of some images."""
        return Frames(
            angle=self.angle[:, images], shift=self.shift[:, images], mirror=self.mirror[:, images]
        )

    def beside(self, other: Frames) -> Frames:
        """Poses of further images in the same runs."""
        return Frames(
            angle=np.concatenate([self.angle, other.angle], axis=1),
            shift=np.concatenate([self.shift, other.shift], axis=1),
            mirror=np.concatenate([self.mirror, other.mirror], axis=1),
        )

    @classmethod
    def from_poses(cls, psi: Floats, shift_x: Floats, shift_y: Floats, mirror: Bools) -> Frames:
        """Convert poses that shift first, then turn by `psi` (rad), then mirror; (L, n) each."""
        moved = (shift_x + 1j * shift_y) * np.exp(1j * psi)
        return cls(
            angle=np.where(mirror, -psi, psi),
            shift=np.where(mirror, -moved.conj(), moved),
            mirror=mirror,
        )

    def to_poses(self) -> tuple[Floats, Floats, Floats]:
        """Psi (rad), shift_x and shift_y of `from_poses`, (L, n) each."""
        psi = np.where(self.mirror, -self.angle, self.angle)
        moved = np.where(self.mirror, -self.shift.conj(), self.shift)
        shift = moved * np.exp(-1j * psi)
        return psi, shift.real, shift.imag


@dataclass(frozen=True, kw_only=True)
class Gauges:
    """What brings the frames of L runs together: mirrored first, then turned, then shifted."""

    angle: Floats  # (L,) rad
    shift: NDArray[np.complex128]  # (L,) px
    mirror: Bools  # (L,)


def pixel_errors(frames: Frames, *, diameter: float) -> Floats:
    """Pixel error of each image over the runs, as the formula says; gauges are not touched.

    Parameters
    ----------
    frames
        Of n images in L runs; the mirrors do not count.
    diameter
        Of the particle, px.

    Returns
    -------
    numpy.ndarray
        (n,) px.
    """
    turned = 1 - np.abs(np.exp(1j * frames.angle).mean(0))
    moved = frames.shift.real.var(0) + frames.shift.imag.var(0)
    return np.asarray(np.sqrt(diameter**2 / 4 * turned.clip(0) + moved))


def mirror_consistency(mirror: Bools) -> tuple[Bools, Bools]:
    """Which runs are mirrored as a whole, and which images all runs then agree upon.

    Parameters
    ----------
    mirror
        (L, n).

    Returns
    -------
    tuple of numpy.ndarray
        (L,) runs to be mirrored, the first never; (n,) images that are consistent. The choice is
        the one with most consistent images: all are tried for up to 8 runs, beyond that each run
        is brought to agree with the first.
    """
    n_runs = len(mirror)
    relative = mirror ^ mirror[0]
    if n_runs > _BRUTE_RUNS:
        flips = relative.mean(1) > 0.5
        return flips, (relative ^ flips[:, None]).sum(0) == 0
    best, best_count = np.zeros(n_runs, bool), -1
    for choice in product((False, True), repeat=n_runs - 1):
        flips = np.array((False, *choice))
        count = int(((relative ^ flips[:, None]).sum(0) == 0).sum())
        if count > best_count:
            best, best_count = flips, count
    return best, (relative ^ best[:, None]).sum(0) == 0


def find_gauges(frames: Frames, *, diameter: float, limit: float) -> tuple[Gauges, Bools]:
    """Find the gauges that make the pixel errors least.

    Parameters
    ----------
    frames
        Of n images in L runs.
    diameter
        Of the particle, px.
    limit
        Pixel error of a stable image, px: images beyond three times as much are left out.

    Returns
    -------
    tuple
        Gauges, and (n,) whether the mirrors of an image are consistent.
    """
    flips, consistent = mirror_consistency(frames.mirror)
    n_runs = len(frames.angle)
    gauges = Gauges(angle=np.zeros(n_runs), shift=np.zeros(n_runs, complex), mirror=flips)
    used = consistent.copy()
    for stage in range(2):
        if used.sum() < _FEWEST:
            break
        gauges = _fit(frames.take(used), flips)
        if stage == 0:
            errors = pixel_errors(apply_gauges(frames, gauges), diameter=diameter)
            # ten images at least, lest a bad first fit leaves only those it was bad for
            kept = consistent & (errors <= max(_OUTLIER * limit, np.sort(errors)[:10].max()))
            if kept.sum() == used.sum():
                break
            used = kept
    return gauges, consistent


def _fit(frames: Frames, flips: Bools) -> Gauges:
    """Alternate mean poses and gauges, from the turn between each run and the first."""
    n_runs = len(flips)
    zero = np.zeros(n_runs, complex)
    bare = apply_gauges(frames, Gauges(angle=zero.real, shift=zero, mirror=flips))
    between = np.exp(1j * (bare.angle[:1] - bare.angle)).sum(1)
    gauges = Gauges(angle=np.angle(between), shift=zero, mirror=flips)
    for _ in range(_ROUNDS):
        turned = bare.angle + gauges.angle[:, None]
        mean = np.angle(np.exp(1j * turned).sum(0))
        angle = np.angle(np.exp(1j * (mean - bare.angle)).sum(1))
        angle = angle - angle[0]  # the frame of the first run stays
        moved = bare.shift * np.exp(1j * angle)[:, None]
        shift = (moved[:1] - moved).mean(1)
        gauges = Gauges(angle=angle, shift=shift, mirror=flips)
    return gauges


def apply_gauges(frames: Frames, gauges: Gauges) -> Frames:
    """Bring the runs into one frame."""
    flip = gauges.mirror[:, None]
    angle = np.where(flip, -frames.angle, frames.angle)
    shift = np.where(flip, -frames.shift.conj(), frames.shift)
    return Frames(
        angle=angle + gauges.angle[:, None],
        shift=shift * np.exp(1j * gauges.angle)[:, None] + gauges.shift[:, None],
        mirror=frames.mirror ^ flip,
    )


def mean_pose(frames: Frames) -> Frames:
    """Mean of the runs, (1, n): circular mean angle, mean shift, the mirror of the last run."""
    return Frames(
        angle=np.angle(np.exp(1j * frames.angle).sum(0))[None],
        shift=frames.shift.mean(0)[None],
        mirror=frames.mirror[-1:],
    )
