"""Score a 2D classification of simulated particles whose views, species and junk are known.

Nothing depends on the order of the classes, on the turn of an average or on the symmetry of the
particle: members of a class are compared with each other (`cryopick.class2d.coherence`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from cryopick.checks import require_above, require_shape
from cryopick.class2d.coherence import Poses, band_pass, coherence_of_class, random_coherence
from cryopick.class2d.ring_correlation import ring_resolution
from cryopick.class2d.truth import ClassTruth, find_rare_groups, view_spread
from cryopick.errors import ParameterError, TableError
from cryopick.tables.model import require_columns

__all__ = ["ClassEvaluation", "ClassScores", "evaluate_classes", "junk_separation"]

_ABOVE_CHANCE = 3.0  # standard errors
_COLUMNS = (
    "class_number",
    "n_members",
    "n_true",
    "junk_share",
    "species",
    "species_share",
    "coherence",
    "chance",
    "chance_limit",
    "view_spread",
    "is_view",
    "resolution",
)
_MIRROR = "cryopickIsMirrored"

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """How good a classification is."""

    n_particles: int  # rows of the table, junk included
    n_truth: int  # images of the stack, junk included
    coherence: float | None  # mean of the accepted true particles; None where there are none
    coherence_all: float  # mean of all true particles of the stack; those not accepted count 0
    chance: float | None  # what `coherence` would be with members and angles drawn at random
    accounted: float  # share of the true particles of the stack that sit in a class
    junk_auc: float | None  # chance that junk sits in a class of more junk than a true particle
    species_purity: float  # share of true particles that are of their class's main species
    n_classes: int  # asked for, or the highest class number
    n_occupied: int  # with a member
    n_view_classes: int  # with enough true members, junk below a half, coherence above chance
    n_junk_classes: int  # with at least as much junk as true members
    occupied_by_views: float  # n_view_classes / n_classes
    median_size: float  # members of an occupied class, junk included
    rare_recall: float | None  # of the rare group that was found best; None without such a group
    resolution: float | None  # A, median over the view classes; None where no averages were given

    def to_dict(self) -> dict[str, float | int | None]:
        """All values by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ClassEvaluation:
    """Scores of a classification, of each class and of each rare group."""

    total: ClassScores
    classes: pd.DataFrame  # one row for each occupied class, see `evaluate_classes`
    rare_groups: pd.DataFrame  # group, n_true, share, recall
    coherence: Floats  # (rows,) of each particle; 0 for junk, NaN where not accepted


def evaluate_classes(
    assignments: pd.DataFrame,
    truth: ClassTruth,
    *,
    n_classes: int | None = None,
    min_size: int = 5,
    averages: Tensor | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> ClassEvaluation:
    """Score which particles were put together, and how well they were aligned.

    Parameters
    ----------
    assignments
        One row for each particle: image_index (from 0, its place in `truth`), class_number
        (0 or less: not accepted), psi (deg), shift_x and shift_y (A), and cryopickIsMirrored
        where classes have mirrors. Images of `truth` that are not named are not accepted either.
    truth
        What is known of the images.
    n_classes
        Classes asked for; the highest class number if not given.
    min_size
        True members that a class needs to count as one of views.
    averages
        (classes, y, x) class averages, white particles, in the box of ``truth.clean``; the
        first is class 1.
    batch_size
        Projections held at once; by default as many as fit in about 0.2 GB.
    seed
        Of the random classes that tell what chance is.

    Returns
    -------
    ClassEvaluation
        ``classes`` has the columns class_number, n_members, n_true, junk_share, species (the
        main one) and species_share (among true members), coherence, chance (mean of random
        classes of that size), chance_limit (3 standard errors above it), view_spread (deg,
        see `view_spread`; NaN without rotations), is_view, and resolution (A, see
        `ring_resolution`; NaN without averages).

    Raises
    ------
    TableError
        If a column is missing, or an image is not in `truth` or named twice.
    ParameterError
        If `n_classes` is below the highest class number or `min_size` below 2.
    ShapeError
        If averages have another box.
    """
    _check(assignments, truth, averages, min_size)
    index = assignments["image_index"].to_numpy(np.int64)
    number = np.maximum(assignments["class_number"].to_numpy(np.int64), 0)
    count = _number_of_classes(number, n_classes)
    poses = Poses(
        psi=assignments["psi"].to_numpy(np.float64),
        shift_x=assignments["shift_x"].to_numpy(np.float64) / truth.pixel_size,
        shift_y=assignments["shift_y"].to_numpy(np.float64) / truth.pixel_size,
        mirror=assignments[_MIRROR].to_numpy() > 0 if _MIRROR in assignments else None,
    )
    accepted = number > 0
    is_true = ~truth.is_junk[index]
    coherence = np.where(accepted, 0.0, np.nan)
    rows = []
    for one in np.unique(number[accepted]).tolist():
        members = np.flatnonzero(number == one)
        true = members[is_true[members]]
        row = _describe(truth, one, index[members], index[true])
        found = coherence_of_class(
            truth.clean, index[true], poses.take(true), batch_size=batch_size
        )
        coherence[true] = found.members.cpu().numpy()
        row["coherence"] = float(coherence[true].mean()) if len(true) else math.nan
        if averages is not None and one <= len(averages) and len(true):
            average = band_pass(averages[one - 1].to(found.mean))
            row["resolution"] = ring_resolution(average, found.mean, pixel_size=truth.pixel_size)
        rows.append(row)
    pool = np.flatnonzero(is_true & accepted)
    sizes = [int(row["n_true"]) for row in rows]
    chance = random_coherence(truth.clean, index[pool], poses.take(pool), sizes, seed=seed)
    table = _table(rows, chance, min_size)
    rare = find_rare_groups(truth, index, number, min_size=min_size)
    total = _total(truth, index, number, coherence, table, rare, count)
    return ClassEvaluation(total=total, classes=table, rare_groups=rare, coherence=coherence)


def junk_separation(is_junk: Bools, number: Integers) -> float | None:
    """Tell how well the junk in a particle's class tells junk from particles.

    Parameters
    ----------
    is_junk
        (n,) what the particles are.
    number
        (n,) class of each.

    Returns
    -------
    float or None
        Area under the ROC curve of the score "share of junk in my class"; a tie counts a half.
        None where there is no junk or nothing else.
    """
    n_junk, n_true = int(is_junk.sum()), int((~is_junk).sum())
    if not n_junk or not n_true:
        return None
    _, place = np.unique(number, return_inverse=True)
    share = (np.bincount(place, is_junk) / np.bincount(place))[place]
    wins = rankdata(share)[is_junk].sum() - n_junk * (n_junk + 1) / 2
    return float(wins / (n_junk * n_true))


def _check(
    assignments: pd.DataFrame, truth: ClassTruth, averages: Tensor | None, min_size: int
) -> None:
    names = ("image_index", "class_number", "psi", "shift_x", "shift_y")
    require_columns(assignments, names, table="particles")
    require_above(min_size, 1, name="min_size")
    poses = assignments[["psi", "shift_x", "shift_y"]].to_numpy(np.float64)
    is_odd = ~np.isfinite(poses).all(1)
    if is_odd.any():
        raise TableError(
            "psi, shift_x and shift_y of particles",
            must="be finite",
            got=f"{poses[is_odd.argmax()].tolist()} in row {int(is_odd.argmax()) + 1}",
            remedy="Mend the row or leave it out",
        )
    index = assignments["image_index"].to_numpy(np.int64)
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(truth.clean):
        odd = int(index.max()) if index.min() >= 0 else int(index.min())
        raise TableError(
            "images of particles",
            must=f"be among the {len(truth.clean)} of the truth",
            got=f"image {odd + 1}",
            remedy="Give the truth of the same stack",
        )
    counts = np.bincount(index, minlength=1)
    if counts.max() > 1:
        raise TableError(
            "images of particles",
            must="be named once",
            got=f"image {int(counts.argmax()) + 1} {int(counts.max())} times",
            remedy="Score particles of one stack, each in one class",
        )
    if averages is not None:
        size = truth.clean.shape[-1]
        require_shape(averages, f"classes {size} {size}", name="averages")


def _number_of_classes(number: Integers, n_classes: int | None) -> int:
    highest = int(number.max(initial=0))
    if n_classes is not None and n_classes < highest:
        raise ParameterError(
            "classes",
            must=f"be at least the highest class number ({highest})",
            got=n_classes,
            remedy="Leave it out, or give the number of classes asked for",
        )
    return highest if n_classes is None else n_classes


def _describe(
    truth: ClassTruth, class_number: int, members: Integers, true: Integers
) -> dict[str, Any]:
    """Say what a class holds: its images `members`, of which `true` are particles."""
    row: dict[str, Any] = {
        "class_number": class_number,
        "n_members": len(members),
        "n_true": len(true),
        "junk_share": 1 - len(true) / len(members),
        "species": "",
        "species_share": math.nan,
        "view_spread": math.nan,
        "resolution": math.nan,
    }
    if len(true):
        counts = np.bincount(truth.label[true])
        row["species"] = truth.name_of(int(counts.argmax()))
        row["species_share"] = float(counts.max() / len(true))
        main = true[truth.label[true] == counts.argmax()]
        if truth.rotations is not None:
            row["view_spread"] = view_spread(truth.rotations[main], truth.symmetry)
    return row


def _table(
    rows: Sequence[dict[str, Any]], chance: dict[int, tuple[float, float]], min_size: int
) -> pd.DataFrame:
    for row in rows:
        level, error = chance[row["n_true"]]
        row["chance"], row["chance_limit"] = level, level + _ABOVE_CHANCE * error
        row["is_view"] = bool(
            row["n_true"] >= min_size
            and row["junk_share"] < 0.5
            and row["coherence"] > row["chance_limit"]
        )
    return pd.DataFrame(list(rows), columns=list(_COLUMNS))


def _total(
    truth: ClassTruth,
    index: Integers,
    number: Integers,
    coherence: Floats,
    table: pd.DataFrame,
    rare: pd.DataFrame,
    n_classes: int,
) -> ClassScores:
    is_true = ~truth.is_junk[index]
    accepted = is_true & (number > 0)
    n_true = max(1, int((~truth.is_junk).sum()))
    main = pd.crosstab(number[is_true], truth.label[index[is_true]]).to_numpy()
    views = table[table["is_view"].astype(bool)]
    n_view = len(views)
    weights = table["n_true"].to_numpy(np.float64)
    return ClassScores(
        n_particles=len(index),
        n_truth=len(truth.label),
        coherence=float(coherence[accepted].mean()) if accepted.any() else None,
        coherence_all=float(coherence[accepted].sum() / n_true),
        chance=float(np.average(table["chance"], weights=weights)) if weights.any() else None,
        accounted=float(accepted.sum() / n_true),
        junk_auc=junk_separation(truth.is_junk[index], number),
        species_purity=float(main.max(1).sum() / is_true.sum()) if is_true.any() else 0.0,
        n_classes=n_classes,
        n_occupied=len(table),
        n_view_classes=n_view,
        n_junk_classes=int((table["junk_share"] >= 0.5).sum()),
        occupied_by_views=n_view / n_classes if n_classes else 0.0,
        median_size=float(table["n_members"].median()) if len(table) else 0.0,
        rare_recall=float(rare["recall"].max()) if len(rare) else None,
        resolution=_median(views["resolution"].to_numpy(np.float64)),
    )


def _median(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None
