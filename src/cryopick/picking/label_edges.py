"""How far labels keep from the edges of their micrographs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["unlabelled_band"]

_STEPS = 60  # widths that are tried
_FEW = 0.1  # of the labels that the inside of the micrographs lets expect
_ENOUGH = 10.0  # labels expected in a band before their absence says anything

Points = NDArray[np.float64]


def unlabelled_band(
    labels: Sequence[Points], sizes: Sequence[tuple[float, float]], *, widest: float
) -> float:
    """Find how wide a band along the edges holds no labels, though particles must be there.

    Particles that were cut out in boxes keep half a box from the edges. Who learns from them
    must not take the particles beyond for empty.

    Parameters
    ----------
    labels
        For each micrograph (n, 2) y and x, A.
    sizes
        Height and width of each, A.
    widest
        The widest band that is looked for, A; the inside begins there.

    Returns
    -------
    float
        Width in A; 0 where labels reach the edges, or are too few to tell. Up to it, labels are
        fewer than a tenth of what their density on the inside lets expect.
    """
    away = [
        np.minimum(points, np.array(size) - points).min(axis=1)
        for points, size in zip(labels, sizes, strict=True)
    ]
    distance = np.sort(np.concatenate(away)) if away else np.empty(0)
    extent = np.array(sizes, np.float64).reshape(-1, 2)
    inside = np.prod(np.maximum(extent - 2 * widest, 0), axis=1).sum()
    if not inside:
        return 0.0
    density = (distance >= widest).sum() / inside
    widths = np.linspace(0, widest, _STEPS + 1)[1:, None]
    area = np.prod(extent, axis=1) - np.prod(np.maximum(extent - 2 * widths[..., None], 0), axis=2)
    expected = density * area.sum(axis=1)
    found = np.searchsorted(distance, widths[:, 0])
    is_empty = (expected >= _ENOUGH) & (found <= _FEW * expected)
    return float(widths[is_empty][-1, 0]) if is_empty.any() else 0.0
