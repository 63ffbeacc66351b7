"""Micrographs as Topaz gets them, and its peaks as picks of the micrograph."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.checks import require_shape
from cryopick.errors import DataError
from cryopick.image.fourier import fourier_resize
from cryopick.picking.field import require_usable, robust_moments
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.search_field import prepare_search

__all__ = [
    "SearchArea",
    "find_search_area",
    "picks_of_peaks",
    "shrink_for_topaz",
    "shrunk_shape",
]

_CLIP = 10.0  # robust standard deviations: hot pixels must not ring
_MASK_PIXELS = 12  # across a particle, for the mask
_UNEVEN = 1.02  # a field this much coarser than the others may stay as it is


class SearchArea(NamedTuple):
    """Where particles may lie in a micrograph: its px = px here * scale + offset."""

    is_searched: NDArray[np.bool_]  # (y, x)
    scale: tuple[float, float]  # (y, x) micrograph px
    offset: tuple[float, float]  # (y, x) micrograph px
    valid_fraction: float  # of the field that is neither damaged nor contaminated

    def contains(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which positions, (n,) px of the micrograph, lie in the area."""
        height, width = self.is_searched.shape
        rows = np.rint((y - self.offset[0]) / self.scale[0]).astype(int).clip(0, height - 1)
        columns = np.rint((x - self.offset[1]) / self.scale[1]).astype(int).clip(0, width - 1)
        return np.asarray(self.is_searched[rows, columns], np.bool_)


def shrunk_shape(
    size: tuple[int, int], *, pixel_size: float, working_pixel_size: float
) -> tuple[int, int]:
    """Size of a micrograph as Topaz gets it: at most as large as the pixel size asks for.

    Parameters
    ----------
    size
        (y, x) of the micrograph, px.
    pixel_size, working_pixel_size
        A/px of the micrograph, and as Topaz is to get it.

    Raises
    ------
    DataError
        If the micrograph is coarser.

    Examples
    --------
    >>> shrunk_shape((4092, 5760), pixel_size=1.0, working_pixel_size=4.0)
    (1023, 1440)
    """
    factor = working_pixel_size / pixel_size
    if factor * _UNEVEN < 1:
        raise DataError(
            "micrograph",
            must=f"have pixels of at most {working_pixel_size:g} A, as the others for Topaz",
            got=f"{pixel_size:g} A",
            remedy="Pick micrographs of such different pixel sizes on their own",
        )
    factor = max(factor, 1.0)
    return tuple(max(1, int(side / factor + 1e-6)) for side in size)  # type: ignore[return-value]


def shrink_for_topaz(
    micrograph: Tensor, *, shape: tuple[int, int], white_particles: bool = False
) -> Tensor:
    """Shrink a micrograph by cropping its Fourier transform, and normalise it.

    As RELION does in place of ``topaz preprocess``: mean 0 and standard deviation 1 over the
    field. Beforehand, pixels ten robust standard deviations from the median are clipped.

    Parameters
    ----------
    micrograph
        (y, x), real.
    shape
        (y, x) of the result, px.
    white_particles
        Whether the contrast is to be inverted: Topaz's own models know dark particles.

    Returns
    -------
    Tensor
        (shape[0], shape[1]) float32. Pixel i lies at i times the ratio of the sizes.

    Raises
    ------
    DataError
        If a pixel is not finite or the field is constant.
    ShapeError
        If `micrograph` has not two axes.
    """
    require_shape(micrograph, "y x", name="micrograph")
    require_usable(micrograph)
    center, spread = robust_moments(micrograph)
    image = micrograph.to(torch.float32) - center
    if spread > 0:
        image = image.clamp(-_CLIP * spread, _CLIP * spread)
    image = fourier_resize(image, shape=shape)
    image = (image - image.mean()) / image.std().clamp_min(1e-20)
    return -image if white_particles else image


def find_search_area(
    micrograph: Tensor, *, pixel_size: float, diameter: float, edge_distance: float, mask: bool
) -> SearchArea:
    """Find where particles may lie: not at the edge, not on what is damaged or contaminated.

    Parameters
    ----------
    micrograph
        (y, x), real.
    pixel_size
        A/px.
    diameter
        Of a particle, A.
    edge_distance
        Least distance of a particle's centre from the edge of what is not damaged, A.
    mask
        Whether to leave out ice, carbon and holes.

    Raises
    ------
    DataError
        If a pixel is not finite or the field is constant.
    """
    search = prepare_search(
        micrograph,
        pixel_size=pixel_size,
        working_pixel_size=diameter / _MASK_PIXELS,
        min_diameter=diameter,
        max_diameter=diameter,
        edge_distance=edge_distance,
        white_particles=False,
        mask=mask,
    )
    field = search.field
    return SearchArea(
        search.is_searched.cpu().numpy(),
        field.scale,
        field.offset,
        float(search.is_valid.sum() / field.is_inside.sum()),
    )


def picks_of_peaks(
    columns: NDArray[np.float64],
    rows: NDArray[np.float64],
    scores: NDArray[np.float64],
    *,
    scale: tuple[float, float],
    area: SearchArea,
    diameter: float,
    threshold: float,
) -> FieldPicks:
    """Bring Topaz's peaks to the micrograph and leave out those where no particle may lie.

    Topaz gives whole pixels of the image it saw; nothing finer can be known from its table.

    Parameters
    ----------
    columns, rows
        (n,) px of the image that Topaz saw.
    scores
        (n,) logarithms of the odds.
    scale
        (y, x) micrograph px per px of that image.
    area
        Where particles may lie.
    diameter
        Written beside each peak, A.
    threshold
        Least score of a pick.
    """
    x, y = columns * scale[1], rows * scale[0]
    is_kept = area.contains(x, y)
    order = np.argsort(-scores[is_kept], kind="stable")
    x, y, scores = x[is_kept][order], y[is_kept][order], scores[is_kept][order]
    return FieldPicks(
        x=x,
        y=y,
        fom=scores,
        diameter=np.full(len(scores), diameter),
        threshold=threshold,
        valid_fraction=area.valid_fraction,
        maps={},
    )
