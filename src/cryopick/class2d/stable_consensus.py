"""Which classes come out of independent partitions alike: the reproducibility test of ISAC.

Classes of all partitions are compared by the Jaccard index, members in common over members in
either. The class that agrees best with its counterparts in the other partitions is taken first,
its counterparts with it; its members are the images that most of them hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Consensus", "find_consensus", "jaccard_matrix", "join_classes"]

Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Consensus:
    """One class that several partitions have found."""

    members: Integers  # places in the pool, rising
    reproducibility: float  # mean Jaccard index of all pairs of partitions
    matched: tuple[int, ...]  # its class in each partition


def jaccard_matrix(first: Integers, second: Integers) -> NDArray[np.float64]:
    """Jaccard index of every class of one labelling with every class of another.

    Parameters
    ----------
    first, second
        (n,) labels from 0; -1: in no class.

    Returns
    -------
    numpy.ndarray
        (K, K').
    """
    k, m = int(first.max(initial=-1)) + 1, int(second.max(initial=-1)) + 1
    both = (first >= 0) & (second >= 0)
    common = np.bincount(first[both] * m + second[both], minlength=k * m).reshape(k, m)
    one = np.bincount(first[first >= 0], minlength=k)[:, None]
    other = np.bincount(second[second >= 0], minlength=m)[None]
    return np.asarray(common / np.maximum(one + other - common, 1))


def find_consensus(labels: Integers, *, fewest: int) -> list[Consensus]:
    """Match the classes of independent partitions.

    Parameters
    ----------
    labels
        (P, n), P at least 2; -1: in no class.
    fewest
        Members below which a class is dropped.

    Returns
    -------
    list of Consensus
        The most reproducible first; no image is in two of them.
    """
    n_runs = len(labels)
    table = {
        (p, q): jaccard_matrix(labels[p], labels[q])
        for p in range(n_runs)
        for q in range(n_runs)
        if p != q
    }
    free = [np.ones(int(one.max(initial=-1)) + 1, bool) for one in labels]
    best = _ranking(table, free)
    found = []
    taken = np.zeros(labels.shape[1], bool)
    for _, p, a in best:
        if not free[p][a]:
            continue
        matched = {p: a}
        for q in range(n_runs):
            if q != p and free[q].any():
                open_ones = np.where(free[q], table[p, q][a], -1)
                matched[q] = int(open_ones.argmax())
        for q, b in matched.items():
            free[q][b] = False
        votes = sum((labels[q] == b).astype(int) for q, b in matched.items())
        members = np.flatnonzero((2 * np.asarray(votes) > n_runs) & ~taken)
        if len(matched) < n_runs or len(members) < fewest:
            continue
        taken[members] = True
        pairs = [table[q, r][matched[q], matched[r]] for q in matched for r in matched if q < r]
        found.append(
            Consensus(
                members=members,
                reproducibility=float(np.mean(pairs)),
                matched=tuple(matched[q] for q in range(n_runs)),
            )
        )
    return found


def join_classes(labels: Integers, candidates: list[Consensus], groups: Integers) -> Integers:
    """Join classes of partitions that are the same view.

    A view with more images than a class holds is split by chance, and otherwise in each partition.

    Parameters
    ----------
    labels
        (P, n); -1: in no class.
    candidates
        C, of these labels.
    groups
        (C,) numbers; classes matched by candidates of one number become one.

    Returns
    -------
    numpy.ndarray
        (P, n); classes that no candidate has matched are left out, -1.
    """
    joined = np.full(labels.shape, -1)
    for p, label in enumerate(labels):
        number = np.full(label.max(initial=-1) + 2, -1)
        number[[c.matched[p] for c in candidates]] = groups
        joined[p] = number[label]
    return joined


def _ranking(
    table: dict[tuple[int, int], NDArray[np.float64]], free: list[NDArray[np.bool_]]
) -> list[tuple[float, int, int]]:
    """Classes by how well they agree with their best counterparts, the best first."""
    ranked = []
    for p, mine in enumerate(free):
        if not len(mine) or any(not len(f) for f in free):
            continue
        others = [table[p, q].max(1) for q in range(len(free)) if q != p]
        ranked += [(-float(v), p, a) for a, v in enumerate(np.mean(others, axis=0))]
    return sorted(ranked)
