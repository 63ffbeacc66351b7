"""What `select classes` says beside its result, where the result deserves a second look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.pipeline.select_classes_source import ClassSource, SavedSelection
from cryopick.selection.class_choice import EMPTY, ClassChoice
from cryopick.selection.class_scores import ClassScores
from cryopick.selection.select_classes_parameters import SelectClassesParameters

__all__ = ["hint_of_particles", "warnings_of"]

_NEAR = 0.1  # of the threshold: such a score could as well be on the other side
_MANY_NEAR = 1 / 3  # of the classes
_FEW = 10  # particles: their average says little
_SAME = 1e-3  # of a mask: tables round
_NAMED = 10  # classes in one sentence
_GOOD = 0.5  # score
_MANY = 2000  # images: no classification has so many classes


def warnings_of(
    source: ClassSource,
    scores: ClassScores,
    choice: ClassChoice,
    parameters: SelectClassesParameters,
    chosen: SavedSelection | None,
    selection: Path | None,
) -> list[str]:
    """Say what makes scores or a choice doubtful.

    Parameters
    ----------
    source, scores, choice
        Of all classes.
    parameters
        What was asked for.
    chosen
        What was chosen before; None if scores have decided.
    selection
        The file or folder that it comes from, if from one.

    Returns
    -------
    list of str
        Sentences; none where nothing is doubtful.
    """
    found = [
        *_of_inputs(source, chosen, selection),
        _near(scores.score, choice),
        _empty(choice, chosen),
        _few(choice, source.particle_count),
        _missing(choice, source.particle_count, parameters),
    ]
    if hint := hint_of_particles(source, scores):
        what = "No score reaches 0.5."
        if len(source.averages) > _MANY:
            what = f"{source.path} holds {len(source.averages):,} images."
        found.append(f"{what} {hint}")
    return [sentence for sentence in found if sentence]


def hint_of_particles(source: ClassSource, scores: ClassScores) -> str:
    """Say that a stack of very many images, or of none that is good, may hold particles."""
    known = scores.score[np.isfinite(scores.score)]
    is_doubtful = len(source.averages) > _MANY or (len(known) and known.max() < _GOOD)
    if source.run is not None or not is_doubtful:
        return ""
    return "If these are particles, classify them first."


def _of_inputs(
    source: ClassSource, chosen: SavedSelection | None, selection: Path | None
) -> list[str]:
    run, found = source.run, []
    if run is not None and run.optimiser is not None and not run.optimiser.corrects_ctf:
        found.append(
            "The run did not correct for the CTF; the score has learned mostly from averages "
            "that were corrected, so look at the gallery."
        )
    of_run, taken = source.mask_of_run, source.mask_diameter
    if of_run and taken and abs(taken - of_run) > _SAME * of_run:
        found.append(
            f"The mask is {taken:.4g} A wide, as given, instead of {of_run:.4g} A of the run."
        )
    if selection is not None and chosen is not None and not chosen.is_checked:
        found.append(
            f"It could not be checked that {selection} was made for {source.path}; look at the "
            "gallery."
        )
    return found


def _near(score: NDArray[np.float64], choice: ClassChoice) -> str:
    known = np.isfinite(score)
    if choice.threshold is None or known.sum() <= 2:
        return ""
    near = int((np.abs(score[known] - choice.threshold) < _NEAR).sum())
    if near <= _MANY_NEAR * known.sum():
        return ""
    return (
        f"{near} of {known.sum()} scores are within {_NEAR:g} of the threshold; look at the "
        "gallery."
    )


def _empty(choice: ClassChoice, chosen: SavedSelection | None) -> str:
    """Name the empty classes that somebody has chosen."""
    if chosen is None:
        return ""
    empty = chosen.is_selected & np.array([word == EMPTY for word in choice.why])
    is_one = empty.sum() == 1
    words = "is empty and is left out" if is_one else "are empty and are left out"
    return f"{_classes(empty)} {words}." if empty.any() else ""


def _few(choice: ClassChoice, counts: NDArray[np.float64]) -> str:
    few = choice.is_selected & (counts < _FEW)
    if not few.any():
        return ""
    return (
        f"{_classes(few)} {'is' if few.sum() == 1 else 'are'} kept with fewer than {_FEW} "
        "particles; an average of so few says little."
    )


def _classes(flags: NDArray[np.bool_]) -> str:
    """Name classes by their numbers, from 1: "Classes 4 and 9"."""
    numbers = [str(k + 1) for k in np.flatnonzero(flags)]
    if len(numbers) == 1:
        return f"Class {numbers[0]}"
    if len(numbers) > _NAMED:
        numbers = [*numbers[:_NAMED], f"{len(numbers) - _NAMED} more"]
    return f"Classes {', '.join(numbers[:-1])} and {numbers[-1]}"


def _missing(
    choice: ClassChoice, counts: NDArray[np.float64], parameters: SelectClassesParameters
) -> str:
    """Say that there are fewer classes or particles than were asked for."""
    kept = int(choice.is_selected.sum())
    particles = int(np.nan_to_num(counts[choice.is_selected]).sum())
    if kept < parameters.minimum_classes:
        return f"Only {kept} classes have a score, not {parameters.minimum_classes}: all are kept."
    if particles < parameters.minimum_particles:
        return (
            f"Only {particles:,} particles are in classes with a score, not "
            f"{parameters.minimum_particles:,}: all are kept."
        )
    return ""
