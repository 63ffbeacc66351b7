"""Pick particles that look like templates, at any rotation (``pick template``).

1. The field is shrunk so that its Nyquist frequency is the low-pass; ice, carbon and damaged
   borders are masked, as for blobs.
2. It is multiplied by the CTF, with its astigmatism, and divided by the power of its own
   background: then correlation with a template is the likelihood ratio of a particle against
   noise, and the template itself never sees a CTF.
3. All templates at all angles are compared through a few steerable functions
   (`template_basis`, `template_search`). A response over its norm is a z-score; the best of all
   is the figure of merit.
4. Local noise is measured where no particle is, in rounds; so is the power of step 2. The threshold
   is where noise, at all templates and angles together, would make `false_positives` peaks
   (`template_noise`), and lower in a field so full that few of the picks can be noise.

Helices and amyloids, which RELION's template picker follows as filaments, are not treated.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.image.filters import high_pass, local_mean
from cryopick.image.peaks import local_maxima, suppress_close
from cryopick.picking.background import (
    NEVER,
    NoisePeaks,
    discovery_threshold,
    exclude_discs,
    noise_threshold,
)
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.noise_spectrum import noise_power
from cryopick.picking.search_field import SearchField, prepare_search
from cryopick.picking.template_basis import SteerableBasis, make_basis, ring_mean
from cryopick.picking.template_harmonics import Templates
from cryopick.picking.template_noise import template_noise_peaks
from cryopick.picking.template_parameters import TemplateParameters
from cryopick.picking.template_search import BestResponse, match_points, search_bytes, search_field

__all__ = ["pick_template", "template_bytes"]

_WINDOW = 1.25  # radius of the noise window, in diameters
_BACKGROUND_REACH = 0.6  # radius cleared about a particle, in diameters
_NOISE_REACH = 1.0  # distance over which noise is correlated, in diameters
_FALSE_SHARE = 0.1  # of the picks of a crowded field may be noise
_CROWDED = 25  # picks that make a field crowded
_ROUNDS = 4
_LEAST_BACKGROUND = 0.05  # share of the field that noise is measured on at least
_MINIMUM_SHARE = 0.15  # of a window must be background, else the whole field's counts too
_CHANCE = 3.0  # standard deviations by which what noise leaves may exceed its mean
_FIRST_STEP = 2  # the first search, which finds the background, has coarser angles by this


class _Search(NamedTuple):
    """What a search of one field found."""

    filtered: Tensor
    basis: SteerableBasis
    best: Tensor  # (y, x) standardised
    scale: Tensor  # (y, x) what it was divided by
    pixels: Tensor  # (n, 2) int64 peaks, best first
    threshold: float
    is_background: Tensor


def pick_template(
    micrograph: Tensor,
    *,
    pixel_size: float,
    templates: Templates,
    parameters: TemplateParameters,
    ctf: FieldCtf | None,
) -> FieldPicks:
    """Find particles that look like templates in one micrograph.

    Parameters
    ----------
    micrograph
        (y, x), real, any device.
    pixel_size
        A/px.
    templates
        From `prepare_templates` with the diameter and the low-pass of `parameters`.
    parameters
        Of the picker.
    ctf
        Of the micrograph; without it the micrograph is taken for an image without one, and what
        its CTF inverts counts against a particle.

    Returns
    -------
    FieldPicks
        All peaks, with the z-score as figure of merit. Positions are those of the centre of the
        template, pixel n // 2 of it. `psi` turns a particle onto its template, as
        `cryopick.alignment.transform` counts it.

    Raises
    ------
    DataError
        If a pixel is not finite or the field is constant.
    ShapeError
        If `micrograph` has not two axes.
    """
    diameter = parameters.diameter
    search = prepare_search(
        micrograph,
        pixel_size=pixel_size,
        working_pixel_size=parameters.low_pass / 2,
        min_diameter=diameter,
        max_diameter=diameter,
        edge_distance=parameters.edge_distance * diameter,
        white_particles=parameters.white_particles,
        mask=parameters.mask,
    )
    if not search.is_searched.any():
        return _no_picks(search)
    n_angles = 2 * math.ceil(180 / parameters.angular_step)
    coarse = 2 * math.ceil(n_angles / 2 / _FIRST_STEP)
    transfer = _transfer(search, parameters, ctf)
    first = _search(search, templates, transfer, search.is_valid, parameters, coarse)
    found = _search(search, templates, transfer, first.is_background, parameters, n_angles)
    return _as_picks(search, found, parameters, n_angles)


def _no_picks(search: SearchField) -> FieldPicks:
    """All is masked or too close to the edge."""
    none = search.field.image.new_empty(0)
    picks = search.as_picks(
        none.reshape(0, 2), scores=none, diameters=none, threshold=NEVER, best=None
    )
    return picks._replace(class_number=np.zeros(0, np.int64), psi=np.zeros(0))


def _transfer(search: SearchField, parameters: TemplateParameters, ctf: FieldCtf | None) -> Tensor:
    """Evaluate what made the searched field out of particles: filters and CTF."""
    transfer = high_pass(search.frequency, length=parameters.diameter)
    if parameters.high_pass is not None:
        transfer = transfer * high_pass(search.frequency, length=parameters.high_pass)
    if ctf is not None:
        device = search.image_rfft.device
        transfer = transfer * ctf.evaluate(
            search.shape, pixel_size=search.pixel_size, device=device
        )
    return transfer


def _search(
    search: SearchField,
    templates: Templates,
    transfer: Tensor,
    is_background: Tensor,
    parameters: TemplateParameters,
    n_angles: int,
) -> _Search:
    pixel_size, diameter = search.pixel_size, parameters.diameter
    power = noise_power(
        search.valid_image(search.image_rfft),
        is_background,
        search.frequency,
        pixel_size=pixel_size,
        reach=_NOISE_REACH * diameter,
    )
    filtering = transfer / power
    step = 1.5 / (min(search.shape) * pixel_size)
    weight = ring_mean(
        power * filtering.square(), search.frequency, step=step, rings=templates.frequency
    )
    weight = np.where(templates.frequency < 0.5 / pixel_size, weight, 0.0) * pixel_size**2
    basis = make_basis(templates, weight)
    filtered = torch.fft.irfft2(search.image_rfft * filtering, s=search.shape)
    response = search_field(
        filtered, basis, pixel_size=pixel_size, reach=_reach(parameters), n_angles=n_angles
    )
    area = float(search.is_searched.sum()) * pixel_size**2
    expected = template_noise_peaks(basis, templates.frequency, area=area)
    return _rounds(search, filtered, basis, response, expected, parameters)


def _rounds(
    search: SearchField,
    filtered: Tensor,
    basis: SteerableBasis,
    response: BestResponse,
    expected: NoisePeaks,
    parameters: TemplateParameters,
) -> _Search:
    """Measure the local noise with the particles taken out, until they stay the same."""
    pixel_size, diameter = search.pixel_size, parameters.diameter
    is_background = is_ordinary = search.is_valid
    quiet = noise_threshold(parameters.false_positives, expected=expected)
    n_before = -1
    for _ in range(_ROUNDS):
        quiet_scale = _local_deviation(
            response.energy, is_background, radius=max(1, round(_WINDOW * diameter / pixel_size))
        )
        scale = quiet_scale * _misfit(response, quiet_scale, basis.n_functions)
        scores = response.best / scale
        pixels = _peaks(scores, search.is_searched, parameters.distance / pixel_size)
        heights = scores[pixels[:, 0], pixels[:, 1]]
        descending = heights.double().cpu().numpy()
        cut = discovery_threshold(  # generous: what may be a particle is no background
            descending, threshold=quiet, false_share=0.5, at_least=20, expected=expected
        )
        n_now = int((descending >= cut).sum())
        if abs(n_now - n_before) <= 0.02 * n_now:
            break
        n_before = n_now
        cleared = exclude_discs(
            is_ordinary, pixels[heights >= cut], radius=_BACKGROUND_REACH * diameter / pixel_size
        )
        if cleared.sum() < _LEAST_BACKGROUND * is_ordinary.sum():
            break
        is_background = cleared
    threshold = discovery_threshold(
        descending,
        threshold=quiet,
        false_share=_FALSE_SHARE,
        at_least=_CROWDED,
        expected=expected,
    )
    if parameters.threshold is not None:
        threshold = parameters.threshold
    return _Search(filtered, basis, scores, scale, pixels, threshold, is_background)


def _local_deviation(energy: Tensor, is_background: Tensor, *, radius: int) -> Tensor:
    """Root of the mean energy of the background nearby; of all of it where there is little."""
    weight = is_background.to(energy.dtype)
    mean = (energy * weight).sum() / weight.sum().clamp_min(1)
    share = local_mean(weight, radius=radius)
    missing = _MINIMUM_SHARE * (1 - share).clamp_min(0)
    local = (local_mean(energy * weight, radius=radius) + missing * mean) / (share + missing)
    return local.clamp_min(1e-20).sqrt()


def _misfit(response: BestResponse, scale: Tensor, n_functions: int) -> Tensor:
    """Deviation of what the best template leaves unexplained, over that of noise; at least 1."""
    freedom = max(n_functions - 1, 1)
    left = (response.total - response.best.square()) / (freedom * scale.square())
    chance = _CHANCE * math.sqrt(2 / freedom)
    return (left - chance).clamp_min(1).sqrt()


def _peaks(scores: Tensor, is_searched: Tensor, min_distance: float) -> Tensor:
    """Pixels of the peaks that keep their distance, best first."""
    searched = torch.where(is_searched, scores, -torch.inf)
    pixels = local_maxima(searched, radius=max(1, int(0.4 * min_distance)), floor=0.0)
    kept = suppress_close(pixels.double().cpu().numpy(), min_distance=min_distance)
    return pixels[torch.from_numpy(kept).to(pixels.device)]


def _as_picks(
    search: SearchField, found: _Search, parameters: TemplateParameters, n_angles: int
) -> FieldPicks:
    matches = match_points(
        found.filtered,
        found.pixels,
        found.basis,
        pixel_size=search.pixel_size,
        reach=_reach(parameters),
        n_angles=n_angles,
    )
    scores = matches.score / found.scale[found.pixels[:, 0], found.pixels[:, 1]]
    allowed = _is_allowed(search, found, parameters)
    order = torch.sort(scores[allowed], descending=True, stable=True).indices
    chosen = allowed.nonzero()[:, 0][order]
    picks = search.as_picks(
        (found.pixels + matches.offset_yx)[chosen],
        scores=scores[chosen],
        diameters=torch.full_like(scores[chosen], parameters.diameter),
        threshold=found.threshold,
        best=found.best if parameters.write_fom_maps else None,
    )
    numbers: NDArray[np.int64] = matches.template[chosen].cpu().numpy() + 1
    return picks._replace(class_number=numbers, psi=matches.psi[chosen].double().cpu().numpy())


def _is_allowed(search: SearchField, found: _Search, parameters: TemplateParameters) -> Tensor:
    """Which peaks lie on a disc as quiet and as bright as RELION's noise criteria ask."""
    y, x = found.pixels[:, 0], found.pixels[:, 1]
    allowed = torch.ones_like(y, dtype=torch.bool)
    if parameters.max_noise_deviation is None and parameters.min_noise_mean is None:
        return allowed
    background = search.field.image[found.is_background]
    spread, mean = torch.std_mean(background) if len(background) > 1 else (1.0, 0.0)
    image = torch.where(search.is_valid, (search.field.image - mean) / spread, 0.0)
    local, square = _disc_means(
        torch.stack([image, image.square()]), radius=parameters.diameter / 2 / search.pixel_size
    )[:, y, x]
    if parameters.max_noise_deviation is not None:
        deviation = (square - local.square()).clamp_min(0).sqrt()
        allowed &= deviation <= parameters.max_noise_deviation
    if parameters.min_noise_mean is not None:
        allowed &= local >= parameters.min_noise_mean
    return allowed


def _disc_means(images: Tensor, *, radius: float) -> Tensor:
    """Mean over the disc about each pixel, (k, y, x); the field goes on periodically."""
    height, width = images.shape[-2:]
    rows, columns = (
        torch.fft.fftfreq(n, 1 / n, device=images.device) for n in (height, width)
    )  # offsets from the first pixel, periodically
    disc = (torch.hypot(rows[:, None], columns[None, :]) <= radius).to(images.dtype)
    product = torch.fft.rfft2(images) * torch.fft.rfft2(disc / disc.sum())
    means: Tensor = torch.fft.irfft2(product, s=(height, width))
    return means


def template_bytes(
    side: int, pixel_size: float, *, templates: Templates, parameters: TemplateParameters
) -> int:
    """Estimate the peak memory of `pick_template`, templates included.

    Parameters
    ----------
    side
        Of the micrograph, px.
    pixel_size
        A/px of the micrograph.
    templates, parameters
        As for `pick_template`.
    """
    count, orders, _ = templates.harmonics.shape
    fitting = math.ceil((math.pi * parameters.diameter / (2 * parameters.low_pass)) ** 2)
    work_size = max(pixel_size, parameters.low_pass / 2)
    work = math.ceil(side * pixel_size / work_size)
    search = search_bytes(
        work,
        n_functions=min(fitting, 4 * count * orders),
        pixel_size=work_size,
        reach=_reach(parameters),
    )
    return 60 * side**2 + 150 * work**2 + search + templates.harmonics.nbytes * 3 // 2


def _reach(parameters: TemplateParameters) -> float:
    """How far from its centre a masked and filtered template is not 0, A."""
    return 0.6 * parameters.diameter + parameters.low_pass
