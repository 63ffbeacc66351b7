"""What a picker finds in one micrograph."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["FieldPicks"]


class FieldPicks(NamedTuple):
    """All peaks of one micrograph above a low floor, best first, and where to cut them.

    A pick is a peak whose figure of merit is at least `threshold`; the peaks below it are kept so
    that another threshold is a filter and not a new run.
    """

    x: NDArray[np.float64]  # (n,) px of the micrograph, 0 is the middle of the first column
    y: NDArray[np.float64]  # (n,) px, 0 is the middle of the first row
    fom: NDArray[np.float64]  # (n,) figure of merit, descending
    diameter: NDArray[np.float64]  # (n,) detected diameter, A
    threshold: float
    valid_fraction: float  # fraction of the field that was searched, not masked
    maps: dict[str, NDArray[np.float32]]  # (y, x) each, by name; empty unless asked for
    class_number: NDArray[np.int64] | None = None  # (n,) template, from 1; None where there is none
    psi: NDArray[np.float64] | None = None  # (n,) deg, turns the particle onto its template

    @property
    def is_pick(self) -> NDArray[np.bool_]:
        """(n,) whether each peak is above the threshold."""
        return self.fom >= self.threshold
