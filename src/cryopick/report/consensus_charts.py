"""Charts on several pickers: how they agree, and what precision and recall their consensus has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryopick.checks import require_shape
from cryopick.errors import ShapeError
from cryopick.report.figures import ACCENT, HALF, STYLE

__all__ = ["draw_picker_agreement", "estimated_curve", "plot_estimated_curve"]

_INK, _WARM = "#3a3f45", "#c8553d"
_PALE = LinearSegmentedColormap.from_list("pale accent", ["#ffffff", ACCENT])
_LONGEST = 18  # letters of a picker's name
_MOST_POINTS = 400  # of a curve: the page does not grow with the data set

Floats = NDArray[np.float64]


def draw_picker_agreement(names: Sequence[str], shared: NDArray[np.integer]) -> Figure:
    """Draw, for each two pickers, the share of what either has that both have.

    Parameters
    ----------
    names
        (k,) of the pickers.
    shared
        (k, k) candidates that two pickers have; on the diagonal, those of one.

    Raises
    ------
    ShapeError
        If the matrix does not fit the names.
    """
    count = len(names)
    require_shape(shared, f"{count} {count}", name="shared")
    own = np.diag(shared)
    either = own[:, None] + own - shared
    share = np.divide(shared, either, out=np.zeros(shared.shape), where=either > 0)
    short = [n if len(n) <= _LONGEST else f"…{n[1 - _LONGEST :]}" for n in names]
    with rc_context(STYLE):
        figure = Figure(figsize=(HALF / 96, 360 / 96), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(share, cmap=_PALE, vmin=0, vmax=1)
        for row in range(count):
            for column in range(count):
                value = float(share[row, column])
                text = f"{own[row]:,}" if row == column else f"{100 * value:.0f} %"
                colour = "white" if value > 0.6 else _INK
                axes.text(column, row, text, ha="center", va="center", size=8, color=colour)
        axes.set_xticks(range(count), short, rotation=30, ha="right")
        axes.set_yticks(range(count), short)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def estimated_curve(probability: Floats, *, n_unseen: float) -> tuple[Floats, Floats, Floats]:
    """Find the precision and recall to be expected at each threshold.

    Parameters
    ----------
    probability
        (n,) that each candidate is a particle, calibrated.
    n_unseen
        Particles that are no candidates.

    Returns
    -------
    tuple of numpy.ndarray
        Thresholds (n,), descending; and precision and recall of what lies at or above each: the
        mean of the probabilities there, and their sum over that of all particles.

    Raises
    ------
    ShapeError
        If a probability is not finite.

    Examples
    --------
    >>> threshold, precision, recall = estimated_curve(np.array([0.5, 1.0]), n_unseen=0.5)
    >>> precision.tolist(), recall.tolist()
    ([1.0, 0.75], [0.5, 0.75])
    """
    if not np.isfinite(probability).all():
        raise ShapeError(
            "probability", must="be finite", got="NaN or infinity", remedy="Leave such rows out"
        )
    threshold = np.sort(np.asarray(probability, np.float64))[::-1]
    hits = np.cumsum(threshold)
    total = (hits[-1] if len(hits) else 0.0) + max(n_unseen, 0.0)
    precision = hits / np.arange(1, len(hits) + 1)
    recall = hits / max(float(total), 1e-9)
    return threshold, precision, recall


def plot_estimated_curve(probability: Floats, *, n_unseen: float, least: float) -> Figure:
    """Plot the precision and recall to be expected over all thresholds.

    Parameters
    ----------
    probability, n_unseen
        As `estimated_curve` takes them.
    least
        Threshold that was used.
    """
    threshold, precision, recall = estimated_curve(probability, n_unseen=n_unseen)
    with rc_context(STYLE):
        figure = Figure(figsize=(HALF / 96, 360 / 96), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=True)
        if len(threshold):
            shown = np.unique(np.linspace(0, len(threshold) - 1, _MOST_POINTS).astype(int))
            axes.plot(threshold[shown], precision[shown], color=ACCENT, lw=1.8, label="precision")
            axes.plot(threshold[shown], recall[shown], color=_WARM, lw=1.8, label="recall")
        axes.axvline(max(least, 0.0), color=_INK, lw=1.2, ls=":", label=f"threshold {least:g}")
        axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="Expected", xlabel="Least probability")
        axes.legend(loc="lower center")
    return figure
