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

import numpy as np
import torch
from torch import Tensor

from cryopick.errors import DataError
from cryopick.image.filters import log_disc, sphere_shell
from cryopick.picking.detection import Detections, detect
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.log_parameters import LogParameters
from cryopick.picking.radial_profile import learned_response
from cryopick.picking.search_field import SearchField, prepare_search
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
    search = prepare_search(
        micrograph,
        pixel_size=pixel_size,
        working_pixel_size=parameters.min_diameter / _PIXELS_PER_DIAMETER,
        min_diameter=parameters.min_diameter,
        max_diameter=parameters.max_diameter,
        edge_distance=parameters.min_diameter / 2,
        white_particles=parameters.white_particles,
        mask=parameters.value("mask"),
    )
    found = _detect(search, _filter_bank(search, parameters), parameters, n_kinds=_KINDS)
    hollowness = torch.where(found.which < _SIZES, 0.0, _HOLLOWNESS)
    if parameters.value("learn_profile"):
        learned = learned_response(
            search.valid_image(search.image_rfft),
            found.positions[found.scores >= found.threshold],
            radius=_PROFILE_REACH * parameters.max_diameter / search.pixel_size,
        )
        if learned is not None:
            found = _detect(search, learned[None], parameters, n_kinds=1)
    return _as_picks(search, found, hollowness, parameters)


def _filter_bank(search: SearchField, parameters: LogParameters) -> Tensor:
    sizes = np.geomspace(_SMALLER * parameters.min_diameter, parameters.max_diameter, _SIZES)
    responses = [
        torch.fft.irfft2(search.image_rfft * transfer, s=search.shape)
        for transfer in (
            *(log_disc(search.frequency, diameter=d) for d in sizes),
            *(sphere_shell(search.frequency, diameter=d, hollowness=_HOLLOWNESS) for d in sizes),
        )
    ]
    return torch.stack(responses)


def _detect(
    search: SearchField, responses: Tensor, parameters: LogParameters, *, n_kinds: int
) -> Detections:
    pixel_size = search.pixel_size
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


def _as_picks(
    search: SearchField, found: Detections, hollowness: Tensor, parameters: LogParameters
) -> FieldPicks:
    diameters = measure_diameters(
        search.image_rfft,
        search.frequency,
        found.pixels,
        shape=search.shape,
        min_diameter=parameters.min_diameter,
        max_diameter=parameters.max_diameter,
        hollowness=hollowness[found.pixels[:, 0], found.pixels[:, 1]],
    )
    return search.as_picks(
        found.positions,
        scores=found.scores,
        diameters=diameters,
        threshold=found.threshold,
        best=found.best if parameters.write_fom_maps else None,
    )
