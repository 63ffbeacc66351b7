"""The classes of a run as a page shows them: one table, whatever has made them, without images."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.star import read_star
from cryopick.pipeline.field_table import job_kind

__all__ = ["ClassTable", "class_kind", "classes_of", "find_models", "read_class_table", "scores_of"]

_MODEL = re.compile(r"run(?:_it(\d+))?_model\.star")
_SCORES = "class_scores.star"
_COLUMNS = {
    "count": "cryopickParticleCount",
    "share": "rlnClassDistribution",
    "resolution": "rlnEstimatedResolution",
    "accuracy_rotations": "rlnAccuracyRotations",
    "accuracy_translations": "rlnAccuracyTranslationsAngst",
}
_OF_STABLE = {"stability": "cryopickReproducibility", "error": "cryopickPixelError"}
_OF_SCORES = {
    "score": "cryopickClassScore",
    "purity": "cryopickExpectedPurity",
    "quality": "cryopickExpectedQuality",
    "is_selected": "rlnSelected",
}
_TEXTS = {"why": "cryopickSelectedBecause", "reasons": "cryopickReasons"}


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """The classes of one iteration."""

    model: Path
    iteration: int
    columns: dict[str, NDArray[np.float64]]  # number and others, in the order of the numbers
    texts: dict[str, list[str]]
    images: list[tuple[Path, int]]  # stack and place from 0
    box_size: int  # px
    pixel_size: float  # A/px


def class_kind(folder: Path) -> str:
    """Tell what made classes: em, stable, stream or relion; empty for a folder without any."""
    if not find_models(folder):
        return ""
    kind = job_kind(folder).removeprefix("class2d ")
    return kind if kind in ("em", "stable", "stream") else "relion"


def find_models(folder: Path) -> dict[int, Path]:
    """Find the tables of classes of a folder, by iteration or round; 0 where there is one only."""
    found = {}
    rounds = sorted((folder / "rounds").glob("[0-9]*")) if (folder / "rounds").is_dir() else []
    for place in (folder, *rounds):
        for path in place.glob("run*_model.star"):
            match = _MODEL.fullmatch(path.name)
            if match:
                found[int(match[1] or 0)] = path
    return dict(sorted(found.items()))


def read_class_table(model: Path, *, scores: Path | None = None) -> ClassTable:
    """Read the classes of one iteration.

    Parameters
    ----------
    model
        Of `find_models`.
    scores
        Folder of ``select classes`` with scores of the same classes.

    Raises
    ------
    FormatError
        If a file is missing or broken, or holds no classes.
    """
    blocks = read_star(model)
    classes, general = blocks.get("model_classes"), blocks.get("model_general")
    if classes is None or general is None or "rlnReferenceImage" not in classes:
        raise FormatError(
            str(model), must="hold classes", got="none", remedy="Run the classification again"
        )
    n = len(classes)
    columns = {"number": np.arange(1, n + 1, dtype=np.float64)}
    for name, label in _COLUMNS.items():
        if label in classes:
            values = pd.to_numeric(classes[label], errors="coerce").to_numpy(np.float64)
            columns[name] = np.where(values > 900, np.nan, values) if "acc" in name else values
    if "count" not in columns:
        columns["count"] = _member_counts(model, n)
    _add_stability(model.with_name("class_averages.star"), columns)
    texts: dict[str, list[str]] = {}
    if scores is not None:
        _add_scores(scores, columns, texts)
    match = _MODEL.fullmatch(model.name)
    return ClassTable(
        model=model,
        iteration=int(match[1] or 0) if match else 0,
        columns=columns,
        texts=texts,
        images=[_place_of(str(name), model) for name in classes["rlnReferenceImage"]],
        box_size=int(general["rlnOriginalImageSize"].iloc[0]),
        pixel_size=float(general["rlnPixelSize"].iloc[0]),
    )


def scores_of(folder: Path, selections: dict[str, Path]) -> str | None:
    """Find the selection that has scored the classes of a folder; the last one, if there are more.

    Parameters
    ----------
    folder
        Of the classes.
    selections
        Folders of ``select classes``, by id, oldest first.
    """
    found = None
    for identity, selection in selections.items():
        if (selection / _SCORES).is_file() and classes_of(selection) == folder.name:
            found = identity
    return found


def classes_of(selection: Path) -> str:
    """Name the folder of the classes that a selection was made from; empty if nobody says."""
    try:
        inputs = json.loads((selection / "job.json").read_bytes())["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if not inputs:
        return ""
    path = Path(str(inputs[0]))
    path = path.parent if path.suffix == ".star" else path
    path = path.resolve() if path.exists() else path
    return path.parents[1].name if path.parent.name == "rounds" else path.name


def _add_scores(
    folder: Path, columns: dict[str, NDArray[np.float64]], texts: dict[str, list[str]]
) -> None:
    """Add what a selection says, where it is of as many classes."""
    rows = read_star(folder / _SCORES, text=tuple(_TEXTS.values())).get("classes")
    if rows is None or len(rows) != len(columns["number"]):
        return
    for name, label in _OF_SCORES.items():
        if label in rows:
            columns[name] = pd.to_numeric(rows[label], errors="coerce").to_numpy(np.float64)
    for name, label in _TEXTS.items():
        if label in rows:
            texts[name] = [str(t) for t in rows[label]]


def _add_stability(path: Path, columns: dict[str, NDArray[np.float64]]) -> None:
    """Add how well stable classes came out again, where the table beside them says it."""
    if not path.is_file():
        return
    for rows in read_star(path).values():
        if "rlnClassNumber" not in rows or len(rows) != len(columns["number"]):
            continue
        order = np.argsort(rows["rlnClassNumber"].to_numpy(np.int64))
        for name, label in _OF_STABLE.items():
            if label in rows:
                columns[name] = rows[label].to_numpy(np.float64)[order]


def _member_counts(model: Path, n: int) -> NDArray[np.float64]:
    data = model.with_name(model.name.replace("_model.star", "_data.star"))
    if not data.is_file():
        return np.full(n, np.nan)
    blocks = read_star(data)
    rows = next((b for b in blocks.values() if "rlnClassNumber" in b), None)
    if rows is None:
        return np.full(n, np.nan)
    numbers = rows["rlnClassNumber"].to_numpy(np.int64)
    return np.bincount(numbers, minlength=n + 1)[1 : n + 1].astype(np.float64)


def _place_of(name: str, model: Path) -> tuple[Path, int]:
    """Find the stack beside the model, so that a moved folder is read as it is."""
    index, at, path = name.rpartition("@")
    beside = model.with_name(Path(path).name)
    return beside, int(index) - 1 if at else 0
