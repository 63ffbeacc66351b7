"""The best classes of every image, with the pose in each."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.search import Rotations
from cryopick.class2d.stable_engine import Poses2d

__all__ = ["Candidates2d", "best_poses", "peak_angle", "shift_grid2d"]

_ROWS = 4096  # images whose candidates are laid out by class at once


@dataclass(frozen=True, kw_only=True)
class Candidates2d:
    """The best classes of n images, best first, and the best pose in each."""

    score: NDArray[np.float32]  # (n, T) log-likelihood against no particle
    class_index: NDArray[np.int64]  # (n, T)
    psi: NDArray[np.float32]  # (n, T) rad
    shift_index: NDArray[np.int16]  # (n, T) place in the grid of shifts
    mirror: NDArray[np.bool_]  # (n, T)
    significance: NDArray[np.float32]  # (n, T) cross term over its deviation for random phases

    @classmethod
    def room(cls, n: int, most: int) -> Candidates2d:
        """Make candidates that nothing is known of."""
        shape = (n, most)
        return cls(
            score=np.zeros(shape, np.float32),
            class_index=np.zeros(shape, np.int64),
            psi=np.zeros(shape, np.float32),
            shift_index=np.zeros(shape, np.int16),
            mirror=np.zeros(shape, bool),
            significance=np.zeros(shape, np.float32),
        )

    def put(self, images: slice | NDArray[np.int64], other: Candidates2d) -> None:
        """Replace the candidates of some images."""
        for f in fields(self):
            getattr(self, f.name)[images] = getattr(other, f.name)

    def take(self, images: NDArray[np.int64]) -> Candidates2d:
        """Candidates of some images."""
        return Candidates2d(**{f.name: getattr(self, f.name)[images] for f in fields(self)})

    def place_of(self, label: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each image's class stands among its candidates; 0 for the label -1."""
        return np.asarray((self.class_index == label[:, None]).argmax(1))

    def add_to(self, table: NDArray[np.float32], name: str, *, of: int) -> None:
        """Add to a mean of `of` tables (n, classes); the least where a class is no candidate."""
        values = getattr(self, name)
        for start in range(0, len(table), _ROWS):
            part = slice(start, start + _ROWS)
            rows = np.repeat(values[part].min(1, keepdims=True), table.shape[1], axis=1)
            np.put_along_axis(rows, self.class_index[part], values[part], 1)
            table[part] += rows / of

    def poses(self, place: NDArray[np.int64], before: Tensor, grid: Tensor) -> Poses2d:
        """Poses in the candidate at `place`; `before` (n, 2) is the shift images came with."""
        i = np.arange(len(place))
        shift = before.numpy() + grid.numpy()[self.shift_index[i, place]]
        return Poses2d(
            psi=self.psi[i, place],
            shift_x=shift[:, 0].astype(np.float32),
            shift_y=shift[:, 1].astype(np.float32),
            mirror=self.mirror[i, place],
        )


def shift_grid2d(range_x: float, range_y: float, step: float) -> Tensor:
    """Shifts on a rectangular grid, (S, 2) px; the first of them is none."""
    nx, ny = int(range_x / step + 1e-6), int(range_y / step + 1e-6)
    x, y = torch.arange(-nx, nx + 1) * step, torch.arange(-ny, ny + 1) * step
    grid = torch.cartesian_prod(x, y).float()
    return grid[grid.norm(dim=1).argsort(stable=True)]


def peak_angle(even: Tensor, odd: Tensor, rotations: Rotations) -> tuple[Tensor, Tensor]:
    """Angle of the highest value, between the grid's by a parabola, and the value."""
    columns = torch.cat([even + odd, even - odd])
    n_psi = len(columns)
    value, at = columns.max(0)
    below, above = (columns.gather(0, ((at + d) % n_psi)[None])[0] for d in (-1, 1))
    bend = (below - 2 * value + above).clamp_max(-1e-12)
    step = 2 * torch.pi / n_psi
    part = ((below - above) / (2 * bend)).clamp(-0.5, 0.5)
    return rotations.angles[at] + part * step, value


def best_poses(
    even: Tensor, odd: Tensor, rotations: Rotations, *, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Best pose of each image in each of K classes that have their mirrors behind them.

    Parameters
    ----------
    even, odd
        (n_psi / 2, 2 K, n, S) of `class_scores`.
    rotations
        The grid.
    allowed
        (n_psi, K, n) bool: rotations that count; all if not given.

    Returns
    -------
    tuple of Tensor
        Value, psi (rad), shift index and mirror, (K, n) each.
    """
    half, k2, n, n_shifts = even.shape
    k = k2 // 2
    if allowed is None:
        best = (even + odd.abs()).amax(0)
    else:
        twice = torch.cat([allowed, allowed], dim=1)[..., None]  # the mirrors too
        low = even.new_tensor(-torch.inf)
        first = torch.where(twice[:half], even + odd, low)
        second = torch.where(twice[half:], even - odd, low)
        best = torch.maximum(first, second).amax(0)
    best = best.view(2, k, n, n_shifts).permute(1, 2, 0, 3).reshape(k, n, 2 * n_shifts)
    value, pose = best.max(2)
    mirror, shift = pose // n_shifts, pose % n_shifts
    image = torch.arange(n, device=even.device)[None]
    place = torch.arange(k, device=even.device)[:, None] + k * mirror
    columns = (even[:, place, image, shift], odd[:, place, image, shift])
    if allowed is None:
        psi, _ = peak_angle(*columns, rotations)
    else:
        both = torch.cat([columns[0] + columns[1], columns[0] - columns[1]])
        psi = rotations.angles[both.masked_fill(~allowed, -torch.inf).argmax(0)]
    return value, psi, shift, mirror > 0
