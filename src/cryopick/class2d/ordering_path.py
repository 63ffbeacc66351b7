"""An open path through points that are given by their distances, short but not proven shortest.

It begins twice: from the spectral order, which sees the whole, and from the nearest neighbours,
which see every step; both are improved until no reversal of a piece and no move of a piece of up
to three points shortens them, and the shorter one is kept. A last point that is at distance 0 of
all others makes a round tour of the open path.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

__all__ = ["nearest", "path_length", "shortest_path", "spectral_order"]

_Distances = NDArray[np.float32]
_Order = NDArray[np.int64]
_NEIGHBOURS = 12  # of a point, that it may be put beside
_GRAPH = 8  # neighbours in the graph of the spectral order
_LONGEST = 3  # points that move together
_LEAST = 1e-9  # gain that counts
_ROUNDS = 60  # of inverse iteration


def shortest_path(distance: _Distances) -> _Order:
    """Order points so that each is near to the one before.

    Parameters
    ----------
    distance
        (n, n) float32, symmetric, not below 0; the diagonal is not looked at.

    Returns
    -------
    numpy.ndarray
        (n,) int64: the points in order. Of the two directions, that which begins with the lower
        number. The same distances give the same order.

    Notes
    -----
    Croes, Oper. Res. 6 (1958) 791 (reversals); Or, thesis, Northwestern University (1976) (moves);
    Bentley, ORSA J. Comput. 4 (1992) 387 (neighbours only, and points that wait).
    """
    n = len(distance)
    if n < 3:
        return np.arange(n)
    closed = np.zeros((n + 1, n + 1), np.float32)
    closed[:n, :n] = distance
    near = nearest(distance, _NEIGHBOURS)
    spectral = spectral_order(distance)
    starts = (spectral, _greedy_order(distance, int(spectral[0])))
    paths = [_Tour(np.append(start, n), closed, near).improved() for start in starts]
    lengths = [path_length(distance, path) for path in paths]
    best = paths[int(np.argmin(lengths))]
    return best if best[0] < best[-1] else best[::-1].copy()


def path_length(distance: _Distances, order: _Order) -> float:
    """Sum the distances from each point to the next."""
    return float(distance[order[:-1], order[1:]].sum(dtype=np.float64))


def spectral_order(distance: _Distances) -> _Order:
    """Sort points along the slowest mode of their neighbourhood.

    Parameters
    ----------
    distance
        (n, n), n at least 3.

    Returns
    -------
    numpy.ndarray
        (n,) int64; groups without neighbours in common follow one another, the largest first.

    Notes
    -----
    The eigenvector of the second smallest eigenvalue of the graph's Laplacian (Fiedler, Czech.
    Math. J. 25 (1975) 619; Atkins et al., SIAM J. Comput. 28 (1998) 297), with neighbours weighted
    by their distance on the scale of both (Zelnik-Manor & Perona, NIPS 17 (2004) 1601).
    """
    n = len(distance)
    near = nearest(distance, _GRAPH)
    lengths = np.take_along_axis(distance, near, 1).astype(np.float64)
    scale = lengths.mean(1) + 1e-12
    weights = np.exp(-lengths / np.sqrt(scale[:, None] * scale[near]))
    rows = np.repeat(np.arange(n), near.shape[1])
    one_way = csr_array((weights.ravel(), (rows, near.ravel())), shape=(n, n))
    graph = one_way + one_way.T
    _, label = connected_components(graph, directed=False)
    groups = sorted(np.unique(label), key=lambda g: (-int((label == g).sum()), int(g)))
    orders = []
    for group in groups:
        members = np.flatnonzero(label == group)
        orders.append(members[_along_slowest_mode(graph[members][:, members])])
    return np.concatenate(orders)


def _along_slowest_mode(graph: csr_array) -> _Order:
    """Sort the points of a connected graph by inverse iteration on its Laplacian.

    Sums are made by numpy, not by a linear algebra library, whose results depend on its threads.
    """
    n = graph.shape[0]
    if n < 3:
        return np.arange(n)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    shifted = diags_array(degree * (1 + 1e-10) + 1e-9 * degree.mean()) - graph
    solver = splu(shifted.tocsc())
    mode = np.sin(np.arange(1, n + 1) * 1.7)  # no mode of any graph in particular
    for _ in range(_ROUNDS):
        mode = solver.solve(mode - mode.mean())
        mode -= mode.mean()
        mode /= np.sqrt((mode**2).sum())
    return np.argsort(mode, kind="stable")


def nearest(distance: _Distances, count: int) -> _Order:
    """Find the `count` nearest of each point, or all others, the nearest first: (n, count)."""
    n = len(distance)
    count = min(count, n - 1)
    near = np.empty((n, count), np.int64)
    for point in range(n):
        row = distance[point].copy()
        row[point] = np.inf
        near[point] = np.argsort(row, kind="stable")[:count]
    return near


def _greedy_order(distance: _Distances, first: int) -> _Order:
    """Go from each point to the nearest that is left."""
    n = len(distance)
    order = np.empty(n, np.int64)
    is_used = np.zeros(n, bool)
    point = first
    for place in range(n):
        order[place], is_used[point] = point, True
        point = int(np.where(is_used, np.inf, distance[point]).argmin())
    return order


class _Tour:
    """A round tour and the changes that shorten it."""

    def __init__(self, tour: _Order, distance: _Distances, near: _Order) -> None:
        self.tour, self.distance, self.near = tour, distance, near
        self.place = np.empty(len(tour), np.int64)
        self.place[tour] = np.arange(len(tour))

    def improved(self) -> _Order:
        """Shorten it as far as single changes can; the path without the last point."""
        waiting = list(self.tour[::-1])
        is_waiting = np.ones(len(self.tour), bool)
        while waiting:
            point = int(waiting.pop())
            is_waiting[point] = False
            while (touched := self._improve_at(point)) is not None:
                for other in touched:
                    if not is_waiting[other]:
                        is_waiting[other] = True
                        waiting.append(int(other))
        at = int(self.place[-1])
        return np.concatenate([self.tour[at + 1 :], self.tour[:at]])

    def _improve_at(self, point: int) -> _Order | None:
        """Make the best change that puts a neighbour beside a point; None if none helps."""
        near = self.near[point] if point < len(self.near) else self.near[:0, 0]
        gain_of_turn, turn = self._best_reversal(point, near)
        gain_of_move, move = self._best_move(point, near)
        if max(gain_of_turn, gain_of_move) <= _LEAST:
            return None
        if gain_of_turn >= gain_of_move:
            first, last = turn
            touched = self._around((first - 1, first, last, last + 1))
            self._reverse(first, last)
            return touched
        first, last, target, is_turned = move
        touched = self._around((first - 1, first, last, last + 1, target, target + 1))
        self._move(first, last, target, is_turned=is_turned)
        return touched

    def _between(self, one: _Order | np.int64 | int, other: _Order | np.int64 | int) -> Any:
        """Distances in double precision, or rounding would make gains that go round in circles."""
        return np.asarray(self.distance[one, other], np.float64)

    def _around(self, places: tuple[int, ...]) -> _Order:
        return np.unique(self.tour[np.array(places) % len(self.tour)])

    def _best_reversal(self, point: int, near: _Order) -> tuple[float, tuple[int, int]]:
        """Gain, and the piece of places to reverse so that a neighbour follows or precedes."""
        n, d = len(self.tour), self._between
        here, there = int(self.place[point]), self.place[near]
        best, piece = 0.0, (0, 0)
        for step in (1, -1):
            mate = self.tour[(here + step) % n]
            mates = self.tour[(there + step) % n]
            gain = d(point, mate) + d(near, mates) - d(point, near) - d(mate, mates)
            if not len(gain) or gain.max() <= best:
                continue
            k = int(gain.argmax())
            best, other = float(gain[k]), int(there[k])
            low, high = min(here, other), max(here, other)
            piece = (low + 1, high) if step == 1 else (low, high - 1)
        return best, piece

    def _best_move(self, point: int, near: _Order) -> tuple[float, tuple[int, int, int, bool]]:
        """Gain, and a piece that ends with the point, and the place it is put after."""
        n, d = len(self.tour), self._between
        here, there = int(self.place[point]), self.place[near]
        best, move = 0.0, (0, 0, 0, False)
        for length in range(1, min(_LONGEST, n - 3) + 1):
            for step in (1, -1):  # from the point forwards, or backwards
                tail = (here + step * (length - 1)) % n
                before, after = self.tour[(here - step) % n], self.tour[(tail + step) % n]
                end = self.tour[tail]
                freed = d(before, point) + d(end, after) - d(before, after)
                if freed - best <= _LEAST:
                    continue
                is_inside = (there - here) * step % n < length
                for side in (1, -1):
                    beyond = (there + side) % n
                    mates = self.tour[beyond]
                    gain = freed + d(near, mates) - d(near, point) - d(mates, end)
                    gain = np.where(is_inside | ((beyond - here) * step % n < length), -1.0, gain)
                    if not len(gain) or gain.max() <= best:
                        continue
                    k = int(gain.argmax())
                    best = float(gain[k])
                    first = here if step == 1 else tail
                    target = int(there[k]) if side == 1 else int(beyond[k])
                    # after the target comes the point if the target is its neighbour
                    is_turned = (side == 1) != (step == 1)
                    move = (first, first + length - 1, target, is_turned)
        return best, move

    def _reverse(self, first: int, last: int) -> None:
        """Reverse the places first ... last, or the rest, which is the same tour."""
        n = len(self.tour)
        if 2 * (last - first + 1) > n:
            first, last = last + 1, first + n - 1
        places = np.arange(first, last + 1) % n
        self.tour[places] = self.tour[places[::-1]]
        self.place[self.tour[places]] = places

    def _move(self, first: int, last: int, target: int, *, is_turned: bool) -> None:
        """Put the piece at the places first ... last behind the place `target`."""
        n = len(self.tour)
        piece = self.tour[np.arange(first, last + 1) % n]
        after = self.tour[target]
        rest = self.tour[np.arange(last + 1, first + n) % n]
        cut = int(np.flatnonzero(rest == after)[0]) + 1
        piece = piece[::-1] if is_turned else piece
        self.tour = np.concatenate([rest[:cut], piece, rest[cut:]])
        self.place[self.tour] = np.arange(n)
