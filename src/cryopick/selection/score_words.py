"""Scores and thresholds as people read them: rounded, but never across the threshold."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

__all__ = ["show_score", "show_threshold"]

_COARSE, _FINE = Decimal("0.01"), Decimal("0.0001")


def show_score(score: float, threshold: float | None) -> str:
    """Write a score with two digits, on the same side of the threshold as it is.

    Parameters
    ----------
    score
        0..1.
    threshold
        0..1; a score below it is rounded down, one that is not is rounded up if it must be. None
        where scores do not decide.

    Returns
    -------
    str
        Below what `show_threshold` writes if and only if `score` is below `threshold`.

    Examples
    --------
    >>> show_score(0.4999, 0.5), show_score(0.4999, None), show_score(0.5132, 0.5131)
    ('0.49', '0.50', '0.52')
    """
    exact = _exact(score)
    shown = exact.quantize(_COARSE, ROUND_HALF_EVEN)
    if threshold is not None:
        limit = _exact(threshold)
        if exact < limit:
            shown = exact.quantize(_COARSE, ROUND_FLOOR)
        elif shown < limit:
            shown = exact.quantize(_COARSE, ROUND_CEILING)
    return f"{shown:.2f}"


def show_threshold(threshold: float) -> str:
    """Write a threshold with two digits if it has no more, else with four, rounded up.

    Examples
    --------
    >>> show_threshold(0.5), show_threshold(0.45002)
    ('0.50', '0.4501')
    """
    exact = _exact(threshold)
    coarse = exact.quantize(_COARSE, ROUND_HALF_EVEN)
    return f"{coarse if coarse == exact else exact.quantize(_FINE, ROUND_CEILING)}"


def _exact(value: float) -> Decimal:
    """Take the shortest number that means the same float: 0.29, not 0.28999 and so on."""
    return Decimal(repr(float(value)))
