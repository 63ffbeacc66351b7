"""Say in a few words what was found of a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import pandas as pd

__all__ = ["describe"]

_Row = pd.Series


def describe(group: str, row: pd.Series) -> str:
    """Say what was found in one group of measures.

    Parameters
    ----------
    group
        A name of `cryopick.selection.class_features.GROUPS`, ``look`` or ``taste``.
    row
        A row of `ClassInputs.features`.
    """
    return _WORDS[group](row)


def _resolution(row: _Row) -> str:
    if np.isfinite(row["resolution"]):
        return f"resolution {row['resolution']:.0f} Å"
    return "information in the average"


def _halves(row: _Row) -> str:
    return f"halves correlate {row['frc_mean']:.2f}"


def _accuracy(row: _Row) -> str:
    if np.isfinite(row["turn_accuracy"]):
        return f"turns told to {10 ** row['turn_accuracy']:.1f}°"
    return f"shifts told to {10 ** row['shift_accuracy']:.1%} of the mask"


def _size(row: _Row) -> str:
    count = int(row["particle_count"])
    return f"{count:,} particle{'' if count == 1 else 's'}"


def _members(row: _Row) -> str:
    if np.isfinite(row["junk_share"]) and not abs(row["likelihood"]) > 1:
        return f"members {row['junk_share']:.0%} likely junk"
    if abs(row["likelihood"]) > 0.3:
        word = "better" if row["likelihood"] > 0 else "worse"
        return f"members fit {word} than usual"
    return "members fit as usual"


def _certainty(row: _Row) -> str:
    if abs(row["certainty"]) < 0.02:
        return "members as sure of their place as usual"
    return f"members {'more' if row['certainty'] > 0 else 'less'} sure of their place than usual"


def _brightness(row: _Row) -> str:
    if abs(row["norm"]) > row["norm_spread"]:
        return f"images {np.exp(row['norm']):.2f} times as noisy as usual"
    return f"images differ in noise by {row['norm_spread']:.0%}"


def _shifts(row: _Row) -> str:
    return f"members shifted {2 ** row['shift_spread_in_run']:.1f} times as far as usual"


def _contrast(row: _Row) -> str:
    if abs(row["amplitude_in_run"]) > 0.7:
        return f"{np.exp(row['amplitude_in_run']):.1f} times as strong as usual"
    return f"contrast {np.exp(row['contrast']):.1f}"


def _background(row: _Row) -> str:
    return f"background varies by {np.exp(row['background']):.0%} of the average"


def _edge(row: _Row) -> str:
    if row["edge_share"] >= 0.02:
        return f"{row['edge_share']:.0%} of the mask's edge is bright"
    if row["scattered_share"] >= 0.02:
        return f"{row['scattered_share']:.0%} of the density is scattered"
    return "nothing bright at the mask's edge"


def _shape(row: _Row) -> str:
    if row["off_centre"] > 0.15:
        return f"off centre by {row['off_centre'] / 2:.0%} of the mask"
    return f"fills {row['area']:.0%} of the mask"


def _texture(row: _Row) -> str:
    return "texture"


def _look(row: _Row) -> str:
    return "the picture as a whole"


def _taste(row: _Row) -> str:
    return "what was learned from choices"


_WORDS: Final[Mapping[str, Callable[[_Row], str]]] = {
    "resolution": _resolution,
    "halves": _halves,
    "accuracy": _accuracy,
    "size": _size,
    "certainty": _certainty,
    "members": _members,
    "brightness": _brightness,
    "shifts": _shifts,
    "contrast": _contrast,
    "background": _background,
    "edge": _edge,
    "shape": _shape,
    "texture": _texture,
    "look": _look,
    "taste": _taste,
}
