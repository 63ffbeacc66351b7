"""Classes that images hardly tell apart are merged: what K-means has split by chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopick.class2d.stable_candidates import Candidates2d

__all__ = ["alike_limit", "class_distances", "merge_classes"]

_LEAST_ALIKE = 2.0  # nats
_SHARE_ALIKE = 0.05  # of the log-likelihood: averages that correlate to 0.975

Integers = NDArray[np.int64]


def alike_limit(candidates: Candidates2d) -> float:
    """Give the distance, nats, below which classes are not told apart."""
    typical = float(np.median(candidates.score[:, 0]))
    return max(_LEAST_ALIKE, _SHARE_ALIKE * typical)


def class_distances(
    candidates: Candidates2d, label: Integers, *, n_classes: int
) -> NDArray[np.float64]:
    """How much log-likelihood a member loses in another class, both ways, on average.

    Parameters
    ----------
    candidates
        Of n images, in averages they have no part in.
    label
        (n,) their classes; -1: none.
    n_classes
        K.

    Returns
    -------
    numpy.ndarray
        (K, K) symmetric, nats; a class that is no candidate of an image counts as its last one.
    """
    kept = np.flatnonzero(label >= 0)
    mine, score, index = label[kept], candidates.score[kept], candidates.class_index[kept]
    own = np.where(index == mine[:, None], score, -np.inf).max(1)
    own = np.where(np.isfinite(own), own, score[:, -1])
    loss = np.zeros((n_classes, n_classes))
    last = own - score[:, -1]
    loss += np.bincount(mine, last, minlength=n_classes)[:, None]
    flat = mine[:, None] * n_classes + index
    change = (own[:, None] - score) - last[:, None]
    loss += np.bincount(flat.ravel(), change.ravel(), minlength=n_classes**2).reshape(loss.shape)
    loss /= np.maximum(np.bincount(mine, minlength=n_classes), 1)[:, None]
    distances: NDArray[np.float64] = loss + loss.T
    np.fill_diagonal(distances, np.inf)
    return distances


def merge_classes(
    distances: NDArray[np.float64],
    sizes: Integers,
    *,
    wanted: int,
    most: float,
    alike: float,
) -> Integers:
    """Merge classes that are alike, then the nearest until so many are left; average linkage.

    Parameters
    ----------
    distances
        (K, K) symmetric.
    sizes
        (K,) members.
    wanted
        Number of classes to be left.
    most
        Members that a class merged for that may have.
    alike
        Classes nearer than this are merged in any case.

    Returns
    -------
    numpy.ndarray
        (K,) new number of each class, from 0; more than `wanted` where sizes forbid to merge.
    """
    far = distances.copy()
    np.fill_diagonal(far, np.inf)
    weight = sizes.astype(np.float64).clip(1)
    member = np.arange(len(sizes))
    left = len(sizes)
    too_large = weight[:, None] + weight > most
    while left > 1:
        a, b = divmod(int(far.argmin()), len(sizes))
        if not far[a, b] < alike:
            if left <= wanted:
                break
            allowed = np.where(too_large, np.inf, far)
            a, b = divmod(int(allowed.argmin()), len(sizes))
            if not np.isfinite(allowed[a, b]):
                break
        row = (weight[a] * far[a] + weight[b] * far[b]) / (weight[a] + weight[b])
        row[[a, b]] = np.inf
        far[a], far[:, a] = row, row
        far[b], far[:, b] = np.inf, np.inf
        weight[a] += weight[b]
        too_large[a] = too_large[:, a] = weight[a] + weight > most
        member[member == b] = a
        left -= 1
    return np.asarray(np.unique(member, return_inverse=True)[1], dtype=np.int64)
