"""A micrograph as the network sees it: `PARTICLE` pixels to a diameter, even, unit noise."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cryopick.errors import DataError
from cryopick.image.robust import middle_and_spread
from cryopick.picking.network import PARTICLE
from cryopick.picking.search_field import SearchField, prepare_search

__all__ = ["NetworkField", "prepare_network_field", "require_visible"]

_CLIP = 6.0  # deviations
_LEAST = 6.0  # px of the micrograph to a diameter, for anything to be told of a particle
_SMALLEST, _LARGEST = 0.8, 1.25  # diameters: sizes that masks and filters spare


class NetworkField(NamedTuple):
    """What the network sees, and where it comes from."""

    image: Tensor  # (y, x) float32, particles white; 0 where the field is not valid
    search: SearchField


def prepare_network_field(
    micrograph: Tensor,
    *,
    pixel_size: float,
    diameter: float,
    edge_distance: float,
    white_particles: bool,
    mask: bool,
) -> NetworkField:
    """Make a micrograph ready for the network.

    Parameters
    ----------
    micrograph
        (y, x), real, any device.
    pixel_size
        A/px of `micrograph`.
    diameter
        Of the particle, A.
    edge_distance
        Least distance of a pick from the edge of what is not damaged, A.
    white_particles
        Whether particles are already white.
    mask
        Whether to leave out ice, carbon and holes.

    Returns
    -------
    NetworkField
        Brought to 24 px a diameter, without what is much longer than a particle, divided by the
        robust deviation of its valid part and clipped at 6.

    Raises
    ------
    DataError
        If a pixel is not finite, the field is constant, or a particle is smaller than 6 px.
    ShapeError
        If `micrograph` has not two axes.
    """
    require_visible(diameter, pixel_size=pixel_size)
    search = prepare_search(
        micrograph,
        pixel_size=pixel_size,
        working_pixel_size=diameter / PARTICLE,
        min_diameter=_SMALLEST * diameter,
        max_diameter=_LARGEST * diameter,
        edge_distance=edge_distance,
        white_particles=white_particles,
        mask=mask,
        enlarge=True,
    )
    image = search.valid_image(search.image_rfft)
    valid = image[search.is_valid]
    if len(valid):
        middle, spread = middle_and_spread(valid)
        image = ((image - middle) / spread.clamp_min(1e-6)).clamp(-_CLIP, _CLIP)
    return NetworkField(torch.where(search.is_valid, image, 0.0).float(), search)


def require_visible(diameter: float, *, pixel_size: float) -> None:
    """Refuse particles of which too few pixels are seen.

    Parameters
    ----------
    diameter
        Of the particle, A.
    pixel_size
        A/px of the micrograph.

    Raises
    ------
    DataError
        If the diameter is below 6 px.
    """
    if diameter < _LEAST * pixel_size:
        raise DataError(
            "diameter",
            must=f"be at least {_LEAST:g} px of the micrograph, {_LEAST * pixel_size:g} A",
            got=f"{diameter:g} A",
            remedy="Check --diameter and --pixel-size, or give less binned micrographs",
        )
