"""Arrays as JSON takes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["plain"]


def plain(values: NDArray[np.generic], *, digits: int | None = None) -> list[float | int | None]:
    """List numbers; what is not finite is None, and whole numbers have no point.

    Parameters
    ----------
    values
        One axis.
    digits
        Behind the point that are kept; all if not given.

    Examples
    --------
    >>> plain(np.array([1.0, np.nan, 2.5]))
    [1.0, None, 2.5]
    """
    if values.dtype.kind in "iub":
        return [int(v) for v in values.tolist()]
    numbers = np.asarray(values, np.float64)
    numbers = numbers if digits is None else numbers.round(digits)
    is_whole = bool(np.all((numbers == np.floor(numbers)) | ~np.isfinite(numbers)))
    if is_whole:
        return [int(v) if np.isfinite(v) else None for v in numbers.tolist()]
    return [v if np.isfinite(v) else None for v in numbers.tolist()]
