"""Pick particles in a micrograph with a trained network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.image.peaks import local_maxima, suppress_close
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.network import MARGIN, PARTICLE, STRIDE, PickNetwork, apply_in_tiles
from cryopick.picking.network_field import NetworkField, prepare_network_field
from cryopick.picking.network_parameters import NetworkParameters

__all__ = ["FLOOR", "PickModel", "field_chances", "find_centres", "network_bytes", "pick_network"]

FLOOR = 0.002  # probability: peaks below are of no use to anyone
_ROUNDS = 200  # of expectation-maximisation, at most
_OWN = 1.0  # peaks like those of the calibration that each field is thought to have besides its own
_LEAST = 1e-9  # probability, and what is missing to 1: odds are finite
_AROUND = 2  # grid points about a peak whose ways to the centre are averaged


@dataclass(frozen=True, kw_only=True)
class PickModel:
    """A trained network, and what its logits mean."""

    network: PickNetwork
    slope: float  # calibrated logit = slope * logit + offset
    offset: float
    threshold: float  # probability from which a peak is a pick
    prior: float  # share of particles among the peaks that it was calibrated on


def pick_network(
    micrograph: Tensor, *, pixel_size: float, parameters: NetworkParameters, model: PickModel
) -> FieldPicks:
    """Pick one field.

    Parameters
    ----------
    micrograph
        (y, x), real; on the device of the network.
    pixel_size
        A/px.
    parameters
        Of the picker.
    model
        The network and its calibration.

    Returns
    -------
    FieldPicks
        The figure of merit is the probability of a particle, as `field_chances` has it.

    Raises
    ------
    DataError
        If a pixel is not finite or the field is constant.
    """
    field = prepare_network_field(
        micrograph,
        pixel_size=pixel_size,
        diameter=parameters.diameter,
        edge_distance=parameters.edge_distance * parameters.diameter,
        white_particles=parameters.white_particles,
        mask=parameters.mask,
    )
    answer = apply_in_tiles(model.network, field.image, tile=parameters.tile)
    chance = torch.sigmoid(model.slope * answer[0] + model.offset)
    distance = parameters.distance / field.search.pixel_size
    searched = field.search.is_searched
    positions, scores = find_centres(chance, answer[1:], searched, min_distance=distance)
    ratio = _odds_ratio(scores.double().cpu().numpy(), prior=model.prior)
    scores, chance = (_with_odds(c.double(), ratio).to(c) for c in (scores, chance))
    best = _full_size(chance, field) if parameters.write_fom_maps else None
    given = parameters.threshold
    return field.search.as_picks(
        positions,
        scores=scores,
        diameters=torch.full_like(scores, parameters.diameter),
        threshold=model.threshold if given is None else given,
        best=best,
    )


def field_chances(chance: NDArray[np.float64], *, prior: float) -> NDArray[np.float64]:
    """Adjust the probabilities of a field's peaks to how many of them are particles.

    The share of particles among the peaks of this field takes the place of that among the peaks
    of the calibration; it is found by expectation-maximisation from the probabilities themselves
    (Saerens, Latinne and Decaestecker, Neural Computation 2002). In a field of noise it falls to
    nearly 0, and no peak remains likely.

    Parameters
    ----------
    chance
        (n,) calibrated probabilities.
    prior
        Share of particles among the peaks of the calibration.
    """
    moved = torch.from_numpy(np.asarray(chance, np.float64))
    return np.asarray(_with_odds(moved, _odds_ratio(chance, prior=prior)).numpy())


def _odds_ratio(chance: NDArray[np.float64], *, prior: float) -> float:
    """Find what the odds of all places of a field are multiplied by: 1 where it has no peak."""
    if not len(chance):
        return 1.0
    odds = np.clip(chance, _LEAST, 1 - _LEAST)
    odds = odds / (1 - odds)
    share, ratio = prior, 1.0
    for _ in range(_ROUNDS):
        ratio = share / (1 - share) * (1 - prior) / prior
        fair = ratio * odds / (1 + ratio * odds)
        found = (fair.sum() + _OWN * prior) / (len(fair) + _OWN)
        if abs(found - share) < 1e-6:
            break
        share = min(found, 1 - 1e-6)
    return float(ratio)


def _with_odds(chance: Tensor, ratio: float) -> Tensor:
    """Multiply the odds of probabilities, double precision; none becomes quite 0 or 1."""
    odds = chance.clamp(_LEAST, 1 - _LEAST)
    odds = ratio * odds / (1 - odds)
    return odds / (1 + odds)


def find_centres(
    chance: Tensor, ways: Tensor, is_searched: Tensor, *, min_distance: float
) -> tuple[Tensor, Tensor]:
    """Find the peaks of a map of probabilities, below its grid.

    Parameters
    ----------
    chance
        (y, x) probabilities on the grid of the network.
    ways
        (2, y, x) y and x of the way from each grid point to the centre, px of the field.
    is_searched
        (y, x) bool, px of the field: where a centre may lie.
    min_distance
        Of two peaks, px of the field.

    Returns
    -------
    tuple of Tensor
        Positions (n, 2), y and x in px of the field, and probabilities (n,), best first.
    """
    scores = torch.where(is_searched[::STRIDE, ::STRIDE], chance, 0.0)
    pixels = local_maxima(scores, radius=1, floor=FLOOR)
    positions = _refined(scores, ways, pixels)
    kept = suppress_close(positions.double().cpu().numpy(), min_distance=min_distance)
    index = torch.from_numpy(kept).to(pixels.device)
    chosen = pixels[index]
    return positions[index], scores[chosen[:, 0], chosen[:, 1]]


def _refined(scores: Tensor, ways: Tensor, pixels: Tensor) -> Tensor:
    """Average where the grid points about a peak say that the centre is, by their probability."""
    height, width = scores.shape
    steps = torch.arange(-_AROUND, _AROUND + 1, device=pixels.device)
    rows = (pixels[:, 0, None, None] + steps[:, None]).clamp(0, height - 1)
    columns = (pixels[:, 1, None, None] + steps[None, :]).clamp(0, width - 1)
    weight = scores[rows, columns].square()
    total = weight.sum((1, 2)).clamp_min(1e-12)
    centre_y = (weight * (STRIDE * rows + ways[0][rows, columns])).sum((1, 2)) / total
    centre_x = (weight * (STRIDE * columns + ways[1][rows, columns])).sum((1, 2)) / total
    return torch.stack([centre_y, centre_x], 1)


def _full_size(chance: Tensor, field: NetworkField) -> Tensor:
    rows, columns = field.image.shape
    return chance.repeat_interleave(STRIDE, 0).repeat_interleave(STRIDE, 1)[:rows, :columns]


def network_bytes(side: int, pixel_size: float, *, parameters: NetworkParameters) -> int:
    """Estimate the peak memory of `pick_network`.

    Parameters
    ----------
    side
        Of the micrograph, px.
    pixel_size
        A/px of the micrograph.
    parameters
        Of the picker.
    """
    work = side * pixel_size / (parameters.diameter / PARTICLE)
    seen = min(work, parameters.tile + 2 * MARGIN)
    return int(30 * side**2 + 110 * work**2 + 300 * seen**2)
