"""The chart that shows whether predicted values can be taken at their word."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import ArrayLike, NDArray

from cryopick.checks import require_above
from cryopick.errors import DataError, ShapeError
from cryopick.report.figures import ACCENT, HALF, STYLE

__all__ = ["calibration_bins", "draw_calibration"]

_INK, _FAINT = "#3a3f45", "#c9ced3"
_N_BARS = 50  # of the histogram, from 0 to 1

Floats = NDArray[np.float64]


def calibration_bins(
    predicted: ArrayLike,
    observed: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    n_bins: int = 10,
) -> pd.DataFrame:
    """Compare predicted with observed values, in bins of predictions of equal weight.

    Equal predictions are never parted, so there may be fewer bins than asked for.

    Parameters
    ----------
    predicted, observed
        (n,) from 0 to 1: what was predicted, and what turned out; shares, or 0 and 1.
    weights
        (n,) at least 0: how much each counts, such as the particles of a class; None counts all
        alike.
    n_bins
        Most bins, at least 1.

    Returns
    -------
    pandas.DataFrame
        One row for each bin, in the order of the predictions: ``predicted`` and ``observed``,
        weighted means; ``error``, standard error of the observed mean; ``count``, values.

    Notes
    -----
    Where every observed value of a bin is 0 or 1, or all are alike, the error is that of a share
    whose prior is uniform, sqrt(q (1 - q) / (n + 3)) with q = (n m + 1) / (n + 2), where m is the
    observed mean and n = (sum w)^2 / sum w^2 the effective number (Kish, Survey Sampling, 1965).
    So a bin of events that are rare or absent is not taken for certain. Else it is the error of a
    weighted mean, sqrt(k / (k - 1) sum w^2 (y - m)^2) / sum w, k being the count; for equal
    weights that is the usual s / sqrt(k) (Cochran, Sampling Techniques, 1977, section 6). Both
    count the spread of the predictions within a bin as error, so wide bins have long bars.

    Raises
    ------
    ShapeError
        If the arrays differ in length or have more than one axis.
    DataError
        If a value is not finite or not from 0 to 1, a weight is negative, or nothing is left.
    ParameterError
        If `n_bins` is below 1.
    """
    require_above(n_bins, 0, name="n_bins")
    x, y, w = _checked(predicted, observed, weights)
    place = np.unique(x, return_inverse=True)[1]
    of_value = np.bincount(place, weights=w)
    middles = np.cumsum(of_value) - of_value / 2  # weight below the middle of each value
    bins = np.floor(n_bins * middles / w.sum()).astype(int).clip(0, n_bins - 1)[place]
    rows = [_bin(x[bins == b], y[bins == b], w[bins == b]) for b in np.unique(bins)]
    return pd.DataFrame(rows, columns=["predicted", "observed", "error", "count"])


def draw_calibration(
    predicted: ArrayLike,
    observed: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    n_bins: int = 10,
    title: str = "",
) -> Figure:
    """Draw observed against predicted values, and below it how often each was predicted.

    Parameters
    ----------
    predicted, observed, weights, n_bins
        As for `calibration_bins`. The bars are two standard errors to either side.
    title
        Above the chart; empty draws none.

    Raises
    ------
    ShapeError, DataError, ParameterError
        As `calibration_bins`.
    """
    table = calibration_bins(predicted, observed, weights, n_bins=n_bins)
    x, _, w = _checked(predicted, observed, weights)
    with rc_context(STYLE):
        figure = Figure(figsize=(HALF / 96, 490 / 96), layout="constrained")
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        _draw_bins(top, table)
        if title:
            top.set_title(title, loc="left")
        below.hist(x, np.linspace(0, 1, _N_BARS + 1).tolist(), weights=w, color=_FAINT)
        below.grid(visible=True, axis="y")
        below.set_xlabel("Predicted")
        below.set_ylabel("Number" if weights is None else "Weight")
        below.yaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        below.set_xlim(-0.02, 1.02)
        figure.align_ylabels()
    return figure


def _checked(
    predicted: ArrayLike, observed: ArrayLike, weights: ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    """Give all three as arrays, without what weighs nothing."""
    x, y = np.asarray(predicted, np.float64), np.asarray(observed, np.float64)
    w = np.ones(x.shape) if weights is None else np.asarray(weights, np.float64)
    for name, array in (("predicted", x), ("observed", y), ("weights", w)):
        if array.ndim != 1 or array.shape != x.shape:
            raise ShapeError(
                name,
                must="have one axis, as long as that of predicted",
                got=str(array.shape),
                remedy="Give one value for each prediction",
            )
        top = np.inf if name == "weights" else 1
        is_wrong = ~(np.isfinite(array) & (array >= 0) & (array <= top))
        if is_wrong.any():
            rule = "finite and at least 0" if name == "weights" else "from 0 to 1"
            first = array[is_wrong][0]
            raise DataError(name, must=f"be {rule}", got=f"{first:g}", remedy="Leave it out")
    is_counted = w > 0
    if not is_counted.any():
        raise DataError(
            "predicted", must="hold values that count", got="none", remedy="Give some predictions"
        )
    return x[is_counted], y[is_counted], w[is_counted]


def _bin(x: Floats, y: Floats, w: Floats) -> tuple[float, float, float, int]:
    total, mean = w.sum(), float(np.average(y, weights=w))
    count = len(y)
    if np.isin(y, (0, 1)).all() or np.ptp(y) == 0:
        effective = total**2 / np.sum(w**2)
        share = (effective * mean + 1) / (effective + 2)
        error = np.sqrt(share * (1 - share) / (effective + 3))
    else:
        error = np.sqrt(count / (count - 1) * np.sum((w * (y - mean)) ** 2)) / total
    return float(np.average(x, weights=w)), mean, float(error), count


def _draw_bins(axes: Axes, table: pd.DataFrame) -> None:
    axes.plot([0, 1], [0, 1], color=_INK, lw=0.9, ls=(0, (4, 3)), label="as predicted")
    axes.errorbar(
        table["predicted"],
        table["observed"],
        yerr=2 * table["error"],
        color=ACCENT,
        marker="o",
        ms=5,
        lw=1.4,
        elinewidth=1.2,
        capsize=2.5,
        label="observed, ± 2 standard errors",
    )
    axes.set_ylim(-0.02, 1.02)
    axes.grid(visible=True)
    axes.set_ylabel("Observed")
    axes.legend(loc="upper left")
