"""Sums of images at their poses, class by class.

Images are taken in the order of their classes, so that a part of them has few classes, and what
comes of it is small however many there are in all. Sizes depend on the number of images alone, and
parts are added in their order: results do not depend on who made them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.search import Workspace
from cryopick.alignment.sums import RingSums
from cryopick.class2d.stable_engine import Poses2d, StableEngine, fold_mirrors, parts_of
from cryopick.class2d.stable_workers import Run

__all__ = ["sum_classes"]

_TILE = 128  # images sampled at once
_MOST_TILES = 8  # of a part
_FEWEST_PARTS = 32  # as long as there are tiles for them


def sum_classes(
    engine: StableEngine,
    rows: NDArray[np.int64],
    label: NDArray[np.int64],
    poses: Poses2d,
    *,
    weight: NDArray[np.float32] | None = None,
    n_classes: int,
    n_rings: int,
    noise: Tensor,
    run: Run,
) -> RingSums:
    """Sum images of some classes at their poses.

    Parameters
    ----------
    engine
        Of the images.
    rows
        (n,) which images; one may be there several times.
    label, poses
        (n,) their classes, and the poses in them; those of label -1 are left out.
    weight
        (n,) of each; 1 if not given.
    n_classes
        K.
    n_rings, noise
        As for `StableEngine.ready`.
    run
        Workers.
    """
    kept = np.flatnonzero(label >= 0)
    kept = kept[np.argsort(label[kept], kind="stable")]
    work = _Sum(
        engine=engine, rows=rows[kept], label=label[kept], poses=poses.take(kept),
        weight=None if weight is None else weight[kept], n_rings=n_rings, noise=noise,
    )  # fmt: skip
    total = RingSums.empty(n_classes, engine.basis(n_rings))
    for there, one in run(work, _parts(len(kept))):
        place = torch.from_numpy(there).to(engine.device)
        total.numerator.index_add_(0, place, one.numerator)
        total.denominator.index_add_(0, place, one.denominator)
        total.counts.index_add_(0, place, one.counts)
    return total


def _parts(count: int) -> list[slice]:
    """Cut so many images into parts of whole tiles."""
    tiles = min(max(count // (_TILE * _FEWEST_PARTS), 1), _MOST_TILES)
    return list(parts_of(slice(0, count), tiles * _TILE))


@dataclass(frozen=True, kw_only=True)
class _Sum:
    """Sums images that lie in the order of their classes; gives the classes, and their sums."""

    engine: StableEngine
    rows: NDArray[np.int64]
    label: NDArray[np.int64]
    poses: Poses2d
    weight: NDArray[np.float32] | None
    n_rings: int
    noise: Tensor

    def prepare(self) -> None:
        self.engine.basis(self.n_rings)

    def __call__(self, part: slice, workspace: Workspace) -> tuple[NDArray[np.int64], RingSums]:
        there, place = np.unique(self.label[part], return_inverse=True)
        sums = RingSums.empty(2 * len(there), self.engine.basis(self.n_rings))
        for tile in parts_of(part, _TILE):
            rows, own = self.rows[tile], self.poses.take(np.arange(tile.start, tile.stop))
            ready = self.engine.ready(rows, own.shifts, n_rings=self.n_rings, noise=self.noise)
            self.engine.add_tile(
                sums, self.engine.tile(ready, torch.zeros(1, 2), self.n_rings, workspace),
                place[tile.start - part.start : tile.stop - part.start], own, workspace,
                share=None if self.weight is None else self.weight[tile],
            )  # fmt: skip
        return there, fold_mirrors(sums)
