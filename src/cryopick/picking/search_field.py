"""A micrograph ready to be searched: small, masked, filled, high-passed and transformed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from cryopick.image.filters import high_pass, local_mean
from cryopick.image.fourier import frequency_grid
from cryopick.picking.field import WorkingField, prepare_field
from cryopick.picking.field_masks import contamination
from cryopick.picking.field_picks import FieldPicks

__all__ = ["SearchField", "prepare_search"]


class SearchField(NamedTuple):
    """A field and where and how to search it, in working pixels."""

    field: WorkingField
    image_rfft: Tensor  # (y, x // 2 + 1) of the high-passed field, filled where it is not valid
    frequency: Tensor  # (y, x // 2 + 1), 1/A
    is_valid: Tensor  # (y, x) bool: neither margin, nor damaged, nor contaminated
    is_searched: Tensor  # (y, x) bool: valid, and far enough from the edge

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the field, working px."""
        return self.is_valid.shape[0], self.is_valid.shape[1]

    @property
    def pixel_size(self) -> float:
        """A per working pixel."""
        return self.field.pixel_size

    def valid_image(self, image_rfft: Tensor) -> Tensor:
        """Transform back, and put 0 where the field is not valid: (y, x)."""
        image = torch.fft.irfft2(image_rfft, s=self.shape)
        return torch.where(self.is_valid, image, 0.0)

    def as_picks(
        self,
        positions: Tensor,
        *,
        scores: Tensor,
        diameters: Tensor,
        threshold: float,
        best: Tensor | None,
    ) -> FieldPicks:
        """Say in micrograph pixels what was found in working pixels.

        Parameters
        ----------
        positions
            (n, 2) y and x, working px.
        scores, diameters
            (n,): figure of merit, and A.
        threshold
            From which score on a peak is a pick.
        best
            (y, x) map of scores to keep, with the map of what was searched; None for no maps.
        """
        field = self.field
        found = positions.double().cpu().numpy()
        maps = {}
        if best is not None:
            rows, columns = field.is_inside.any(1), field.is_inside.any(0)
            maps = {
                "fom": best[rows][:, columns].float().cpu().numpy(),
                "mask": self.is_searched[rows][:, columns].float().cpu().numpy(),
            }
        return FieldPicks(
            x=found[:, 1] * field.scale[1] + field.offset[1],
            y=found[:, 0] * field.scale[0] + field.offset[0],
            fom=scores.double().cpu().numpy(),
            diameter=diameters.double().cpu().numpy(),
            threshold=threshold,
            valid_fraction=float(self.is_valid.sum() / field.is_inside.sum()),
            maps=maps,
        )


def prepare_search(
    micrograph: Tensor,
    *,
    pixel_size: float,
    working_pixel_size: float,
    min_diameter: float,
    max_diameter: float,
    edge_distance: float,
    white_particles: bool,
    mask: bool,
    enlarge: bool = False,
) -> SearchField:
    """Make a micrograph ready to be searched for particles of a size range.

    Parameters
    ----------
    micrograph
        (y, x), real, any device.
    pixel_size
        A/px of `micrograph`.
    working_pixel_size
        A/px to shrink to; a micrograph that is coarser stays as it is.
    min_diameter, max_diameter
        Of the particles, A. Structures much longer than the largest are filtered out.
    edge_distance
        Least distance of a particle's centre from the edge of what is not damaged, A.
    white_particles
        Whether particles are already white; else the contrast is inverted.
    mask
        Whether to leave out ice, carbon and holes.
    enlarge
        Bring a coarser micrograph to the working pixel size, too.

    Raises
    ------
    DataError
        If a pixel is not finite or the field is constant.
    ShapeError
        If `micrograph` has not two axes.
    """
    field = prepare_field(
        micrograph,
        pixel_size=pixel_size,
        working_pixel_size=working_pixel_size,
        white_particles=white_particles,
        enlarge=enlarge,
    )
    is_valid = field.is_valid
    if mask:
        is_valid = is_valid & ~contamination(
            field, min_diameter=min_diameter, max_diameter=max_diameter
        )
    shape = (field.image.shape[0], field.image.shape[1])
    fy, fx = frequency_grid(shape, pixel_size=field.pixel_size, device=field.image.device)
    frequency = torch.hypot(fy, fx)
    image = _filled(field.image, is_valid, radius=round(max_diameter / field.pixel_size))
    image_rfft = torch.fft.rfft2(image) * high_pass(frequency, length=max_diameter)
    depth = ndimage.distance_transform_edt(field.is_valid.cpu().numpy())
    is_deep = torch.from_numpy(np.asarray(depth > edge_distance / field.pixel_size))
    return SearchField(
        field, image_rfft, frequency, is_valid, is_deep.to(is_valid.device) & is_valid
    )


def _filled(image: Tensor, is_valid: Tensor, *, radius: int) -> Tensor:
    """Continue the valid surroundings into masked areas, so that their edges do not ring."""
    if bool(is_valid.all()):
        return image
    weight = is_valid.to(image.dtype)
    nearby = local_mean(image * weight, radius=radius)
    share = local_mean(weight, radius=radius)
    return torch.where(is_valid, image, nearby / share.clamp_min(1e-3))
