"""Logistic regression of a probability on one value, with a normal prior on what is fitted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

__all__ = ["fit_logistic"]

_FINEST = 1e-7  # step of a slope or shift
_ROUNDS = 30

Floats = NDArray[np.float64]


def fit_logistic(
    values: Floats,
    chance: Floats,
    offset: Floats | float,
    slope: tuple[float, float],
    shift: tuple[float, float],
) -> tuple[float, float]:
    """Slope and shift of log-odds that fit probabilities, by Newton's method.

    Parameters
    ----------
    values
        (n,).
    chance
        (n,) probabilities to fit.
    offset
        (n,) or one: log-odds that are added as they are.
    slope, shift
        Mean and deviation of the normal prior of each.
    """
    means, spreads = np.array([slope[0], shift[0]]), np.array([slope[1], shift[1]])
    design = np.stack([values, np.ones(len(values))], 1)

    def risk(at: Floats) -> float:
        odds = design @ at + offset
        misfit = np.logaddexp(0, odds).sum() - chance @ odds
        return float(misfit + 0.5 * (((at - means) / spreads) ** 2).sum())

    found = means.copy()
    for _ in range(_ROUNDS):
        fitted = expit(design @ found + offset)
        gradient = design.T @ (chance - fitted) - (found - means) / spreads**2
        hessian = (design * (fitted * (1 - fitted))[:, None]).T @ design
        step = np.linalg.solve(hessian + np.diag(1 / spreads**2), gradient)
        now = risk(found)
        while np.abs(step).max() > _FINEST and risk(found + step) > now:
            step = step / 2  # Newton's step goes too far where the curve is flat
        if np.abs(step).max() <= _FINEST:
            break
        found = found + step
    return float(found[0]), float(found[1])
