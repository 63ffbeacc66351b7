"""Which labelled micrographs a network learns from, and on which it is tested."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cryopick.errors import DataError

__all__ = ["split_micrographs"]


def split_micrographs(
    counts: Sequence[int], *, test_share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Choose the micrographs to test on.

    As in RELION, the micrographs are shuffled and every second one goes to the test until it
    holds the share of the labels asked for.

    Parameters
    ----------
    counts
        Labels in each micrograph, above 0.
    test_share
        Least share of the labels for the test.
    seed
        Of the order.

    Returns
    -------
    tuple of list
        Indices of the micrographs to train and to test on, ascending.

    Raises
    ------
    DataError
        If there are not two micrographs.

    Examples
    --------
    >>> train, test = split_micrographs([10] * 10, test_share=0.2, seed=1)
    >>> len(train), len(test)
    (8, 2)
    """
    if len(counts) < 2:
        raise DataError(
            "labels",
            must="be in at least 2 micrographs, to train and to test on",
            got=len(counts),
            remedy="Label particles in more micrographs",
        )
    order = np.random.default_rng(seed).permutation(len(counts)).tolist()
    wanted = test_share * sum(counts)
    test: list[int] = []
    for place, index in enumerate(order):
        if place % 2 and sum(counts[i] for i in test) < wanted:
            test.append(index)
    train = [i for i in order if i not in set(test)]
    return sorted(train), sorted(test)
