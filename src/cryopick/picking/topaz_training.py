"""What the learning curve of Topaz says."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["best_epoch", "epoch_scores"]


def epoch_scores(curve: Iterable[str]) -> dict[int, float]:
    """Read the area under the precision-recall curve of the test after each epoch.

    Parameters
    ----------
    curve
        Lines of Topaz's table, with its header.

    Returns
    -------
    dict
        Area by epoch; rows that are no numbers are left out.
    """
    scores: dict[int, float] = {}
    names: list[str] = []
    for line in curve:
        words = line.rstrip("\n").split("\t")
        if words[0] == "epoch":
            names = words
            continue
        row = dict(zip(names, words, strict=False))
        if row.get("split") != "test":
            continue
        try:
            epoch, area = int(row["epoch"]), float(row["auprc"])
        except (KeyError, ValueError):
            continue
        if math.isfinite(area):
            scores[epoch] = area
    return scores


def best_epoch(scores: dict[int, float]) -> int:
    """Epoch of the largest area, the first of equal ones.

    Examples
    --------
    >>> best_epoch({1: 0.3, 2: 0.5, 3: 0.5})
    2
    """
    return max(scores, key=lambda epoch: (scores[epoch], -epoch))
