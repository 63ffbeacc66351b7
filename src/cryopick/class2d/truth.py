"""What is known of a simulated stack, and what can be told from it of a set of its images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from cryopick.checks import require_above, require_shape

__all__ = ["ClassTruth", "find_rare_groups", "view_spread"]

_RARE_SHARE = 0.05  # of the true particles, at most
_RARE_TO_EVEN = 1 / 3  # of what the group would have if all had as many, at most
_VIEW_CANDIDATES = 64  # members tried as the middle of a class's views

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ClassTruth:
    """What is known of each image of a stack."""

    clean: Tensor  # (n, y, x) projections without CTF and noise, centred like the images
    label: Integers  # (n,) species, from 0; of no meaning for junk
    is_junk: Bools  # (n,)
    pixel_size: float  # A/px
    rotations: Floats | None = None  # (n, 3, 3); a point r of the model lies at matrix @ r
    view: Integers | None = None  # (n,) number of the view, alike for views that look alike
    species: tuple[str, ...] = ()  # names of the labels; their numbers where there are none
    symmetry: Floats = field(default_factory=lambda: np.eye(3)[None])  # (g, 3, 3) of the particle

    def __post_init__(self) -> None:
        require_shape(self.clean, "n y y", name="clean")
        count = len(self.clean)
        require_shape(self.label, f"{count}", name="label")
        require_shape(self.is_junk, f"{count}", name="is_junk")
        if self.rotations is not None:
            require_shape(self.rotations, f"{count} 3 3", name="rotations")
        if self.view is not None:
            require_shape(self.view, f"{count}", name="view")
        require_above(self.pixel_size, 0, name="pixel_size", unit="A/px")

    def name_of(self, label: int) -> str:
        """Name of a species."""
        return self.species[label] if label < len(self.species) else str(label)


def view_spread(rotations: Floats, symmetry: Floats) -> float:
    """Mean angle of viewing directions from the most central of them.

    Parameters
    ----------
    rotations
        (n, 3, 3) of the members of a class; the view is along z of ``matrix @ r``.
    symmetry
        (g, 3, 3) rotations of the particle's point group; the nearest equivalent counts.

    Returns
    -------
    float
        deg; NaN for fewer than 2 members. 0 to about 90; random views of a particle without
        symmetry have about 85.
    """
    if len(rotations) < 2:
        return math.nan
    directions = rotations[:, 2, :]
    step = -(-len(directions) // _VIEW_CANDIDATES)
    equivalents = np.einsum("gij,nj->gni", symmetry, directions[::step])
    best = np.full((equivalents.shape[1], len(directions)), -1.0)
    for candidates in equivalents:
        best = np.maximum(best, candidates @ directions.T)
    angles = np.rad2deg(np.arccos(np.clip(best, -1, 1)))
    return float(angles.sum(1).min() / (len(directions) - 1))


def find_rare_groups(
    truth: ClassTruth, index: Integers, number: Integers, *, min_size: int = 5
) -> pd.DataFrame:
    """Look what became of rare species and rare views.

    Parameters
    ----------
    truth
        What is known of the images.
    index
        (n,) images that were classified.
    number
        (n,) their classes; 0 is none.
    min_size
        True particles that a group needs.

    Returns
    -------
    pandas.DataFrame
        One row for each species, and for each view of the other species, that holds at most
        5 % of the true particles and at most a third of what it would if all were alike: group,
        n_true, share (of the true particles), and recall: the share of its particles that sit
        in classes of which it holds more than half, junk counted.
    """
    kinds = {"species": [truth.name_of(int(n)) for n in truth.label]}
    if truth.view is not None:
        kinds["view"] = [
            f"{s}, view {v}" for s, v in zip(kinds["species"], truth.view.tolist(), strict=True)
        ]
    sizes = np.bincount(number)
    rows = []
    rare_species: set[str] = set()
    for kind, names in kinds.items():
        groups, place = np.unique(np.array(names, dtype=str), return_inverse=True)
        counts = np.bincount(place[~truth.is_junk], minlength=len(groups))
        n_true, n_groups = int(counts.sum()), int((counts > 0).sum())
        for g in np.flatnonzero(counts >= min_size):
            share = counts[g] / n_true
            name = str(groups[g])
            if share > min(_RARE_SHARE, _RARE_TO_EVEN / n_groups):
                continue
            if kind == "species":
                rare_species.add(name)
            elif name.rpartition(", view ")[0] in rare_species:
                continue
            mine = (place[index] == g) & ~truth.is_junk[index] & (number > 0)
            held = np.bincount(number[mine], minlength=len(sizes))
            found = held[2 * held > sizes].sum()
            rows.append((name, int(counts[g]), float(share), float(found / counts[g])))
    return pd.DataFrame(rows, columns=["group", "n_true", "share", "recall"])
