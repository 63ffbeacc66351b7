"""Places of a field that networks or pickers take for particles, each once.

The peaks of the networks' answer are candidates beside those of the pickers: what all pickers
have missed is not lost. A candidate and a peak that are near to one another are one place, the
nearest first, one to one; a candidate without a peak has the answer at its own place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import logit
from torch import Tensor

from cryopick.picking.consensus_network import ConsensusField
from cryopick.picking.network import PARTICLE, STRIDE
from cryopick.picking.network_pick import field_chances, find_centres

__all__ = ["Places", "find_places", "share_shift"]

_FLOOR = 0.005  # probability: peaks below are no candidates
_APART = 0.5  # diameters between peaks
_EDGE = 0.5  # diameters: of a particle nearer to the edge a part is missing
_LEAST = 1e-9  # probability, and what is missing to 1: odds are finite
_HALF = 0.5

Points = NDArray[np.float64]
Floats = NDArray[np.float64]


class Places(NamedTuple):
    """Candidates of a field in their order, then the peaks that are none of them."""

    logits: Floats  # (n,)
    centres: Points  # (n, 2) y and x, px of the image


def find_places(
    answer: Tensor | None, field: ConsensusField, *, radius: float, adds_peaks: bool = True
) -> Places:
    """Join the candidates of a field with the peaks of an answer.

    Parameters
    ----------
    answer
        (3, y, x) calibrated log-odds on the grid of the network, and y and x of the way to the
        centre, px; None where no network has a say: then all log-odds are 0.
    field
        With its candidates.
    radius
        How far a peak may lie from its candidate, diameters.
    adds_peaks
        Whether peaks without a candidate are places.

    Returns
    -------
    Places
        Peaks without a candidate are left out where the field is masked, nearer to the edge than
        half a diameter, and below a probability of 0.005.
    """
    candidates = field.candidates
    if answer is None:
        return Places(np.zeros(len(candidates)), candidates)
    peaks, found = _peaks(answer, field.is_valid)
    owner = _pair(candidates, peaks, found, reach=radius * PARTICLE)
    logits, centres = _logits_at(answer[0], candidates), candidates.copy()
    paired = owner >= 0
    logits[owner[paired]], centres[owner[paired]] = found[paired], peaks[paired]
    if not adds_peaks:
        return Places(logits, centres)
    is_new = ~paired & _is_whole(peaks, field.is_valid) & (found >= logit(_FLOOR))
    return Places(np.concatenate([logits, found[is_new]]), np.concatenate([centres, peaks[is_new]]))


def share_shift(
    answers: Sequence[Tensor], fields: Sequence[ConsensusField], *, prior: float
) -> float:
    """Say what to add to log-odds for the share of particles among the peaks of these fields.

    A calibration holds for the share of particles that it has seen. That of these fields is found
    as `field_chances` does, of all together. Particles of less contrast than in the calibration
    look like more of them, so only half of the difference is given.

    Parameters
    ----------
    answers, fields
        Of all micrographs, as `find_places` takes them.
    prior
        Share of particles among the peaks of the calibration.
    """
    found = [np.empty(0)]
    for answer, field in zip(answers, fields, strict=True):
        peaks, logits = _peaks(answer, field.is_valid)
        found.append(logits[_is_whole(peaks, field.is_valid)])
    every = np.concatenate(found)
    if not len(every):
        return 0.0
    chance = 1 / (1 + np.exp(-every))
    middle = int(np.abs(every).argmin())  # all are moved alike; this one is not rounded to 0 or 1
    moved = field_chances(chance, prior=prior)[middle]
    return float(_HALF * (logit(moved) - every[middle]))


def _peaks(answer: Tensor, is_valid: Tensor) -> tuple[Points, Floats]:
    """Positions (n, 2), y and x in px, and log-odds (n,), best first."""
    everywhere = torch.ones_like(is_valid, device=answer.device)
    positions, chance = find_centres(
        torch.sigmoid(answer[0]), answer[1:], everywhere, min_distance=_APART * PARTICLE
    )
    sure = chance.double().cpu().numpy().clip(_LEAST, 1 - _LEAST)
    return positions.double().cpu().numpy(), np.asarray(logit(sure))


def _pair(candidates: Points, peaks: Points, logits: Floats, *, reach: float) -> NDArray[np.int64]:
    """Give each peak the number of its candidate, one to one, the nearest first; -1 for none."""
    owner = np.full(len(peaks), -1)
    if not len(candidates) or not len(peaks):
        return owner
    near = cKDTree(peaks).query_ball_tree(cKDTree(candidates), reach)
    pairs = sorted(
        (
            float(np.hypot(*(candidates[c] - peaks[p]))),
            float(-logits[p]),
            candidates[c].tolist(),
            p,
            c,
        )
        for p, own in enumerate(near)
        for c in own
    )
    is_taken = np.zeros(len(candidates), bool)
    for _, _, _, peak, candidate in pairs:
        if owner[peak] < 0 and not is_taken[candidate]:
            owner[peak], is_taken[candidate] = candidate, True
    return owner


def _logits_at(logits: Tensor, points: Points) -> Floats:
    """Highest log-odds at the nearest grid point and those about it."""
    values = logits.double().cpu().numpy()
    last = np.array(values.shape) - 1
    nearest = np.rint(points / STRIDE).astype(int)
    steps = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    about = np.clip(nearest[:, None] + np.array(steps), 0, last)
    return np.asarray(values[about[..., 0], about[..., 1]].max(1, initial=-np.inf))


def _is_whole(points: Points, is_valid: Tensor) -> NDArray[np.bool_]:
    """Whether points lie on what is not masked, and as far from the edge as a particle's radius."""
    last = np.array(is_valid.shape) - 1
    margin = _EDGE * PARTICLE
    pixels = np.clip(np.rint(points).astype(int), 0, last)
    inside = ((points >= margin) & (points <= last - margin)).all(1)
    return np.asarray(inside & is_valid.cpu().numpy()[pixels[:, 0], pixels[:, 1]])
