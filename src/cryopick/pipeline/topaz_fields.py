"""Micrographs as files for Topaz: shrunk, normalised, under short names without blanks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from cryopick.errors import DataError
from cryopick.io.micrograph import read_micrograph
from cryopick.io.mrc import write_mrc
from cryopick.picking.topaz_field import (
    SearchArea,
    find_search_area,
    shrink_for_topaz,
    shrunk_shape,
)

__all__ = ["FieldFile", "WrittenField", "field_name", "write_field"]


@dataclass(frozen=True, kw_only=True)
class FieldFile:
    """A micrograph and the file that Topaz gets of it."""

    path: Path
    target: Path
    pixel_size: float  # A/px
    working_pixel_size: float  # A/px after shrinking
    white_particles: bool
    diameter: float = 0.0  # A, to find where particles may lie; 0: not asked
    edge_distance: float = 0.0  # A
    mask: bool = False


class WrittenField(NamedTuple):
    """What Topaz got."""

    scale: tuple[float, float]  # (y, x) micrograph px per px of the file
    shape: tuple[int, int]  # (y, x) of the file, px
    area: SearchArea | None  # where particles may lie, if asked


def field_name(number: int) -> str:
    """Name of the file of the n-th micrograph, without suffix.

    Examples
    --------
    >>> field_name(3)
    'field000003'
    """
    return f"field{number:06d}"


def write_field(field: FieldFile) -> WrittenField:
    """Read a micrograph and write what Topaz gets of it.

    Parameters
    ----------
    field
        Which one, and how.

    Raises
    ------
    CryopickError
        If the micrograph is broken, without contrast or smaller than a particle, or the file
        cannot be written.
    """
    micrograph = torch.from_numpy(read_micrograph(field.path))
    size = (micrograph.shape[0], micrograph.shape[1])
    if field.diameter > min(size) * field.pixel_size:
        raise DataError(
            str(field.path),
            must=f"be larger than a particle, {field.diameter:g} A",
            got=f"a side of {min(size) * field.pixel_size:g} A",
            remedy="Check --diameter and --pixel-size, or leave the micrograph out",
        )
    try:
        shape = shrunk_shape(
            size, pixel_size=field.pixel_size, working_pixel_size=field.working_pixel_size
        )
        area = _area(micrograph, field)
        image = shrink_for_topaz(micrograph, shape=shape, white_particles=field.white_particles)
    except DataError as error:
        if error.what == "micrograph":  # pure functions know no file
            error.what = str(field.path)
        raise
    pixel_size = field.pixel_size * size[1] / shape[1]
    write_mrc(field.target, image.numpy(), pixel_size=pixel_size)
    return WrittenField((size[0] / shape[0], size[1] / shape[1]), shape, area)


def _area(micrograph: torch.Tensor, field: FieldFile) -> SearchArea | None:
    if not field.diameter:
        return None
    return find_search_area(
        micrograph,
        pixel_size=field.pixel_size,
        diameter=field.diameter,
        edge_distance=field.edge_distance,
        mask=field.mask,
    )
