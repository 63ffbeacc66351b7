"""Score picks against truth: one-to-one matches, average precision, F1 and centring error.

Peaks are taken from the highest score down. Each claims the nearest true particle within the
tolerance that no better peak has claimed; whatever claims none is a false positive, so a second
pick on one particle counts as an error. Only a peak that claims none and lies on a particle which
a picker may or may not find, as one on carbon, is neither right nor wrong.
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

__all__ = [
    "Evaluation",
    "PickScores",
    "average_precision",
    "evaluate_picks",
    "is_near",
    "match_picks",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_IGNORED_RADIUS = 0.5  # of the diameter: the pick lies on the ignored particle


@dataclass(frozen=True, kw_only=True)
class PickScores:
    """How good a set of scored picks is."""

    n_picks: int  # all that were given
    n_truth: int
    n_matched: int
    n_ignored: int  # picks left out of all that follows: they lie on ignored particles only
    precision: float  # matched share of the other picks; 0 where there are none
    recall: float  # matched share of the truth; 0 where there is none
    f1: float  # harmonic mean of the two
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
    curve: pd.DataFrame  # of the picks that count, best first: threshold (the score of the pick),
    # precision and recall down to it, is_right, and micrograph, its place in `micrographs`


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
    ignored: pd.DataFrame | None = None,
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
    ignored
        Columns micrograph, x, y (px) of particles that need not be found. A pick that claims
        no true particle and lies within half a diameter of one of them counts neither as right
        nor as wrong; any number of picks may lie on one.

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
    if ignored is None:
        ignored = truth.iloc[:0]
    require_columns(ignored, ("micrograph", "x", "y"), table="ignored")
    require_above(diameter, 0, name="diameter", unit="A")
    require_above(tolerance, 0, name="tolerance")
    true_of, ignored_of = _positions(truth), _positions(ignored)
    picks_of = {str(n): g for n, g in picks.groupby("micrograph", sort=False)}
    nothing, empty = np.zeros((0, 2)), picks.iloc[:0]
    parts: list[_Outcome] = []
    for place, (name, pixel_size) in enumerate(pixel_sizes.items()):
        rows = picks_of.get(name, empty)
        parts.append(
            _judge(
                _xy(rows),
                rows["fom"].to_numpy(np.float64) if "fom" in rows else np.ones(len(rows)),
                true_of.get(name, nothing),
                ignored_of.get(name, nothing),
                pixel_size=pixel_size,
                diameter=diameter,
                tolerance=tolerance,
                place=place,
            )
        )
    total, curve = _score(
        _Outcome(
            fom=_joined([p.fom for p in parts]),
            errors=_joined([p.errors for p in parts]),
            places=np.repeat(np.arange(len(parts)), [len(p.fom) for p in parts]),
            n_truth=sum(p.n_truth for p in parts),
            n_ignored=sum(p.n_ignored for p in parts),
        )
    )
    scores = {n: _score(part)[0] for n, part in zip(pixel_sizes, parts, strict=True)}
    return Evaluation(total=total, micrographs=scores, curve=curve)


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What became of a list of picks; those ignored are counted only."""

    fom: Floats  # (n,)
    errors: Floats  # (n,) A, NaN where a pick matched nothing
    places: NDArray[np.int64]  # (n,) place of the micrograph among all
    n_truth: int
    n_ignored: int


def _judge(
    picks_xy: Floats,
    fom: Floats,
    truth_xy: Floats,
    ignored_xy: Floats,
    *,
    pixel_size: float,
    diameter: float,
    tolerance: float,
    place: int,
) -> _Outcome:
    """Match the picks of one micrograph and set apart those that need not be judged."""
    radius = tolerance * diameter / pixel_size
    errors = match_picks(picks_xy, fom, truth_xy, radius=radius) * pixel_size
    is_ignored = np.isnan(errors)
    is_ignored &= is_near(picks_xy, ignored_xy, radius=_IGNORED_RADIUS * diameter / pixel_size)
    return _Outcome(
        fom=fom[~is_ignored],
        errors=errors[~is_ignored],
        places=np.full(int((~is_ignored).sum()), place),
        n_truth=len(truth_xy),
        n_ignored=int(is_ignored.sum()),
    )


def is_near(xy: Floats, others_xy: Floats, *, radius: float) -> Bools:
    """Tell for each position (n, 2) whether any of the others (m, 2) lies within `radius`, px."""
    if not len(xy) or not len(others_xy):
        return np.zeros(len(xy), bool)
    distances, _ = cKDTree(others_xy).query(xy)
    return np.asarray(distances <= radius)


def average_precision(is_match: Bools, *, n_truth: int) -> float:
    """Area under the steps of precision over recall.

    Parameters
    ----------
    is_match
        (n,) whether each pick is right, best score first.
    n_truth
        Particles there are; those never found count 0.
    """
    precision = np.cumsum(is_match) / np.arange(1, len(is_match) + 1)
    return float((precision * is_match).sum() / max(n_truth, 1))


def _positions(rows: pd.DataFrame) -> dict[str, Floats]:
    return {str(n): _xy(g) for n, g in rows.groupby("micrograph", sort=False)}


def _xy(rows: pd.DataFrame) -> Floats:
    return rows[["x", "y"]].to_numpy(np.float64)


def _joined(parts: list[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.zeros(0)


def _score(outcome: _Outcome) -> tuple[PickScores, pd.DataFrame]:
    """Score one list of picks."""
    fom, errors, n_truth = outcome.fom, outcome.errors, outcome.n_truth
    order = np.argsort(-fom, kind="stable")
    is_match = np.isfinite(errors[order])
    matched = np.cumsum(is_match)
    precision = matched / np.arange(1, len(fom) + 1)
    recall = matched / max(n_truth, 1)
    f1 = 2 * matched / (np.arange(1, len(fom) + 1) + n_truth)
    curve = pd.DataFrame(
        {
            "threshold": fom[order],
            "precision": precision,
            "recall": recall,
            "is_right": is_match,
            "micrograph": outcome.places[order],
        }
    )
    # A threshold cannot part equal scores, so F1 counts only where the score changes.
    is_cut = np.append(np.diff(fom[order]) != 0, True)[: len(fom)]
    best = int(np.where(is_cut, f1, -1).argmax()) if len(fom) else -1
    n_matched = int(is_match.sum())
    scores = PickScores(
        n_picks=len(fom) + outcome.n_ignored,
        n_truth=n_truth,
        n_matched=n_matched,
        n_ignored=outcome.n_ignored,
        precision=float(precision[-1]) if len(fom) else 0.0,
        recall=float(recall[-1]) if len(fom) else 0.0,
        f1=float(f1[-1]) if len(fom) else 0.0,
        best_f1=float(f1[best]) if len(fom) else 0.0,
        best_threshold=_finite(fom[order][best]) if len(fom) else None,
        average_precision=average_precision(is_match, n_truth=n_truth),
        centring_error=float(np.nanmean(errors)) if n_matched else None,
    )
    return scores, curve


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
