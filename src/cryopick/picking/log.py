"""Pick blobs of a known size range without a template (the default mode of ``pick log``).

1. The field is shrunk, clipped and normalised; damaged borders, ice and carbon are masked.
2. It is correlated with discs (Laplacian of Gaussian) and hollow shells over the size range.
3. Responses become z-scores against the noise of the background nearby, which is measured with
   the particles taken out; the threshold follows from the number of peaks that noise can make.
4. The mean radial profile of the picks of one half of the field, whatever the lens made of it, is
   sought in the other half, and steps 3 and the threshold are repeated. As no half is judged by
   what was learned from itself, noise does not come to look like particles; only along the
   seam, over one profile's width, are the two responses blended.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from cryopick.errors import DataError
from cryopick.image.filters import high_pass, local_mean, log_disc, sphere_shell
from cryopick.image.fourier import frequency_grid
from cryopick.picking.detection import Detections, detect
from cryopick.picking.field import WorkingField, prepare_field
from cryopick.picking.field_masks import contamination
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.log_parameters import LogParameters
from cryopick.picking.radial_profile import learn_profile, profile_response
from cryopick.picking.size import measure_diameters

__all__ = ["pick_log"]

_PIXELS_PER_DIAMETER = 12  # working pixels across the smallest particle
_FEWEST_PIXELS = 4  # across the smallest particle
_SIZES = 3  # per kind of filter
_SMALLER = 0.8  # smallest filter over smallest diameter: the lens makes particles look smaller
_HOLLOWNESS = 0.6  # inner over outer diameter of the shells
_KINDS = 2  # discs and shells
_WINDOW = 1.25  # radius of the noise window, in largest diameters
_PROFILE_REACH = 0.85  # radius of the learned profile, in largest diameters
_BACKGROUND_REACH = 0.6  # radius cleared about a particle, in largest diameters
_FALSE_SHARE = 0.1  # of the picks of a crowded field may be noise


class _Search(NamedTuple):
    """A field and where and how to search it, in working pixels."""

    field: WorkingField
    image_rfft: Tensor  # of the high-passed field, 0 where it is not valid
    frequency: Tensor  # 1/A
    is_valid: Tensor
    is_searched: Tensor


def pick_log(micrograph: Tensor, *, pixel_size: float, parameters: LogParameters) -> FieldPicks:
    """Find particles of a size range in one micrograph.

    Parameters
    ----------
    micrograph
        (y, x), real, any device.
    pixel_size
        A/px.
    parameters
        Of mode "default".

    Returns
    -------
    FieldPicks
        All peaks above one standard deviation of the noise, with the z-score as figure of merit.

    Raises
    ------
    DataError
        If a pixel is not finite, the field is constant or its pixels are too coarse.
    ShapeError
        If `micrograph` has not two axes.
    """
    if parameters.min_diameter < _FEWEST_PIXELS * pixel_size:
        raise DataError(
            "micrograph",
            must=f"show the smallest particle over {_FEWEST_PIXELS} px",
            got=f"{parameters.min_diameter / pixel_size:.1f} px",
            remedy="Check --pixel-size and --min-diameter",
        )
    search = _prepare(micrograph, pixel_size, parameters)
    found = _detect(search, _filter_bank(search, parameters), parameters, n_kinds=_KINDS)
    hollowness = torch.where(found.which < _SIZES, 0.0, _HOLLOWNESS)
    if parameters.value("learn_profile"):
        learned = _learned_response(search, found, parameters)
        if learned is not None:
            found = _detect(search, learned[None], parameters, n_kinds=1)
    return _as_picks(search, found, hollowness, parameters)


def _prepare(micrograph: Tensor, pixel_size: float, parameters: LogParameters) -> _Search:
    smallest, largest = parameters.min_diameter, parameters.max_diameter
    field = prepare_field(
        micrograph,
        pixel_size=pixel_size,
        working_pixel_size=smallest / _PIXELS_PER_DIAMETER,
        white_particles=parameters.white_particles,
    )
    is_valid = field.is_valid
    if parameters.value("mask"):
        is_valid = is_valid & ~contamination(field, min_diameter=smallest, max_diameter=largest)
    shape = field.image.shape
    fy, fx = frequency_grid(
        (shape[0], shape[1]), pixel_size=field.pixel_size, device=field.image.device
    )
    frequency = torch.hypot(fy, fx)
    image = _filled(field.image, is_valid, radius=round(largest / field.pixel_size))
    image_rfft = torch.fft.rfft2(image) * high_pass(frequency, length=largest)
    depth = ndimage.distance_transform_edt(field.is_valid.cpu().numpy())
    is_deep = torch.from_numpy(depth > smallest / 2 / field.pixel_size).to(is_valid.device)
    is_searched = is_deep & is_valid
    return _Search(field, image_rfft, frequency, is_valid, is_searched)


def _filled(image: Tensor, is_valid: Tensor, *, radius: int) -> Tensor:
    """Continue the valid surroundings into masked areas, so that their edges do not ring."""
    if bool(is_valid.all()):
        return image
    weight = is_valid.to(image.dtype)
    nearby = local_mean(image * weight, radius=radius)
    share = local_mean(weight, radius=radius)
    return torch.where(is_valid, image, nearby / share.clamp_min(1e-3))


def _filter_bank(search: _Search, parameters: LogParameters) -> Tensor:
    sizes = np.geomspace(_SMALLER * parameters.min_diameter, parameters.max_diameter, _SIZES)
    shape = search.field.image.shape
    responses = [
        torch.fft.irfft2(search.image_rfft * transfer, s=shape)
        for transfer in (
            *(log_disc(search.frequency, diameter=d) for d in sizes),
            *(sphere_shell(search.frequency, diameter=d, hollowness=_HOLLOWNESS) for d in sizes),
        )
    ]
    return torch.stack(responses)


def _detect(
    search: _Search, responses: Tensor, parameters: LogParameters, *, n_kinds: int
) -> Detections:
    pixel_size = search.field.pixel_size
    return detect(
        responses,
        is_valid=search.is_valid,
        is_searched=search.is_searched,
        n_kinds=n_kinds,
        min_distance=parameters.value("min_distance") * parameters.min_diameter / pixel_size,
        disc_radius=_BACKGROUND_REACH * parameters.max_diameter / pixel_size,
        window_radius=max(1, round(_WINDOW * parameters.max_diameter / pixel_size)),
        false_positives=parameters.value("false_positives"),
        false_share=_FALSE_SHARE,
    )


def _learned_response(
    search: _Search, found: Detections, parameters: LogParameters
) -> Tensor | None:
    """Seek in each half of the field what the picks of the other half look like."""
    image = search.field.image
    shape = (image.shape[0], image.shape[1])
    high_passed = torch.fft.irfft2(search.image_rfft, s=shape)
    high_passed = torch.where(search.is_valid, high_passed, 0.0)
    radius = _PROFILE_REACH * parameters.max_diameter / search.field.pixel_size
    is_pick = found.scores >= found.threshold
    is_left = found.positions[:, 1] < shape[1] / 2
    left = learn_profile(high_passed, found.positions[is_pick & is_left], radius=radius)
    right = learn_profile(high_passed, found.positions[is_pick & ~is_left], radius=radius)
    if left is None or right is None:
        return None
    image_rfft = torch.fft.rfft2(high_passed)
    columns = torch.arange(shape[1], device=image.device)
    share = ((columns - shape[1] / 2) / radius + 0.5).clamp(0, 1)  # of the left half's profile
    return profile_response(image_rfft, left, shape=shape) * share + profile_response(
        image_rfft, right, shape=shape
    ) * (1 - share)


def _as_picks(
    search: _Search, found: Detections, hollowness: Tensor, parameters: LogParameters
) -> FieldPicks:
    field = search.field
    positions = found.positions.double().cpu().numpy()
    diameters = measure_diameters(
        search.image_rfft,
        search.frequency,
        found.pixels,
        shape=(field.image.shape[0], field.image.shape[1]),
        min_diameter=parameters.min_diameter,
        max_diameter=parameters.max_diameter,
        hollowness=hollowness[found.pixels[:, 0], found.pixels[:, 1]],
    )
    maps = {}
    if parameters.write_fom_maps:
        rows, columns = field.is_inside.any(1), field.is_inside.any(0)
        maps = {
            "fom": found.best[rows][:, columns].float().cpu().numpy(),
            "mask": search.is_searched[rows][:, columns].float().cpu().numpy(),
        }
    return FieldPicks(
        x=positions[:, 1] * field.scale[1] + field.offset[1],
        y=positions[:, 0] * field.scale[0] + field.offset[0],
        fom=found.scores.double().cpu().numpy(),
        diameter=diameters.double().cpu().numpy(),
        threshold=found.threshold,
        valid_fraction=float(search.is_valid.sum() / field.is_inside.sum()),
        maps=maps,
    )
