"""Estimate how large the particles of some micrographs are, without knowing anything of them.

Balls and shells of every diameter of a ladder are sought, and the diameter whose picks add most
to the likelihood is taken, but for two traps: parts of particles that are not compact
(`picking.particle_parts`), and a few lumps of ice that explain more than all particles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.errors import DataError
from cryopick.picking.blob import pick_blob
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.particle_parts import are_parts

__all__ = [
    "DiameterEstimate",
    "DiameterTrial",
    "candidate_diameters",
    "choose_diameter",
    "try_diameter",
]

_SMALLEST, _LARGEST = 60.0, 1000.0  # A
_FEWEST_PIXELS = 10  # across the smallest
_FIELD_SHARE = 5  # sides of a field over the largest
_STEP = 1.2  # from one candidate to the next
_REACH = 1.12  # factor from a candidate to both ends of the range it is tried with
_SMALLER, _LARGER = 1.18, 1.25  # the range to pick with: what is inside looks smaller
_FEWEST = 20  # picks that make an estimate
_LEAST_SHARE = 0.15  # of the picks of the diameter that has most


class DiameterTrial(NamedTuple):
    """How well particles of one diameter explain one field."""

    positions: NDArray[np.float64]  # (n, 2) x and y of the picks, A
    gain: float  # log-likelihood that the picks add, over what as many noise peaks would


class DiameterEstimate(NamedTuple):
    """The size of the particles, and the curve it was read from."""

    diameter: float  # A
    min_diameter: float  # A
    max_diameter: float  # A
    candidates: NDArray[np.float64]  # (k,) A
    gains: NDArray[np.float64]  # (k,) over all fields
    n_picks: NDArray[np.int64]  # (k,) over all fields
    is_part: NDArray[np.bool_]  # (k,) the picks are parts of larger particles

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to look after: the maximum may lie beyond what was tried."""
        ends = {self.candidates[0]: "smallest", self.candidates[-1]: "largest"}
        if self.diameter not in ends:
            return ()
        return (
            f"the {ends[self.diameter]} diameter tried, {self.diameter:.0f} A, explains the "
            "micrographs best, so the true one may lie beyond. Give it if you know it.",
        )


def candidate_diameters(shape: tuple[int, int], pixel_size: float) -> list[float]:
    """Diameters to try in fields of (y, x) px: from 60 A to a fifth of the side, at most 1000 A.

    Raises
    ------
    DataError
        If the field is too small or its pixels are too coarse for a choice.
    """
    lowest = max(_SMALLEST, _FEWEST_PIXELS * pixel_size)
    highest = min(_LARGEST, min(shape) * pixel_size / _FIELD_SHARE)
    if highest < 2 * lowest:
        raise DataError(
            "micrograph",
            must=f"have a side of {2 * _FIELD_SHARE * lowest:.0f} A to estimate a diameter in",
            got=f"{min(shape) * pixel_size:.0f} A",
            remedy="Give --min-diameter and --max-diameter",
        )
    count = round(math.log(highest / lowest) / math.log(_STEP))
    return [lowest * (highest / lowest) ** (i / count) for i in range(count + 1)]


def try_diameter(
    micrograph: Tensor,
    diameter: float,
    *,
    pixel_size: float,
    parameters: BlobParameters,
    ctf: FieldCtf | None,
) -> DiameterTrial:
    """Pick a field for particles of about one diameter and say what that explains.

    Parameters
    ----------
    micrograph
        (y, x), real, any device.
    diameter
        A.
    pixel_size
        A/px.
    parameters
        Of the picker. Diameters, low-pass and threshold do not matter, and nothing is learned.
    ctf
        Of the micrograph; None for none.

    Raises
    ------
    DataError
        If the field is not usable.

    Notes
    -----
    A matched filter with a z-score of z has found z^2 / 2 of log-likelihood; a noise peak at the
    threshold t has t^2 / 2. The gain is n (median(z)^2 - t^2) / 2 over the n picks: too small a
    diameter explains less of each particle, too large a one finds fewer and adds noise. The
    median keeps a few lumps of ice from deciding.
    """
    found = pick_blob(
        micrograph,
        pixel_size=pixel_size,
        parameters=replace(
            parameters,
            min_diameter=diameter / _REACH,
            max_diameter=diameter * _REACH,
            learn_profile=False,  # it would adapt to any diameter
            threshold=None,
            low_pass=None,
            write_fom_maps=False,
        ),
        ctf=ctf,
        apparent=False,
    )
    positions = np.column_stack([found.x, found.y])[found.is_pick] * pixel_size
    scores = found.fom[found.is_pick]
    if not len(scores):
        return DiameterTrial(positions, 0.0)
    gain = len(scores) * (float(np.median(scores)) ** 2 - found.threshold**2) / 2
    return DiameterTrial(positions, max(0.0, gain))


def choose_diameter(
    candidates: Sequence[float], trials: Sequence[Sequence[DiameterTrial]]
) -> DiameterEstimate:
    """Take the diameter that explains most.

    Parameters
    ----------
    candidates
        (k,) A, evenly spaced in their logarithm.
    trials
        (fields, k).

    Returns
    -------
    DiameterEstimate
        The maximum of the summed gain, between candidates by a parabola in the logarithm. What
        parts explain, and what few picks do, does not count.

    Raises
    ------
    DataError
        If no candidate finds at least 20 particles.
    """
    sizes = np.asarray(candidates, float)
    n_picks = np.array([[len(t.positions) for t in field] for field in trials], int).sum(0)
    gains = np.array([[t.gain for t in field] for field in trials], float).sum(0)
    is_many = n_picks >= max(_FEWEST, _LEAST_SHARE * n_picks.max(initial=0))
    allowed = np.where(is_many, gains, 0.0)
    if not allowed.any():
        raise DataError(
            "the micrographs",
            must=f"show {_FEWEST} particles of one size to estimate their diameter",
            got=f"{int(n_picks.max(initial=0))}",
            remedy="Give --min-diameter and --max-diameter",
        )
    picks = [[field[k].positions for field in trials] for k in range(len(sizes))]
    is_part = are_parts(sizes, picks, allowed)
    diameter = _maximum(sizes, np.where(is_part, 0.0, allowed))
    return DiameterEstimate(
        diameter, diameter / _SMALLER, diameter * _LARGER, sizes, gains, n_picks, is_part
    )


def _maximum(sizes: NDArray[np.float64], gains: NDArray[np.float64]) -> float:
    best = int(gains.argmax())
    if not 0 < best < len(sizes) - 1:
        return float(sizes[best])
    before, middle, after = gains[best - 1 : best + 2]
    curvature = before - 2 * middle + after
    step = (before - after) / 2 / curvature if curvature < 0 else 0.0
    return float(sizes[best] * (sizes[best + 1] / sizes[best]) ** step)
