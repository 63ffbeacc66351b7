"""Score picks against truth: one-to-one matches, average precision, F1 and centring error.

Peaks are taken from the highest score down. Each claims the nearest true particle within the
tolerance that no better peak has claimed; whatever claims none is a false positive, so a second
pick on one particle counts as an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryopick.checks import require_above, require_shape
from cryopick.tables.model import require_columns

__all__ = ["Evaluation", "PickScores", "evaluate_picks", "match_picks"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PickScores:
    """How good a set of scored picks is."""

    n_picks: int
    n_truth: int
    n_matched: int
    precision: float  # matched share of the picks; 0 where there are none
    recall: float  # matched share of the truth; 0 where there is none
    f1: float  # harmonic mean of the two, over all picks given
    best_f1: float  # the highest F1 that a threshold on the score can reach
    best_threshold: float | None  # keep picks with at least this score to reach it
    average_precision: float  # area under the precision-recall steps
    centring_error: float | None  # A, mean distance of the matched picks from the truth

    def to_dict(self) -> dict[str, float | int | None]:
        """All values by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of a data set, of each micrograph, and the precision-recall curve."""

    total: PickScores
    micrographs: dict[str, PickScores]
    curve: pd.DataFrame  # threshold, precision, recall; one row per pick, best score first


def match_picks(picks_xy: Floats, fom: Floats, truth_xy: Floats, *, radius: float) -> Floats:
    """Match picks with true particles one to one, best score first.

    Parameters
    ----------
    picks_xy
        (n, 2) px, x and y.
    fom
        (n,) score; higher is better.
    truth_xy
        (m, 2) px, x and y.
    radius
        Largest distance of a match, px.

    Returns
    -------
    numpy.ndarray
        (n,) float64, distance to the particle that the pick matched, px; NaN where none.

    Raises
    ------
    ShapeError
        If an array has other axes.
    """
    require_shape(picks_xy, "n 2", name="picks_xy")
    require_shape(truth_xy, "n 2", name="truth_xy")
    distances = np.full(len(picks_xy), np.nan)
    if not len(picks_xy) or not len(truth_xy):
        return distances
    near = cKDTree(truth_xy).query_ball_point(picks_xy, radius)
    is_taken = np.zeros(len(truth_xy), bool)
    for index in np.argsort(-fom, kind="stable"):
        free = [j for j in near[index] if not is_taken[j]]
        if not free:
            continue
        away = np.hypot(*(truth_xy[free] - picks_xy[index]).T)
        is_taken[free[int(away.argmin())]] = True
        distances[index] = away.min()
    return distances


def evaluate_picks(
    picks: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    pixel_sizes: Mapping[str, float],
    diameter: float,
    tolerance: float = 0.3,
) -> Evaluation:
    """Score the picks of a data set against its true positions.

    Parameters
    ----------
    picks
        Columns micrograph, x, y (px) and, where there is one, fom; without it all picks
        count alike.
    truth
        Columns micrograph, x, y (px).
    pixel_sizes
        A/px of each micrograph to score; picks and truth of any other are left out. A
        micrograph without truth is scored: its picks are false positives.
    diameter
        Of the particle, A.
    tolerance
        Largest distance of a match, as a part of the diameter.

    Returns
    -------
    Evaluation
        The totals count each pick once; they are not averages over micrographs.

    Raises
    ------
    TableError
        If a table lacks a column.
    ParameterError
        If `diameter` or `tolerance` is not above 0.
    """
    require_columns(picks, ("micrograph", "x", "y"), table="picks")
    require_columns(truth, ("micrograph", "x", "y"), table="truth")
    require_above(diameter, 0, name="diameter", unit="A")
    require_above(tolerance, 0, name="tolerance")
    true_of = {str(n): _xy(g) for n, g in truth.groupby("micrograph", sort=False)}
    picks_of = {str(n): g for n, g in picks.groupby("micrograph", sort=False)}
    empty = picks.iloc[:0]
    foms: list[Floats] = []
    errors: list[Floats] = []
    micrographs: dict[str, PickScores] = {}
    n_truth = 0
    for name, pixel_size in pixel_sizes.items():
        rows = picks_of.get(name, empty)
        true_xy = true_of.get(name, np.zeros((0, 2)))
        fom = rows["fom"].to_numpy(np.float64) if "fom" in rows else np.ones(len(rows))
        radius = tolerance * diameter / pixel_size
        error = match_picks(_xy(rows), fom, true_xy, radius=radius) * pixel_size
        micrographs[name] = _score(fom, error, len(true_xy))[0]
        foms.append(fom)
        errors.append(error)
        n_truth += len(true_xy)
    total, curve = _score(_joined(foms), _joined(errors), n_truth)
    return Evaluation(total=total, micrographs=micrographs, curve=curve)


def _xy(rows: pd.DataFrame) -> Floats:
    return rows[["x", "y"]].to_numpy(np.float64)


def _joined(parts: list[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.zeros(0)


def _score(fom: Floats, errors: Floats, n_truth: int) -> tuple[PickScores, pd.DataFrame]:
    """Score one list of picks; `errors` is NaN where a pick matched nothing."""
    order = np.argsort(-fom, kind="stable")
    is_match = np.isfinite(errors[order])
    matched = np.cumsum(is_match)
    precision = matched / np.arange(1, len(fom) + 1)
    recall = matched / max(n_truth, 1)
    f1 = 2 * matched / (np.arange(1, len(fom) + 1) + n_truth)
    curve = pd.DataFrame({"threshold": fom[order], "precision": precision, "recall": recall})
    # A threshold cannot part equal scores, so F1 counts only where the score changes.
    is_cut = np.append(np.diff(fom[order]) != 0, True)[: len(fom)]
    best = int(np.where(is_cut, f1, -1).argmax()) if len(fom) else -1
    n_matched = int(is_match.sum())
    scores = PickScores(
        n_picks=len(fom),
        n_truth=n_truth,
        n_matched=n_matched,
        precision=float(precision[-1]) if len(fom) else 0.0,
        recall=float(recall[-1]) if len(fom) else 0.0,
        f1=float(f1[-1]) if len(fom) else 0.0,
        best_f1=float(f1[best]) if len(fom) else 0.0,
        best_threshold=_finite(fom[order][best]) if len(fom) else None,
        average_precision=float((precision * is_match).sum() / max(n_truth, 1)),
        centring_error=float(np.nanmean(errors)) if n_matched else None,
    )
    return scores, curve


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
