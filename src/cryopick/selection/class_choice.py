"""Choose classes by their scores, or as a person says, and tell why each is kept or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import ParameterError
from cryopick.selection.select_classes_parameters import SelectClassesParameters

__all__ = [
    "ADDED",
    "BELOW",
    "BY_HAND",
    "CHOSEN",
    "EMPTY",
    "KEPT_BEFORE",
    "LEFT_BEFORE",
    "NOT_CHOSEN",
    "NOT_SCORED",
    "SCORE",
    "ClassChoice",
    "best_first",
    "choose_by_score",
    "choose_these",
    "classes_of_numbers",
]

SCORE: Final = "score"
ADDED: Final = "added to reach the number"
BELOW: Final = "below the threshold"
NOT_SCORED: Final = "not scored"
CHOSEN: Final = "chosen"
NOT_CHOSEN: Final = "not chosen"
KEPT_BEFORE: Final = "selected before, by score"
LEFT_BEFORE: Final = "left out before, by score"
EMPTY: Final = "empty"
BY_HAND: Final = frozenset({CHOSEN, NOT_CHOSEN})

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ClassChoice:
    """Which classes are kept, in the order of their numbers."""

    is_selected: Flags  # (k,)
    why: tuple[str, ...]  # (k,) one of the words above
    threshold: float | None  # on the score; None where the classes were chosen before

    @property
    def is_by_hand(self) -> bool:
        """Whether a person has chosen."""
        return any(word in BY_HAND for word in self.why)


def best_first(score: Floats, particle_count: Floats) -> NDArray[np.int64]:
    """Order classes: the best score first, of equal scores the larger class, then the lower number.

    Parameters
    ----------
    score
        (k,); classes with NaN come last.
    particle_count
        (k,); NaN where unknown, which counts as 0.
    """
    size = np.nan_to_num(particle_count, nan=0.0)
    return np.lexsort((-size, -np.nan_to_num(score, nan=-np.inf))).astype(np.int64)


def choose_by_score(
    score: Floats, particle_count: Floats, parameters: SelectClassesParameters
) -> ClassChoice:
    """Keep the classes with high scores.

    A class whose score is the threshold is kept. A class with particles but without a score is
    never kept.

    Parameters
    ----------
    score
        (k,) 0..1, NaN where there is none.
    particle_count
        (k,) particles of each class; NaN where unknown. A class is empty if it has 0, or neither
        a count nor a score.
    parameters
        The threshold, and how much there must be at least; with too little in all classes
        together, every class with a score is kept.

    Returns
    -------
    ClassChoice
        Maybe without any class.
    """
    threshold = parameters.least_score
    is_empty = _is_empty(score, particle_count)
    can_be_kept = np.isfinite(score) & ~is_empty
    if parameters.relative_threshold is not None:
        best = float(score[can_be_kept].max(initial=0.0))
        threshold = parameters.relative_threshold * best
    is_selected = can_be_kept & (score >= threshold)
    why = np.where(is_selected, SCORE, np.where(can_be_kept, BELOW, NOT_SCORED)).astype(object)
    why[is_empty] = EMPTY
    size = np.nan_to_num(particle_count, nan=0.0)
    for place in best_first(score, particle_count):
        has_classes = is_selected.sum() >= parameters.minimum_classes
        if has_classes and size[is_selected].sum() >= parameters.minimum_particles:
            break
        if can_be_kept[place] and not is_selected[place]:
            is_selected[place], why[place] = True, ADDED
    return ClassChoice(is_selected=is_selected, why=tuple(why), threshold=threshold)


def choose_these(
    chosen: Flags, score: Floats, particle_count: Floats, *, by_score: bool = False
) -> ClassChoice:
    """Keep the classes that were chosen before, less the empty ones.

    Parameters
    ----------
    chosen
        (k,).
    score, particle_count
        (k,) as for `choose_by_score`.
    by_score
        The choice was made by a score, not by a person: nobody's taste can be learned from it.
    """
    is_empty = _is_empty(score, particle_count)
    is_selected = chosen & ~is_empty
    kept, left = (KEPT_BEFORE, LEFT_BEFORE) if by_score else (CHOSEN, NOT_CHOSEN)
    why = np.where(is_selected, kept, np.where(is_empty, EMPTY, left))
    return ClassChoice(is_selected=is_selected, why=tuple(map(str, why)), threshold=None)


def classes_of_numbers(numbers: tuple[int, ...], *, n_classes: int) -> Flags:
    """Turn class numbers, from 1, into one flag for each class.

    Raises
    ------
    ParameterError
        If there is no class of that number.
    """
    beyond = [n for n in numbers if not 1 <= n <= n_classes]
    if beyond:
        raise ParameterError(
            "classes",
            must=f"be from 1 to {n_classes}, the classes of the run",
            got=beyond[0],
            remedy="Change --classes",
        )
    return np.isin(np.arange(1, n_classes + 1), numbers)


def _is_empty(score: Floats, particle_count: Floats) -> Flags:
    is_unknown = np.isnan(particle_count)
    return np.asarray(np.where(is_unknown, np.isnan(score), particle_count == 0), np.bool_)
