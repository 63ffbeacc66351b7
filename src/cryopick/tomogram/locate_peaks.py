"""Responses of filters over a whole tomogram, block by block, and the maxima in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryopick.tomogram.locate_filters import local_maxima
from cryopick.tomogram.locate_noise import ReadBox, ResponseScale
from cryopick.tomogram.locate_source import Corner, VoxelStore, blocks_of

__all__ = ["Peaks", "find_peaks", "suppress_close"]

_REACH = 3  # voxels: half the side of the cube in which a maximum is the largest


@dataclass(frozen=True)
class Peaks:
    """Maxima of the response."""

    places: NDArray[np.float64]  # (n, 3): z, y, x in voxels, finer than the grid
    scores: NDArray[np.float64]  # (n,) z-scores
    filters: NDArray[np.int64]  # (n,) the filter that responds most

    def __len__(self) -> int:
        return len(self.scores)

    def keep(self, which: NDArray[Any]) -> Peaks:
        """Choose some, by number or by truth."""
        return Peaks(self.places[which], self.scores[which], self.filters[which])


def find_peaks(
    respond: Callable[[Tensor], Tensor],
    read: ReadBox,
    shape: Corner,
    scales: Sequence[ResponseScale],
    *,
    halo: int,
    side: int,
    threshold: float,
    slab: tuple[int, int],
    evidence: VoxelStore | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Peaks:
    """Filter a tomogram block by block and list the maxima.

    Parameters
    ----------
    respond
        Takes a box and gives responses (n, z, y, x) without `halo` voxels on each side.
    read
        Reads a box of voxels that may reach beyond the volume.
    shape
        Of the volume, voxels.
    scales
        Of each response, that make z-scores of them.
    halo
        Voxels.
    side
        Of a block, voxels; it bounds the memory and changes nothing else.
    threshold
        z-score that a maximum exceeds.
    slab
        First section and the one after the last that are searched.
    evidence
        Filled with the z-score of the filter that responds most, within the slab and a halo
        about it.
    progress
        Called with the number of blocks done and in all.

    Returns
    -------
    Peaks
        By block, then by place.
    """
    low, high = max(slab[0] - halo, 0), min(slab[1] + halo, shape[0])
    blocks = list(blocks_of((low, 0, 0), (high, shape[1], shape[2]), side=side))
    found = []
    for number, (lower, upper) in enumerate(blocks):
        margin = halo + _REACH
        start, end = _shift(lower, -margin), _shift(upper, margin)
        scores, winners = _z_scores(respond(read(start, end)), scales)
        if evidence is not None:
            inner = tuple(slice(_REACH, n - _REACH) for n in scores.shape)
            evidence.write(lower, scores[inner].cpu().numpy())
        found.append(_peaks(scores, winners, _shift(lower, -_REACH), shape, threshold))
        if progress is not None:
            progress(number + 1, len(blocks))
    peaks = Peaks(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    section = np.round(peaks.places[:, 0])
    order = np.lexsort(np.round(peaks.places).T[::-1])  # blocks leave no trace
    peaks, section = peaks.keep(order), section[order]
    return peaks.keep((section >= slab[0]) & (section < slab[1]))


def suppress_close(
    places: NDArray[np.float64], scores: NDArray[np.float64], *, distance: float
) -> NDArray[np.int64]:
    """Of picks closer than `distance`, keep the best.

    Parameters
    ----------
    places
        (n, 3).
    scores
        (n,).
    distance
        In the unit of `places`.

    Returns
    -------
    numpy.ndarray
        Numbers of those kept, the best first; equal scores keep their order.
    """
    if not len(places):
        return np.zeros(0, np.int64)
    tree = cKDTree(places)
    is_free = np.ones(len(places), bool)
    kept = []
    for number in np.argsort(-scores, kind="stable"):
        if is_free[number]:
            kept.append(number)
            is_free[tree.query_ball_point(places[number], distance, return_sorted=False)] = False
    return np.array(kept, np.int64)


def _z_scores(responses: Tensor, scales: Sequence[ResponseScale]) -> tuple[Tensor, Tensor]:
    """Largest z-score of each voxel, and its filter; the responses are changed in place."""
    best = responses[0].sub_(scales[0].middle).div_(scales[0].deviation)
    winners = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for number, scale in enumerate(scales[1:], start=1):
        score = responses[number].sub_(scale.middle).div_(scale.deviation)
        winners.masked_fill_(score > best, number)
        torch.maximum(best, score, out=best)
    return best, winners


def _peaks(
    scores: Tensor, winners: Tensor, lower: Corner, shape: Corner, threshold: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    at = local_maxima(scores, reach=_REACH, least=threshold)
    corner = torch.tensor(lower, device=at.device)
    at = at[((at + corner >= 0) & (at + corner < torch.tensor(shape, device=at.device))).all(1)]
    values = scores[tuple(at.T)].cpu().double()
    filters = winners[tuple(at.T)].cpu().long().numpy()
    places = at.cpu().double()
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.long, device=at.device)
        step[axis] = 1
        before, after = (scores[tuple((at + k * step).T)].cpu().double() for k in (-1, 1))
        curve = (before - 2 * values + after).clamp(max=-1e-12)
        places[:, axis] += (0.5 * (before - after) / curve).clamp(-0.5, 0.5)
    return places.numpy() + np.array(lower), values.numpy(), filters


def _shift(corner: Corner, step: int) -> Corner:
    z, y, x = corner
    return z + step, y + step, x + step
