"""Write the classes that were selected, their particles, and the scores of all classes."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.io.atomic import output_errors
from cryopick.io.mrc import write_mrc
from cryopick.io.star import write_star
from cryopick.pipeline.class2d_references import AVERAGE_TABLE, find_stacks
from cryopick.pipeline.scored_classes import IMAGES, SCORES
from cryopick.pipeline.select_classes_particles import CentredAverages
from cryopick.pipeline.select_classes_source import SAVED_SELECTION, ClassSource
from cryopick.selection.class_choice import ClassChoice, best_first
from cryopick.selection.class_scores import ClassScores
from cryopick.tables.classification import Classification
from cryopick.tables.paths import rename_for
from cryopick.tables.relion_class2d import write_classification

__all__ = [
    "AVERAGES",
    "AVERAGE_TABLE",
    "FILES",
    "GALLERY",
    "PARTICLES",
    "RESULT",
    "remove_results",
    "write_averages",
    "write_rank",
    "write_selection",
]

PARTICLES = "particles.star"
AVERAGES = "class_averages.mrcs"
GALLERY = "class_scores.png"
RESULT = "result.json"
_RANK = "rank"
_RANKED = [f"{_RANK}_{kind}.star" for kind in ("optimiser", "model", "data", "sampling")]
FILES = (  # in the order in which they are removed: what another program reads alone goes first
    PARTICLES,
    SAVED_SELECTION,
    RESULT,
    AVERAGE_TABLE,
    AVERAGES,
    *_RANKED,
    SCORES,
    IMAGES,
    GALLERY,
)
_UNSCORED = -999.0  # as RELION marks a class that it does not score
_UNKNOWN = 999.0  # an accuracy that was not estimated
_OF_CLASS = {
    "distribution": "rlnClassDistribution",
    "accuracy_rotations": "rlnAccuracyRotations",
    "accuracy_translations": "rlnAccuracyTranslationsAngst",
    "estimated_resolution": "rlnEstimatedResolution",
}


def remove_results(folder: Path) -> None:
    """Remove what an earlier selection left, so that no file of it stands beside new ones.

    Raises
    ------
    OutputError
        If a file cannot be removed.
    """
    for name in FILES:
        with output_errors(folder / name):
            (folder / name).unlink(missing_ok=True)


def write_selection(folder: Path, choice: ClassChoice) -> list[str]:
    """Write ``backup_selection.star``, which RELION's display loads.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    rows = pd.DataFrame({"rlnSelected": choice.is_selected.astype(np.int64)})
    write_star(folder / SAVED_SELECTION, {"": rows})
    return [SAVED_SELECTION]


def write_averages(
    folder: Path,
    source: ClassSource,
    scores: ClassScores,
    choice: ClassChoice,
    centred: CentredAverages | None,
) -> list[str]:
    """Write the selected averages, the best first, and a table of them.

    Parameters
    ----------
    folder
        Of the job.
    source, scores, choice
        Of all classes.
    centred
        Averages of all classes to write instead.

    Returns
    -------
    list of str
        Names of the files, in `folder`.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    order = selected_best_first(scores, choice, source)
    images = source.averages if centred is None else centred.images
    stack = folder / AVERAGES
    write_mrc(stack, images[order], pixel_size=source.pixel_size or 1.0)
    rows = pd.DataFrame(
        {
            "rlnReferenceImage": [f"{n:06d}@{stack}" for n in range(1, len(order) + 1)],
            "rlnClassNumber": order + 1,
            "rlnPredictedClassScore": np.nan_to_num(scores.score[order], nan=_UNSCORED),
        }
    )
    if source.run is not None:
        classes = source.run.classes.iloc[order]
        for name, label in _OF_CLASS.items():
            if name in classes.columns:
                values = classes[name].to_numpy(np.float64)
                is_accuracy = name.startswith("accuracy")
                rows[label] = np.nan_to_num(values, nan=_UNKNOWN) if is_accuracy else values
    write_star(folder / AVERAGE_TABLE, {"": rows})
    return [AVERAGES, AVERAGE_TABLE]


def selected_best_first(
    scores: ClassScores, choice: ClassChoice, source: ClassSource
) -> NDArray[np.int64]:
    """Places of the selected classes in order of their scores."""
    order = best_first(scores.score, source.particle_count)
    return order[choice.is_selected[order]]


def write_rank(folder: Path, run: Classification, scores: ClassScores) -> list[str]:
    """Write the run once more, with the scores: RELION's display sorts ``rank_optimiser.star``.

    Parameters
    ----------
    folder
        Of the job.
    run
        As it was read.
    scores
        Of its classes; -999 is written where there is none.

    Returns
    -------
    list of str
        Names of the files, in `folder`; without optimiser where the run has none.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    assert run.source is not None
    prefix = folder / _RANK
    target = Path(f"{prefix}_model.star")
    found = find_stacks(run.classes["image"].astype(str), run.source)
    stacks = {n: _stack_from(n, path, run.source, target) for n, path in found.items()}
    classes = run.classes.assign(
        image=run.classes["image"].map(stacks),
        rlnClassScore=np.nan_to_num(scores.score, nan=_UNSCORED),
    )
    particles = run.particles
    names = {
        n: rename_for(n, source=particles.source, target=target)
        for n in particles.rows["image"].unique()
    }
    rows = particles.rows.assign(image=particles.rows["image"].map(names))
    ranked = replace(run, classes=classes, particles=replace(particles, rows=rows))
    write_classification(prefix, ranked, command=" ".join(sys.argv))
    is_there = {"optimiser": run.optimiser is not None, "sampling": run.sampling is not None}
    kinds = ("optimiser", "model", "data", "sampling")
    return [f"{_RANK}_{kind}.star" for kind in kinds if is_there.get(kind, True)]


def _stack_from(name: str, found: Path, source: Path, target: Path) -> str:
    """Name a stack of averages so that it is found from where the program was started."""
    kept = rename_for(name, source=source, target=target)
    if Path(kept).exists() and (not found.exists() or Path(kept).samefile(found)):
        return kept
    return os.path.relpath(found) if found.exists() else name
