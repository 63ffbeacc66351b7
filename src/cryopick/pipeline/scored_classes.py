"""Scores of classes on disk, with all that they were made from: for people, and to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import TableError
from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.io.star import read_star, write_star
from cryopick.selection.class_choice import BY_HAND, ClassChoice
from cryopick.selection.class_scores import IMAGE_SIZE, ClassInputs, ClassScores
from cryopick.tables.model import require_columns

__all__ = [
    "IMAGES",
    "SCORES",
    "WEIGHTS",
    "ScoredClasses",
    "read_particle_counts",
    "read_scored_classes",
    "was_selected_by_score",
    "weights_file",
    "write_scored_classes",
]

SCORES = "class_scores.star"
IMAGES = "class_images.mrcs"
WEIGHTS = "class_scores.npz"  # that select learn writes
_FEATURE = "cryopick_"  # begins the label of a feature
_NAMES = {
    "class_number": "rlnClassNumber",
    "score": "cryopickClassScore",
    "purity": "cryopickExpectedPurity",
    "quality": "cryopickExpectedQuality",
    "particle_count": "cryopickParticleCount",
    "is_selected": "rlnSelected",
    "why": "cryopickSelectedBecause",
    "reasons": "cryopickReasons",
}


@dataclass(frozen=True, kw_only=True)
class ScoredClasses:
    """What an earlier selection knew of its classes, in the order of their numbers."""

    inputs: ClassInputs
    table: pd.DataFrame  # class_number, score, purity, quality, particle_count, why, reasons
    is_selected: NDArray[np.bool_]  # (k,)
    is_by_hand: bool  # a person has chosen


def write_scored_classes(
    folder: Path, inputs: ClassInputs, scores: ClassScores, choice: ClassChoice
) -> list[str]:
    """Write ``class_scores.star`` and ``class_images.mrcs``.

    Parameters
    ----------
    folder
        Of the job.
    inputs, scores, choice
        Of all classes, in the order of their numbers.

    Returns
    -------
    list of str
        Names of the files, in `folder`.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    features = inputs.features
    own = ("class_number", "particle_count")
    rows = pd.DataFrame(
        {
            "class_number": features["class_number"].to_numpy(np.int64),
            "score": scores.score,
            "purity": scores.purity,
            "quality": scores.quality,
            "particle_count": _counts(features["particle_count"]),
            "is_selected": choice.is_selected.astype(np.int64),
            "why": choice.why,
            "reasons": ["; ".join(f"{r.text} ({r.effect:+.2g})" for r in of_class)
                        for of_class in scores.reasons],
        }
    ).rename(columns=_NAMES)  # fmt: skip
    others = features.drop(columns=list(own)).add_prefix(_FEATURE).reset_index(drop=True)
    write_star(Path(folder) / SCORES, {"classes": pd.concat([rows, others], axis=1)})
    write_mrc(Path(folder) / IMAGES, inputs.images, pixel_size=1.0)
    return [SCORES, IMAGES]


def _counts(counts: pd.Series) -> pd.Series:
    """Whole numbers where all are known."""
    return counts if counts.isna().any() else counts.astype(np.int64)


def read_scored_classes(folder: Path) -> ScoredClasses:
    """Read what `write_scored_classes` wrote.

    Parameters
    ----------
    folder
        Of ``cryopick select classes``.

    Raises
    ------
    FormatError
        If a file is missing or broken.
    TableError
        If a column is missing, or there is not one image for each row.
    """
    path = Path(folder) / SCORES
    rows = read_star(path, text=(_NAMES["why"], _NAMES["reasons"])).get("classes", pd.DataFrame())
    labels = list(_NAMES.values())
    require_columns(rows, labels, table=str(path), remedy="Run cryopick select classes again")
    table = rows[labels].rename(columns={label: name for name, label in _NAMES.items()})
    known = [c for c in rows.columns if str(c).startswith(_FEATURE)]
    features = pd.concat(
        [
            table[["class_number", "particle_count"]],
            rows[known].rename(columns=lambda c: str(c).removeprefix(_FEATURE)),
        ],
        axis=1,
    )
    images = read_mrc(Path(folder) / IMAGES, dtype=np.float32).reshape(-1, IMAGE_SIZE, IMAGE_SIZE)
    if len(images) != len(rows):
        raise TableError(
            str(path),
            must=f"have one row for each of the {len(images)} images of {IMAGES}",
            got=f"{len(rows)} rows",
            remedy="Run cryopick select classes again",
        )
    return ScoredClasses(
        inputs=ClassInputs(features=features, images=images),
        table=table.drop(columns="is_selected"),
        is_selected=table["is_selected"].to_numpy(np.int64) > 0,
        is_by_hand=bool(table["why"].isin(BY_HAND).any()),
    )


def weights_file(path: Path | None) -> Path | None:
    """Find the weights where the folder of select learn is named instead."""
    return Path(path) / WEIGHTS if path is not None and Path(path).is_dir() else path


def read_particle_counts(folder: Path) -> NDArray[np.float64] | None:
    """Read how many particles each class had when a folder of select classes was written.

    Parameters
    ----------
    folder
        With ``class_scores.star``, if it is one of ``cryopick select classes``.

    Returns
    -------
    numpy.ndarray or None
        (k,), NaN where unknown; None without such a file.

    Raises
    ------
    FormatError
        If ``class_scores.star`` is broken.
    """
    path = Path(folder) / SCORES
    if not path.exists():
        return None
    rows = read_star(path, text=(_NAMES["why"], _NAMES["reasons"])).get("classes", pd.DataFrame())
    if _NAMES["particle_count"] not in rows:
        return None
    return pd.to_numeric(rows[_NAMES["particle_count"]], errors="coerce").to_numpy(np.float64)


def was_selected_by_score(folder: Path, is_selected: NDArray[np.bool_]) -> bool:
    """Tell whether scores have selected just these classes, and no person.

    Parameters
    ----------
    folder
        With ``class_scores.star``, if it is one of ``cryopick select classes``.
    is_selected
        (k,) in the order of the class numbers.

    Raises
    ------
    FormatError
        If ``class_scores.star`` is broken.
    """
    path = Path(folder) / SCORES
    if not path.exists():
        return False
    selected, why = _NAMES["is_selected"], _NAMES["why"]
    rows = read_star(path, text=(why, _NAMES["reasons"])).get("classes", pd.DataFrame())
    if not {selected, why} <= set(rows.columns) or rows[why].isin(BY_HAND).any():
        return False
    return np.array_equal(rows[selected].to_numpy(np.int64) > 0, is_selected)
