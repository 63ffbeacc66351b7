"""From a segmented volume to objects: regions, parted where several particles touch."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from cryopick.tomogram.locate_components import Regions, connected_regions
from cryopick.tomogram.locate_filters import gaussian_filter, local_maxima
from cryopick.tomogram.locate_peaks import suppress_close
from cryopick.tomogram.locate_shift import shift_to_means
from cryopick.tomogram.locate_source import Corner, VoxelSource, blocks_of, read_padded

__all__ = ["Instances", "find_instances"]

_REACH = 3  # voxels about a maximum of the distance to the background
_SMOOTH = 1.0  # voxels: breaks the ties of a distance that is an integer of squares


@dataclass(frozen=True)
class Instances:
    """Objects of a segmentation."""

    places: NDArray[np.float64]  # (n, 3): z, y, x in voxels
    volumes: NDArray[np.float64]  # (n,) voxels
    weights: NDArray[np.float64]  # (n,) mean probability


def find_instances(
    source: VoxelSource,
    *,
    least: float,
    slab: tuple[int, int],
    distance: float,
    radius: float,
    volumes: tuple[float, float],
    how: str,
    side: int,
    is_wanted: Callable[[NDArray[np.float64]], NDArray[np.bool_]] | None = None,
) -> Instances:
    """Find the objects of a segmentation.

    Parameters
    ----------
    source
        Probability that a voxel belongs to a particle.
    least
        Probability from which a voxel does.
    slab
        First section and the one after the last that are looked at.
    distance
        Least distance of two objects in one region, voxels.
    radius
        Of the largest object, voxels.
    volumes
        Least and most of an object, voxels.
    how
        ``components``: a region is an object. ``watershed``: a region is parted between the places
        farthest from its surface, at least one to a region. ``mean-shift``: those places move
        to the mean of the probability about them.
    side
        Of a block, voxels.
    is_wanted
        Tells of places (n, 3) whether an object there is worth measuring; all are without it.

    Returns
    -------
    Instances
        By region.
    """
    _, height, width = source.shape

    def read(lower: Corner, upper: Corner) -> NDArray[np.bool_]:
        return np.asarray(source.read(lower, upper), np.float32) >= least

    lower, upper = (slab[0], 0, 0), (slab[1], height, width)
    regions = connected_regions(read, lower, upper, side=side)
    large = np.flatnonzero(regions.sizes >= volumes[0])
    large = large[large > 0]
    if how == "components":
        seeds, owners = regions.centres[large], large
    else:
        seeds, owners = _seeds(source, regions, least, lower, upper, radius, distance, side)
        missing = np.setdiff1d(large, owners)
        is_large = np.isin(owners, large)
        seeds = np.concatenate([seeds[is_large], regions.centres[missing]])
        owners = np.concatenate([owners[is_large], missing])
    if how == "mean-shift":
        seeds = shift_to_means(source, seeds, radius=radius, least=0.5 * least)
    wanted = np.ones(len(seeds), bool) if is_wanted is None else is_wanted(seeds)
    found = _parts(source, regions, seeds, owners, wanted, least=least, radius=radius, how=how)
    fits = (found.volumes >= volumes[0]) & (found.volumes <= volumes[1])
    return Instances(found.places[fits], found.volumes[fits], found.weights[fits])


def _seeds(
    source: VoxelSource,
    regions: Regions,
    least: float,
    lower: Corner,
    upper: Corner,
    radius: float,
    distance: float,
    side: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Places farthest from the surface, thinned within each region."""
    deepest = int(np.ceil(radius))
    halo = deepest + _REACH + int(np.ceil(4 * _SMOOTH))
    places, depths = [], []
    for start, end in blocks_of(lower, upper, side=side):
        box = read_padded(source, _shift(start, -halo), _shift(end, halo))
        inside = (box >= least).numpy()
        depth = np.minimum(ndimage.distance_transform_edt(inside), deepest).astype(np.float32)
        smooth = gaussian_filter(torch.from_numpy(depth), _SMOOTH)
        cut = deepest
        smooth = smooth[
            cut : smooth.shape[0] - cut, cut : smooth.shape[1] - cut, cut : -cut or None
        ]
        found = local_maxima(smooth, reach=_REACH, least=0.5)
        depths.append(smooth[tuple(found.T)].double().numpy())
        places.append(found.numpy() + np.array(start) - _REACH)
    at, heights = np.concatenate(places), np.concatenate(depths)
    owners = regions.of(at)
    order = np.lexsort(at.T[::-1])
    at, heights, owners = at[order], heights[order], owners[order]
    kept: list[int] = []
    for region in np.unique(owners[owners > 0]):
        members = np.flatnonzero(owners == region)
        best = suppress_close(at[members].astype(float), heights[members], distance=distance)
        kept.extend(members[best])
    chosen = np.array(kept, np.int64)
    return at[chosen].astype(np.float64), owners[chosen]


def _parts(
    source: VoxelSource,
    regions: Regions,
    seeds: NDArray[np.float64],
    owners: NDArray[np.int64],
    wanted: NDArray[np.bool_],
    *,
    least: float,
    radius: float,
    how: str,
) -> Instances:
    """Measure each object: its own voxels, parted from those of other seeds nearby."""
    half = int(np.ceil(1.5 * radius)) + 2
    rows = []
    for number, seed in enumerate(seeds):
        if not wanted[number]:
            continue
        z, y, x = (int(c) - half for c in np.round(seed))
        side = 2 * half + 1
        box = read_padded(source, (z, y, x), (z + side, y + side, x + side)).numpy()
        near = (np.abs(seeds - np.round(seed)) <= half).all(1) & (owners == owners[number])
        others = np.round(seeds[near]).astype(int) - np.array((z, y, x))
        own = int(near[:number].sum())
        part = _part(box, others, own, least)
        mass = float(part.sum())
        if how == "components":
            volume = float(regions.sizes[owners[number]])
        else:
            volume = float((part > 0).sum())
        if mass <= 0:
            continue
        centre = np.array([float((part.sum(_other(a)) * np.arange(side)).sum()) for a in range(3)])
        place = seed if how == "mean-shift" else centre / mass + np.array((z, y, x))
        rows.append((place, volume, mass / max(float((part > 0).sum()), 1.0)))
    if not rows:
        return Instances(np.zeros((0, 3)), np.zeros(0), np.zeros(0))
    places, volumes, weights = (np.array(r) for r in zip(*rows, strict=True))
    return Instances(places, volumes, weights)


def _part(
    box: NDArray[np.float32], seeds: NDArray[np.int64], own: int, least: float
) -> NDArray[np.float64]:
    """Probability within the basin of one seed, 0 elsewhere."""
    inside = box >= least
    weights = np.where(inside, box, 0).astype(np.float64)
    if len(seeds) == 1:
        labels, _ = ndimage.label(inside)
        label = labels[tuple(seeds[0])]
        return np.where(labels == label, weights, 0.0) if label else weights
    basins = _flood(ndimage.distance_transform_edt(inside), seeds)
    return np.where(basins == own + 1, weights, 0.0)


def _flood(depth: NDArray[np.float64], seeds: NDArray[np.int64]) -> NDArray[np.int32]:
    """Part a region by flooding its depth from the seeds, the deepest first (Meyer 1994)."""
    padded = np.pad(depth, 1)
    flat = padded.ravel()
    strides = (padded.shape[1] * padded.shape[2], padded.shape[2], 1)
    steps = [s * sign for s in strides for sign in (-1, 1)]
    basins = np.zeros(flat.shape, np.int32)
    queue: list[tuple[float, int, int]] = []
    for number, seed in enumerate(seeds):
        place = int(np.dot(seed + 1, strides))
        basins[place] = number + 1
        heapq.heappush(queue, (-flat[place], len(queue), place))
    count = len(queue)
    while queue:
        _, _, place = heapq.heappop(queue)
        for step in steps:
            there = place + step
            if flat[there] > 0 and not basins[there]:
                basins[there] = basins[place]
                count += 1
                heapq.heappush(queue, (-flat[there], count, there))
    return basins.reshape(padded.shape)[1:-1, 1:-1, 1:-1]


def _other(axis: int) -> tuple[int, int]:
    first, second = (a for a in range(3) if a != axis)
    return first, second


def _shift(corner: Corner, step: int) -> Corner:
    z, y, x = corner
    return z + step, y + step, x + step
