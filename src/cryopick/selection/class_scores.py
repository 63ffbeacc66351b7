"""What is said about the classes of one 2D classification: scores, and what speaks for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["IMAGE_SIZE", "ClassInputs", "ClassScores", "Reason"]

IMAGE_SIZE = 64  # px, side of the images that are scored

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ClassInputs:
    """What a score is made from, one row for each class of a run, in the order of the numbers."""

    features: pd.DataFrame  # class_number, particle_count, then `FEATURES`; NaN where unknown
    images: NDArray[np.float32]  # (k, IMAGE_SIZE, IMAGE_SIZE); 0 for an empty class


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One thing that is known of a class, and what knowing it did to its score."""

    group: str  # of features: resolution, background, look ...
    effect: float  # score less the score without that knowledge
    text: str  # what was found, in a few words with its value


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of the classes of one run; NaN, and no reasons, for classes that are empty."""

    score: Floats  # (k,) 0 (rubbish) to 1 (gorgeous)
    purity: Floats  # (k,) 0..1: expected from the share of particles among the members
    quality: Floats  # (k,) 0..1: expected from how alike the members' views are
    reasons: tuple[tuple[Reason, ...], ...]  # (k), the strongest first
