"""Connected regions of a volume of any size: blocks are labelled one by one and joined at faces.

Labels of blocks are joined by union and find (Galler and Fischer 1964) wherever two foreground
voxels meet across a face. Sizes and moments are sums, so that the blocks leave no trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cryopick.tomogram.locate_source import Corner, blocks_of

__all__ = ["Regions", "connected_regions"]

ReadMask = Callable[[Corner, Corner], NDArray[np.bool_]]
Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Regions:
    """Connected regions; their numbers begin at 1, in the order of their first voxel."""

    sizes: NDArray[np.int64]  # (n + 1,) voxels; 0 is the background
    centres: NDArray[np.float64]  # (n + 1, 3): z, y, x in voxels
    _blocks: dict[Corner, NDArray[np.int64]]  # region of each label of a block
    _read: ReadMask
    _corners: tuple[tuple[Corner, Corner], ...]

    def __len__(self) -> int:
        return len(self.sizes) - 1

    def of(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Region of each voxel (n, 3); 0 where it lies in none."""
        regions = np.zeros(len(places), np.int64)
        for lower, upper in self._corners:
            inside = ((places >= lower) & (places < upper)).all(1)
            if inside.any():
                labels, _ = ndimage.label(self._read(lower, upper))
                at = places[inside] - np.array(lower)
                regions[inside] = self._blocks[lower][labels[tuple(at.T)]]
        return regions


def connected_regions(read: ReadMask, lower: Corner, upper: Corner, *, side: int) -> Regions:
    """Find the regions of foreground voxels that touch by their faces.

    Parameters
    ----------
    read
        Gives the foreground of a box within the volume.
    lower, upper
        Of the part of the volume that is looked at; `upper` is exclusive.
    side
        Of a block, voxels.

    Returns
    -------
    Regions
        The same for every `side`.
    """
    joins = _Joins()
    firsts: list[int] = []  # of each label, the place of its first voxel in the volume
    sums: list[NDArray[np.int64]] = []
    numbers: dict[Corner, NDArray[np.int64]] = {}
    faces: dict[tuple[int, Corner], Labels] = {}
    corners = tuple(blocks_of(lower, upper, side=side))
    shape = np.array(upper) - np.array(lower)
    for start, end in corners:
        labels, count = ndimage.label(read(start, end))
        own = joins.add(count)
        numbers[start] = np.concatenate([[0], own])
        sums.append(_sums(labels, count, start))
        firsts.extend(_firsts(labels, count, np.array(start) - np.array(lower), shape))
        whole = numbers[start][labels]
        for axis in range(3):
            before = faces.pop((axis, start), None)
            if before is not None:
                joins.join(before, np.take(whole, [0], axis))
            after = tuple(end[a] if a == axis else start[a] for a in range(3))
            if end[axis] < upper[axis]:
                faces[axis, (after[0], after[1], after[2])] = np.take(whole, [-1], axis)
    roots = joins.roots()
    return _gather(roots, np.array(firsts), sums, numbers, read, corners)


class _Joins:
    """Union and find over labels counted from 1."""

    def __init__(self) -> None:
        self._parent = [0]

    def add(self, count: int) -> NDArray[np.int64]:
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def join(self, one: NDArray[np.integer], other: NDArray[np.integer]) -> None:
        both = (one > 0) & (other > 0)
        for a, b in np.unique(np.stack([one[both], other[both]], 1), axis=0):
            first, second = self._find(int(a)), self._find(int(b))
            self._parent[max(first, second)] = min(first, second)

    def roots(self) -> NDArray[np.int64]:
        return np.array([self._find(n) for n in range(len(self._parent))])

    def _find(self, label: int) -> int:
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label


def _sums(labels: Labels, count: int, start: Corner) -> NDArray[np.int64]:
    """Voxels and sums of coordinates of each label, (count, 4)."""
    places = np.argwhere(labels)
    own = labels[tuple(places.T)]
    places = places + np.array(start)
    columns = [np.bincount(own, minlength=count + 1)]
    columns += [np.bincount(own, places[:, a], minlength=count + 1) for a in range(3)]
    return np.stack(columns, 1)[1:].astype(np.int64)


def _firsts(
    labels: Labels, count: int, start: NDArray[np.int64], shape: NDArray[np.int64]
) -> list[int]:
    places = np.argwhere(labels)
    own = labels[tuple(places.T)]
    flat = np.ravel_multi_index(tuple((places + start).T), tuple(shape))
    first = np.full(count + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, own, flat)
    return [int(f) for f in first[1:]]


def _gather(
    roots: NDArray[np.int64],
    firsts: NDArray[np.int64],
    sums: list[NDArray[np.int64]],
    numbers: dict[Corner, NDArray[np.int64]],
    read: ReadMask,
    corners: tuple[tuple[Corner, Corner], ...],
) -> Regions:
    """Add up what belongs together, and number the regions by their first voxel."""
    _, whole = np.unique(roots[1:], return_inverse=True)
    count = int(whole.max(initial=-1)) + 1
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, whole, firsts)
    rank = np.empty(count, np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(1, count + 1)
    region = np.concatenate([[0], rank[whole]]).astype(np.int64)
    total = np.zeros((count + 1, 4), np.int64)
    np.add.at(total, region[1:], np.concatenate(sums))
    sizes = total[:, 0]
    centres = total[:, 1:] / np.maximum(sizes, 1)[:, None]
    blocks = {corner: region[own] for corner, own in numbers.items()}
    return Regions(sizes, centres, blocks, read, corners)
