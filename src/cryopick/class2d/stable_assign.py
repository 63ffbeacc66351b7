"""Assignment of images to classes of equal size: strictly and greedily, or within bounds.

Both work on the few best classes of each image, so that memory and time stay in proportion to the
number of images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["assign_greedily", "assign_within_bounds", "class_prices"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_ROUNDS = 80
_ENOUGH = 0.02  # of a bound that loads may be beyond it when prices are taken as found


def assign_greedily(score: Floats, class_index: Integers, *, n_classes: int) -> Integers:
    """Walk from the best pair of image and class to the worst and fill classes of equal size.

    The rule of ISAC: a pair is taken if the image is free and the class holds less than
    n // n_classes images; what remains over goes, again best first, where one more fits.

    Parameters
    ----------
    score
        (n, t) how well an image fits each of its candidate classes; higher is better.
    class_index
        (n, t) those classes.
    n_classes
        Number of classes.

    Returns
    -------
    numpy.ndarray
        (n,) class of each image; -1 where all candidate classes were full.
    """
    n = len(score)
    capacity = np.full(n_classes, n // n_classes)
    label = np.full(n, -1, np.int64)
    _fill(label, score, class_index, capacity)
    left = n - int((label >= 0).sum())
    if left:
        capacity = np.full(n_classes, -(-left // n_classes))
        _fill(label, score, class_index, capacity)
    return label


def assign_within_bounds(
    score: Floats, class_index: Integers, *, n_classes: int, tolerance: float
) -> Integers:
    """Assign images at most likelihood while sizes stay near equal: optimal transport.

    Every class has a price, found by iterative proportional fitting (Sinkhorn & Knopp 1967, with
    bounds on the sums instead of values) so that the expected sizes lie within the bounds; images
    then go to the class of greatest likelihood less price, best first, as long as it has room.

    Parameters
    ----------
    score
        (n, t) log-likelihoods, -inf for no candidate.
    class_index
        (n, t).
    n_classes
        Number of classes.
    tolerance
        Sizes lie within (1 - tolerance, 1 + tolerance) of n / n_classes.

    Returns
    -------
    numpy.ndarray
        (n,) class of each image; -1 where all candidate classes were full.
    """
    n = len(score)
    prices = class_prices(score, class_index, n_classes=n_classes, tolerance=tolerance)
    label = np.full(n, -1, np.int64)
    most = max(int(np.ceil((1 + tolerance) * n / n_classes)), -(-n // n_classes))
    _fill(label, score - prices[class_index], class_index, np.full(n_classes, most), by_gain=True)
    return label


def class_prices(
    score: Floats, class_index: Integers, *, n_classes: int, tolerance: float
) -> NDArray[np.float64]:
    """Prices (n_classes,) at which the expected sizes of the classes lie within the bounds."""
    n = len(score)
    low, high = (1 - tolerance) * n / n_classes, (1 + tolerance) * n / n_classes
    relative = score.astype(np.float64) - score.max(1, keepdims=True)
    prices = np.zeros(n_classes)
    flat = class_index.ravel()
    for _ in range(_ROUNDS):
        chance = relative - prices[class_index]
        chance = np.exp(chance - chance.max(1, keepdims=True))
        chance /= chance.sum(1, keepdims=True)
        load = np.bincount(flat, chance.ravel(), minlength=n_classes)
        excess = np.log(np.maximum(load, 1e-3) / np.clip(load, low, high))
        if np.abs(excess).max() < _ENOUGH:
            break
        prices += excess
    return prices


def _fill(
    label: Integers,
    score: NDArray[np.floating],
    class_index: Integers,
    capacity: Integers,
    *,
    by_gain: bool = False,
) -> None:
    """Give images without a class the best class with room; in rounds, all free images at once.

    The same as walking through all pairs from best to worst: a class takes the best of those that
    want it, and those it turns away want their next best (Gale & Shapley 1962), which with scores
    alike on both sides has one stable result. With `by_gain`, classes choose by what an image
    loses in its second best class.
    """
    n, t = score.shape
    order = np.argsort(-score, axis=1, kind="stable")
    score = np.take_along_axis(score, order, 1)
    wanted = np.take_along_axis(class_index, order, 1)
    rank = score.copy()
    if by_gain and t > 1:
        rank[:, :-1] -= score[:, 1:]
        rank[:, -1] = 0
    free = np.flatnonzero(label < 0)
    place = np.zeros(n, np.int64)
    held: Integers = np.empty(0, np.int64)
    while len(free):
        free = free[place[free] < t]
        free = free[np.isfinite(score[free, place[free]])]
        held = np.concatenate([held, free])
        wish, value = wanted[held, place[held]], rank[held, place[held]]
        ordered = np.lexsort((held, -value, wish))
        sizes = np.bincount(wish, minlength=len(capacity))
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        position = np.arange(len(held)) - first[wish[ordered]]
        is_kept = position < capacity[wish[ordered]]
        free = held[ordered[~is_kept]]
        held = held[ordered[is_kept]]
        place[free] += 1
    label[held] = wanted[held, place[held]]
