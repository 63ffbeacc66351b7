"""Pick particles of a size range by matched filters that see what the lens and the ice do.

1. The field is shrunk, cleaned, masked and high-passed (`picking.search_field`).
2. Each shape s of the bank, seen through the field's CTF, is sought by the filter that is best
   against the field's own background of power P: the response at x is

       z_s(x) = sum_k F(k) CTF(k) S(k) / P(k) exp(2 pi i k x) / sqrt(sum_k (CTF S)^2 / P)

   which has variance 1 where there is background only (North 1943; Turin, IRE Trans. Inf. Theory
   6 (1960) 311). P is measured between the particles, in rounds (`picking.noise_spectrum`).
3. What is left of uneven noise is divided out, and the threshold follows from the number of peaks
   that noise makes (`picking.detection`).
4. The mean radial profile of the whitened picks of one half of the field is sought in the other
   half, four times: it knows what no shape of the bank does, and its picks are better centred.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.errors import DataError
from cryopick.image.fourier import frequency_grid
from cryopick.picking.background import exclude_discs
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.blob_shapes import BlobFilter, blob_filters
from cryopick.picking.contaminants import is_inner_peak, is_unlike_particles
from cryopick.picking.detection import Detections, detect
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.noise_spectrum import noise_power
from cryopick.picking.radial_profile import learned_response
from cryopick.picking.search_field import SearchField, prepare_search

__all__ = ["pick_blob", "working_pixel_size"]

_LOW_PASS = 6.0  # smallest diameter over the finest detail
_FEWEST_PIXELS = 4  # across the smallest particle
_WINDOW = 1.25  # radius of the noise window, in largest diameters
_PROFILE_REACH = 0.85  # radius of the learned profile, in largest diameters
_BACKGROUND_REACH = 0.6  # radius cleared about a particle, in largest diameters
_FALSE_SHARE = 0.1  # of the picks of a crowded field may be noise
_LEAST_SHARE = 0.35  # of the upper quartile of the scores of a field's picks
_FEWEST_STRONG = 20  # picks that have a quartile
_LESSONS = 4  # rounds of learning; each costs little
_ROUNDS = 2  # of measuring noise at first; each later search starts where the last one ended
_LEAST_BACKGROUND = 0.05  # share of the field that noise is measured on at least


def working_pixel_size(parameters: BlobParameters) -> float:
    """A/px that a field is shrunk to: detail up to the low-pass is kept."""
    assert parameters.min_diameter is not None
    return (parameters.low_pass or parameters.min_diameter / _LOW_PASS) / 2


def pick_blob(
    micrograph: Tensor,
    *,
    pixel_size: float,
    parameters: BlobParameters,
    ctf: FieldCtf | None,
    apparent: bool = True,
) -> FieldPicks:
    """Find particles of a size range in one micrograph.

    Parameters
    ----------
    micrograph
        (y, x), real, any device.
    pixel_size
        A/px.
    parameters
        With both diameters given.
    ctf
        Of the micrograph; None looks for shapes as they are without a lens.
    apparent
        Whether shapes somewhat below the smallest diameter are sought as well: structure within
        a particle and the lens make it look smaller.

    Returns
    -------
    FieldPicks
        All peaks above one standard deviation of the noise, with the z-score as figure of merit.
        `class_number` counts the shapes asked for, from 1; `psi` turns the long axis of an
        ellipse onto x.

    Raises
    ------
    DataError
        If a pixel is not finite, the field is constant or its pixels are too coarse.
    ShapeError
        If `micrograph` has not two axes.
    """
    low, high = _diameters(parameters, pixel_size)
    search = prepare_search(
        micrograph,
        pixel_size=pixel_size,
        working_pixel_size=working_pixel_size(parameters),
        min_diameter=low,
        max_diameter=high,
        edge_distance=parameters.edge_distance * low,
        white_particles=parameters.white_particles,
        mask=parameters.mask,
    )
    fy, fx = frequency_grid(
        search.shape, pixel_size=search.pixel_size, device=search.image_rfft.device
    )
    bank = blob_filters(
        fy,
        fx,
        shapes=parameters.shape_names,
        min_diameter=low,
        max_diameter=high,
        apparent=apparent,
    )
    lens = _lens(search, ctf)
    power = _power(search, search.is_valid, parameters)
    n_kinds = len({b.kind for b in bank})
    responses = _matched(search, bank, lens, power)
    found = _detect(search, responses, parameters, n_kinds=n_kinds)
    final: Detections | None = None
    for _ in range(_LESSONS if parameters.learn_profile else 0):
        power = _power(search, _background(search, final or found, parameters), parameters)
        lesson = _learned(search, final or found, power, parameters)
        if lesson is None:
            break
        final = lesson
    if final is None:
        power = _power(search, _background(search, found, parameters), parameters)
        responses = _matched(search, bank, lens, power)
        final = _detect(search, responses, parameters, n_kinds=n_kinds, start=found)
    found = _without_contaminants(search, final, power, parameters)
    return _as_picks(search, found, responses, bank, parameters)


def _diameters(parameters: BlobParameters, pixel_size: float) -> tuple[float, float]:
    low, high = parameters.min_diameter, parameters.max_diameter
    if low is None or high is None:
        raise DataError("the diameters", must="be known", got="none", remedy="Estimate them first")
    if low < _FEWEST_PIXELS * pixel_size:
        raise DataError(
            "micrograph",
            must=f"show the smallest particle over {_FEWEST_PIXELS} px",
            got=f"{low / pixel_size:.1f} px",
            remedy="Check --pixel-size and --min-diameter",
        )
    return low, high


def _lens(search: SearchField, ctf: FieldCtf | None) -> Tensor:
    """Evaluate the CTF; the high-pass is left out, as shapes are surest where it acts."""
    if ctf is None:
        return torch.ones_like(search.frequency)
    return ctf.evaluate(search.shape, pixel_size=search.pixel_size, device=search.frequency.device)


def _power(search: SearchField, is_background: Tensor, parameters: BlobParameters) -> Tensor:
    assert parameters.max_diameter is not None
    if not parameters.whiten:
        return torch.ones_like(search.frequency)
    return noise_power(
        search.valid_image(search.image_rfft),
        is_background,
        search.frequency,
        pixel_size=search.pixel_size,
        reach=parameters.max_diameter,
    )


def _background(search: SearchField, found: Detections, parameters: BlobParameters) -> Tensor:
    """Clear the picks from the valid pixels; keep all pixels where too few would be left."""
    assert parameters.max_diameter is not None
    radius = _BACKGROUND_REACH * parameters.max_diameter / search.pixel_size
    picked = found.positions[found.scores >= found.threshold]
    cleared = exclude_discs(search.is_valid, picked, radius=radius)
    is_enough = cleared.sum() >= _LEAST_BACKGROUND * search.is_valid.sum()
    return cleared if is_enough else search.is_valid


def _matched(search: SearchField, bank: list[BlobFilter], lens: Tensor, power: Tensor) -> Tensor:
    """Response of every filter at every pixel, (k, y, x)."""
    weighted = search.image_rfft * (lens / power)
    sensitivity = lens.square() / power
    responses = [
        torch.fft.irfft2(weighted * b.transfer, s=search.shape)
        / (sensitivity * b.transfer.square()).sum().sqrt().clamp_min(1e-20)
        for b in bank
    ]
    return torch.stack(responses)


def _detect(
    search: SearchField,
    responses: Tensor,
    parameters: BlobParameters,
    *,
    n_kinds: int,
    start: Detections | None = None,
) -> Detections:
    assert parameters.min_diameter is not None
    assert parameters.max_diameter is not None
    largest = parameters.max_diameter / search.pixel_size
    return detect(
        responses,
        is_valid=search.is_valid,
        is_searched=search.is_searched,
        n_kinds=n_kinds,
        min_distance=parameters.min_distance * parameters.min_diameter / search.pixel_size,
        disc_radius=_BACKGROUND_REACH * largest,
        window_radius=max(1, round(_WINDOW * largest)),
        false_positives=parameters.false_positives,
        false_share=_FALSE_SHARE,
        start=start,
        rounds=_ROUNDS if start is None else 1,
    )


def _learned(
    search: SearchField, found: Detections, power: Tensor, parameters: BlobParameters
) -> Detections | None:
    """Search again with what the picks look like in the whitened field; None if they are few."""
    assert parameters.max_diameter is not None
    response = learned_response(
        search.valid_image(search.image_rfft / power.sqrt()),
        found.positions[found.scores >= found.threshold],
        radius=_PROFILE_REACH * parameters.max_diameter / search.pixel_size,
    )
    if response is None:
        return None
    return _detect(search, response[None], parameters, n_kinds=1, start=found)


def _without_contaminants(
    search: SearchField, found: Detections, power: Tensor, parameters: BlobParameters
) -> Detections:
    """Leave out flanks of what lies beyond the rim and, where it is masked, of ice and carbon."""
    assert parameters.max_diameter is not None
    is_kept = is_inner_peak(found.best, found.pixels)
    if parameters.mask:
        is_kept &= ~is_unlike_particles(
            search.valid_image(search.image_rfft / power.sqrt()),
            found.pixels,
            is_kept & (found.scores >= found.threshold),
            radius=parameters.max_diameter / 2 / search.pixel_size,
        )
    return found.subset(is_kept)


def _as_picks(
    search: SearchField,
    found: Detections,
    responses: Tensor,
    bank: list[BlobFilter],
    parameters: BlobParameters,
) -> FieldPicks:
    at_picks = responses[:, found.pixels[:, 0], found.pixels[:, 1]]
    which = at_picks.argmax(0)
    kinds = torch.tensor([parameters.shape_names.index(b.kind) + 1 for b in bank])
    angles = torch.tensor([b.psi for b in bank])
    threshold = _threshold(found) if parameters.threshold is None else parameters.threshold
    picks = search.as_picks(
        found.positions,
        scores=found.scores,
        diameters=_best_diameters(at_picks, which, bank),
        threshold=threshold,
        best=found.best if parameters.write_fom_maps else None,
    )
    chosen = which.cpu()
    return picks._replace(
        class_number=kinds[chosen].numpy(), psi=(-angles[chosen]).double().numpy()
    )


def _threshold(found: Detections) -> float:
    """Raise the threshold of noise to a third of what strong picks of the field score.

    Where particles are strong, the gaps between their fringes rise above noise as well.
    """
    strong = found.scores[found.scores >= found.threshold]
    if len(strong) < _FEWEST_STRONG:
        return found.threshold
    return max(found.threshold, _LEAST_SHARE * float(strong.quantile(0.75)))


def _best_diameters(at_picks: Tensor, which: Tensor, bank: list[BlobFilter]) -> Tensor:
    """Diameter of the best filter of each pick, between sizes by a parabola in its logarithm."""
    sizes = at_picks.new_tensor([math.log(b.diameter) for b in bank])
    inner = torch.zeros(len(bank), dtype=torch.bool, device=at_picks.device)
    for i in range(1, len(bank) - 1):
        neighbours = {bank[i - 1].kind, bank[i].kind, bank[i + 1].kind}
        inner[i] = len(neighbours) == 1 and bank[i].kind != "ellipse"
    picks = torch.arange(at_picks.shape[1], device=at_picks.device)
    center = which.clamp(1, max(1, len(bank) - 2)) if len(bank) > 2 else which
    if len(bank) <= 2:
        return sizes[which].exp()
    before, middle, after = (at_picks[center + i, picks] for i in (-1, 0, 1))
    curvature = before - 2 * middle + after
    can = inner[which] & (curvature < 0)
    step = torch.where(can, (before - after) / 2 / torch.where(can, curvature, -1.0), 0.0)
    spacing = (sizes[center + 1] - sizes[center - 1]) / 2
    return torch.exp(sizes[which] + step.clamp(-0.5, 0.5) * spacing)
