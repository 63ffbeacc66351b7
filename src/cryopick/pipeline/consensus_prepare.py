"""Micrographs as the networks of a consensus see them, phase-flipped where that is asked for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.ctf.field_flip import flip_field
from cryopick.errors import DataError
from cryopick.io.micrograph import read_micrograph
from cryopick.picking.consensus_network import ConsensusField
from cryopick.picking.network_field import prepare_network_field
from cryopick.pipeline.consensus_sets import CandidateField

__all__ = ["PreparedCandidates", "prepare_candidates"]

Floats = NDArray[np.float64]


class PreparedCandidates(NamedTuple):
    """A micrograph as the network sees it, and how its pixels lie in the micrograph."""

    seen: ConsensusField
    scale: Floats  # (2,) y and x, micrograph px per px
    offset: Floats  # (2,) y and x, micrograph px

    def in_micrograph(self, places: Floats) -> Floats:
        """Bring (n, 2) y and x, px of the image, to x and y in px of the micrograph."""
        return np.asarray((places * self.scale + self.offset)[:, ::-1])

    def in_image(self, positions: Floats) -> Floats:
        """Bring (n, 2) x and y in px of the micrograph to y and x, px of the image."""
        return np.asarray((positions[:, ::-1] - self.offset) / self.scale)


def prepare_candidates(
    field: CandidateField,
    *,
    diameter: float,
    white_particles: bool,
    mask: bool,
    ctf: FieldCtf | None = None,
) -> PreparedCandidates:
    """Read a micrograph as the network sees it, with its candidates.

    Parameters
    ----------
    field
        The micrograph and its candidates.
    diameter
        Of the particle, A.
    white_particles
        Whether particles are already white.
    mask
        Whether to leave out ice, carbon and holes.
    ctf
        With which the phases of the micrograph are flipped first; None leaves them.

    Raises
    ------
    FormatError
        If the micrograph cannot be read.
    DataError
        If it is constant or not finite, or the particle too small to be seen.
    """
    micrograph = torch.from_numpy(read_micrograph(field.path))
    try:
        if ctf is not None:
            micrograph = flip_field(micrograph, ctf, pixel_size=field.pixel_size)
        prepared = prepare_network_field(
            micrograph,
            pixel_size=field.pixel_size,
            diameter=diameter,
            edge_distance=0.0,
            white_particles=white_particles,
            mask=mask,
        )
    except DataError as error:
        if error.what == "micrograph":  # pure functions know no file
            error.what = str(field.path)
        raise
    working = prepared.search.field
    scale, offset = np.array(working.scale), np.array(working.offset)
    places = (field.found.positions[:, ::-1] - offset) / scale
    seen = ConsensusField(prepared.image, prepared.search.is_valid, places, name=field.micrograph)
    return PreparedCandidates(seen, scale, offset)
