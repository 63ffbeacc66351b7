"""Images against all classes: the search under the passes of a partition.

Tiles are cut both ways, some images against some classes, so that the products of a tile stay in a
fast cache however many classes there are. The best pose of an image in each class is found in its
tile; the best classes of an image when all tiles are through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.references import References
from cryopick.alignment.rings import RingBasis
from cryopick.alignment.search import Rotations, Workspace, make_rotations
from cryopick.class2d.stable_candidates import Candidates2d, peak_angle
from cryopick.class2d.stable_engine import (
    ReadyImages,
    StableEngine,
    class_scores,
    mirrored_references,
    parts_of,
)
from cryopick.class2d.stable_workers import Run

__all__ = ["find_candidates"]

_MOST = 32  # classes kept for an image
_TILE_VALUES = 600_000  # of the products of a tile on a CPU: columns x orders, real and imaginary
_DEVICE_VALUES = 1 << 27  # and on another device
_TILE_CLASSES = 16  # classes of a tile, if an image has few shifts


@dataclass(frozen=True, kw_only=True)
class _Search:
    """Finds the best classes of the images of a block."""

    engine: StableEngine
    rows: NDArray[np.int64]  # (n,)
    before: Tensor  # (n, 2) px
    harmonics: Tensor  # (K, R, B)
    grid: Tensor  # (S, 2) px
    noise: Tensor
    is_scale_free: bool
    sigma: float
    most: int

    @property
    def n_rings(self) -> int:
        """Rings of the classes."""
        return self.harmonics.shape[1]

    @cached_property
    def tile_size(self) -> tuple[int, int]:
        """Images and classes of a tile, which depend on where the images are compared."""
        basis = self.engine.basis(self.n_rings)
        return _tile_size(self.engine.device, basis, len(self.harmonics), len(self.grid))

    @cached_property
    def classes(self) -> list[References]:
        """Some of the classes each, with their mirrors."""
        basis = self.engine.basis(self.n_rings)
        parts = torch.split(self.harmonics.to(self.engine.device), self.tile_size[1])
        return [mirrored_references(some, basis) for some in parts]

    @cached_property
    def rotations(self) -> Rotations:
        """All of them."""
        return make_rotations(self.engine.basis(self.n_rings))

    def prepare(self) -> None:
        """Lay out the classes."""
        _ = self.classes, self.rotations

    def __call__(self, block: slice, workspace: Workspace) -> Candidates2d:
        """Compare the images of a block with all classes."""
        # made before anything large: what is small and lives on would keep the memory below it
        found = Candidates2d.room(block.stop - block.start, self.most)
        shifts = self.before[block]
        ready = self.engine.ready(self.rows[block], shifts, n_rings=self.n_rings, noise=self.noise)
        for part in parts_of(slice(0, len(shifts)), self.tile_size[0]):
            one = _search_tile(self, ready.part(part), shifts[part], workspace)
            found.put(part, one)
        return found


@dataclass(frozen=True, kw_only=True)
class _Best:
    """The best pose of n images in each of c classes, (n, c)."""

    score: Tensor
    psi: Tensor
    pose: Tensor  # mirror x shifts + shift
    significance: Tensor


def find_candidates(
    engine: StableEngine,
    rows: NDArray[np.int64],
    before: Tensor,
    harmonics: Tensor,
    *,
    grid: Tensor,
    noise: Tensor,
    run: Run,
    is_scale_free: bool = False,
    sigma: float = math.inf,
    most: int = _MOST,
) -> Candidates2d:
    """Compare images with all classes at all rotations, mirrors and shifts of a grid.

    Parameters
    ----------
    engine
        Of the images.
    rows
        (n,) which images.
    before
        (n, 2) px: shifts around which to search.
    harmonics
        (K, R, B) classes.
    grid
        (S, 2) px.
    noise
        (most rings,) power of the noise.
    run
        Workers.
    is_scale_free
        Let the contrast of each image be free.
    sigma
        Spread of the shifts along one axis that is expected, px.
    most
        Classes kept for an image.
    """
    most = min(most, len(harmonics))
    search = _Search(
        engine=engine, rows=rows, before=before, harmonics=harmonics, grid=grid, noise=noise,
        is_scale_free=is_scale_free, sigma=sigma, most=most,
    )  # fmt: skip
    found, blocks = Candidates2d.room(len(rows), most), list(engine.blocks(len(rows)))
    for block, one in zip(blocks, run(search, blocks), strict=True):
        found.put(block, one)
    return found


def _tile_size(device: str, basis: RingBasis, n_classes: int, n_shifts: int) -> tuple[int, int]:
    """Images and classes of a tile."""
    values = _TILE_VALUES if device == "cpu" else _DEVICE_VALUES
    pairs = max(1, values // (4 * basis.n_orders * n_shifts))  # of an image and a class
    n_images = max(1, pairs // min(n_classes, _TILE_CLASSES))
    return n_images, max(1, min(n_classes, pairs // n_images))


def _search_tile(
    search: _Search, ready: ReadyImages, before: Tensor, workspace: Workspace
) -> Candidates2d:
    """Compare some images with all classes."""
    offset = (before[:, None] + search.grid).square().sum(2).to(search.engine.device)
    penalty = offset / (2 * search.sigma**2)
    tile = search.engine.tile(ready, search.grid, search.n_rings, workspace)
    found = []
    for classes in search.classes:
        even, odd = class_scores(tile, classes, search.rotations, workspace)
        norms = _norms(search, ready, classes)
        found.append(_best_poses(search, even, odd, norms, penalty, workspace))
    return _best_classes(found, search.most, len(search.grid))


def _norms(search: _Search, ready: ReadyImages, classes: References) -> tuple[Tensor, Tensor]:
    """Norm terms and variances of the cross terms for random phases, (n, c) each."""
    power = classes.power[: len(classes) // 2, :, 0].real  # (c, R)
    n_rings = search.n_rings
    weights = search.engine.basis(n_rings).weights
    scale = weights / search.noise[:n_rings].to(power).square()
    return ready.weight.T @ power.T, 2 * (ready.power.T @ (scale[:, None] * power.T))


def _best_poses(
    search: _Search,
    even: Tensor,
    odd: Tensor,
    norms: tuple[Tensor, Tensor],
    penalty: Tensor,
    workspace: Workspace,
) -> _Best:
    """Find the best pose of each image in each class of a tile."""
    half, c2, n, n_shifts = even.shape
    c = c2 // 2
    best = workspace.get("best", half, c2, n, n_shifts)
    torch.abs(odd, out=best)
    best += even
    peak = best.amax(0).view(2, c, n, n_shifts).permute(2, 1, 0, 3).reshape(n, c, 2 * n_shifts)
    norm, variance = norms
    if search.is_scale_free:
        fit = peak.clamp_min(0) ** 2 / (4 * norm[..., None].clamp_min(1e-20))
    else:
        fit = peak - norm[..., None]
    score, pose = (fit - penalty.repeat(1, 2)[:, None]).max(2)
    cross = peak.gather(2, pose[..., None])[..., 0]
    image = torch.arange(n, device=even.device)[:, None]
    place = torch.arange(c, device=even.device) + c * (pose // n_shifts)
    shift = pose % n_shifts
    psi, _ = peak_angle(even[:, place, image, shift], odd[:, place, image, shift], search.rotations)
    significance = cross / variance.clamp_min(1e-20).sqrt()
    return _Best(score=score, psi=psi, pose=pose, significance=significance)


def _best_classes(found: list[_Best], most: int, n_shifts: int) -> Candidates2d:
    """Keep the best classes of each image."""
    top, place = torch.cat([f.score for f in found], dim=1).topk(most, dim=1)

    def chosen(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, dim=1).gather(1, place).cpu()

    pose = chosen([f.pose for f in found])
    return Candidates2d(
        score=top.cpu().numpy(),
        class_index=place.cpu().numpy(),
        psi=chosen([f.psi for f in found]).numpy(),
        shift_index=(pose % n_shifts).to(torch.int16).numpy(),
        mirror=(pose >= n_shifts).numpy(),
        significance=chosen([f.significance for f in found]).numpy(),
    )
