"""Score picks in tomograms against truth: one-to-one matches, F1, F beta, localisation, kinds.

Picks are taken from the highest score down. Each claims the nearest true particle within the
distance that no better pick has claimed, so a second pick on one particle is an error.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from cryopick.checks import require_above, require_shape
from cryopick.tables.tomograms import TomogramPicks

__all__ = ["TomogramScores", "evaluate_tomogram_picks", "match_positions"]

Floats = NDArray[np.float64]
_BETA = 4.0  # of the CZII challenge: recall counts sixteen times


@dataclass(frozen=True, kw_only=True)
class TomogramScores:
    """How good picks in tomograms are; those in tomograms without truth are left out."""

    n_picks: int
    n_truth: int
    n_matched: int
    precision: float
    recall: float
    f1: float
    f4: float  # F beta with beta = 4
    best_f1: float  # the highest F1 that a threshold on the score can reach
    average_precision: float  # area under the precision-recall steps
    localisation_error: float | None  # A, mean distance of matched picks from the truth
    localisation_error_voxels: float | None  # the same in voxels of each tomogram
    bias: tuple[float, float, float] | None  # A, mean of pick less truth along x, y, z
    any_match_precision: float  # share of picks with truth within the distance, as PickET counts
    random_recall: float  # of as many picks put down at random: what recall is worth nothing
    recall_of_species: dict[str, float]  # where the truth names species
    kind_accuracy: float | None  # of matched picks, kinds paired with species to the best sum

    def to_dict(self) -> dict[str, Any]:
        """All values by name, ready for JSON."""
        return asdict(self)


def match_positions(picks: Floats, score: Floats, truth: Floats, *, radius: float) -> NDArray[Any]:
    """Match picks with true particles one to one, best score first.

    Parameters
    ----------
    picks
        (n, 3), in any unit.
    score
        (n,); higher is better.
    truth
        (m, 3).
    radius
        Largest distance of a match.

    Returns
    -------
    numpy.ndarray
        (n,) int64: place of the true particle that a pick claims, -1 where none.

    Raises
    ------
    ShapeError
        If an array has other axes.
    """
    require_shape(picks, "n 3", name="picks")
    require_shape(truth, "n 3", name="truth")
    claimed = np.full(len(picks), -1, np.int64)
    if not len(picks) or not len(truth):
        return claimed
    near = cKDTree(truth).query_ball_point(picks, radius)
    is_taken = np.zeros(len(truth), bool)
    for index in np.argsort(-score, kind="stable"):
        free = [j for j in near[index] if not is_taken[j]]
        if free:
            away = np.linalg.norm(truth[free] - picks[index], axis=1)
            claimed[index] = free[int(away.argmin())]
            is_taken[claimed[index]] = True
    return claimed


def evaluate_tomogram_picks(
    picks: TomogramPicks, truth: TomogramPicks, *, distance: float, seed: int = 0
) -> TomogramScores:
    """Score the picks of some tomograms.

    Parameters
    ----------
    picks
        Column score where there is one; without it all picks count alike. Column kind where
        picks are grouped.
    truth
        The tomograms of this table are scored, those without particles, too.
    distance
        Largest distance of a match, A.
    seed
        Of the random picks.

    Returns
    -------
    TomogramScores
        Each pick and particle counts once, whatever tomogram it is in.

    Raises
    ------
    ParameterError
        If `distance` is not above 0.
    """
    require_above(distance, 0, name="distance", unit="A")
    draw = np.random.default_rng(seed)
    parts: list[pd.DataFrame] = []
    n_near, n_random = 0, 0
    for row in truth.tomograms.itertuples():
        name = str(row.tomogram)
        known = truth.of(name).rows.reset_index(drop=True)
        found = picks.rows[picks.rows["tomogram"] == name].reset_index(drop=True)
        places, true_places = _xyz(found), _xyz(known)
        score = found["score"].to_numpy(np.float64) if "score" in found else np.ones(len(found))
        claimed = match_positions(places, score, true_places, radius=distance)
        parts.append(_judged(found, known, claimed, score, float(str(row.voxel_size))))
        extent = np.array([row.nx, row.ny, row.nz], float) * float(str(row.voxel_size))
        anywhere = draw.uniform(0, 1, (len(found), 3)) * extent
        by_chance = match_positions(anywhere, np.ones(len(found)), true_places, radius=distance)
        n_random += int(np.count_nonzero(by_chance >= 0))
        if len(places) and len(true_places):
            gaps, _ = cKDTree(true_places).query(places)
            n_near += int(np.count_nonzero(gaps <= distance))
    judged = pd.concat([p for p in parts if len(p)] or parts[:1], ignore_index=True)
    return _score(judged, truth.rows, n_near=n_near, n_random=n_random)


def _judged(
    found: pd.DataFrame, known: pd.DataFrame, claimed: NDArray[Any], score: Floats, size: float
) -> pd.DataFrame:
    """Tell for each pick of one tomogram what became of it."""
    is_right = claimed >= 0
    gap = np.full((len(found), 3), np.nan)
    gap[is_right] = _xyz(found)[is_right] - _xyz(known)[claimed[is_right]]
    rows = pd.DataFrame({"score": score, "is_right": is_right, "voxel_size": size})
    rows[["dx", "dy", "dz"]] = gap
    rows["kind"] = found["kind"].to_numpy() if "kind" in found else -1
    names = known["species"].astype(str).to_numpy() if "species" in known else np.array([])
    rows["species"] = [str(names[i]) if i >= 0 and len(names) else "" for i in claimed]
    return rows


def _score(
    judged: pd.DataFrame, known: pd.DataFrame, *, n_near: int, n_random: int
) -> TomogramScores:
    n_picks, n_truth = len(judged), len(known)
    right = judged[judged["is_right"]]
    precision, recall = len(right) / max(n_picks, 1), len(right) / max(n_truth, 1)
    gaps = right[["dx", "dy", "dz"]].to_numpy(np.float64)
    away = np.linalg.norm(gaps, axis=1)
    best_f1, area = _over_thresholds(judged, n_truth)
    mean = [float(v) for v in gaps.mean(axis=0)] if len(right) else None
    return TomogramScores(
        n_picks=n_picks,
        n_truth=n_truth,
        n_matched=len(right),
        precision=precision,
        recall=recall,
        f1=_f_score(precision, recall, 1.0),
        f4=_f_score(precision, recall, _BETA),
        best_f1=best_f1,
        average_precision=area,
        localisation_error=float(away.mean()) if len(right) else None,
        localisation_error_voxels=(
            float((away / right["voxel_size"].to_numpy()).mean()) if len(right) else None
        ),
        bias=(mean[0], mean[1], mean[2]) if mean else None,
        any_match_precision=n_near / max(n_picks, 1),
        random_recall=n_random / max(n_truth, 1),
        recall_of_species=_recall_of_species(right, known),
        kind_accuracy=_kind_accuracy(right),
    )


def _f_score(precision: float, recall: float, beta: float) -> float:
    weighted = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / weighted if weighted else 0.0


def _over_thresholds(judged: pd.DataFrame, n_truth: int) -> tuple[float, float]:
    """Best F1 and average precision over all thresholds on the score."""
    if not len(judged) or not n_truth:
        return 0.0, 0.0
    ordered = judged.sort_values("score", ascending=False, kind="stable")
    is_right = ordered["is_right"].to_numpy()
    score = ordered["score"].to_numpy()
    matched, count = np.cumsum(is_right), np.arange(1, len(ordered) + 1)
    is_cut = np.append(np.diff(score) != 0, True)  # a threshold cannot part equal scores
    f1 = np.where(is_cut, 2 * matched / (count + n_truth), 0.0)
    return float(f1.max()), float((matched / count * is_right).sum() / n_truth)


def _recall_of_species(right: pd.DataFrame, known: pd.DataFrame) -> dict[str, float]:
    if "species" not in known:
        return {}
    counts = known["species"].astype(str).value_counts().sort_index()
    return {str(n): float((right["species"] == n).sum() / c) for n, c in counts.items()}


def _kind_accuracy(right: pd.DataFrame) -> float | None:
    """Share of matched picks whose kind is the one paired with their species."""
    named = right[(right["species"] != "") & (right["kind"] >= 0)]
    if not len(named):
        return None
    table = pd.crosstab(named["kind"], named["species"]).to_numpy()
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / len(named))


def _xyz(rows: pd.DataFrame) -> Floats:
    return np.asarray(rows[["x", "y", "z"]].to_numpy(np.float64))
