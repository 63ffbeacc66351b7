"""Particles and non-particles that a user names, to learn from or to test on.

A file holds positions on the micrographs of the consensus, or boxed particles of any others. Of
a table of particles that names these micrographs, the positions count: there the network sees
what is around them, and none is scored by a network that has learned from its micrograph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.errors import DataError, TableError
from cryopick.picking.consensus_examples import LEAST_BOX, BoxSheet, lay_out_boxes
from cryopick.pipeline.consensus_sets import read_set
from cryopick.pipeline.extraction_plan import open_coordinates
from cryopick.pipeline.job import identity_of
from cryopick.pipeline.particle_images import ParticleImages
from cryopick.tables.model import Micrographs, Particles
from cryopick.tables.names import MicrographNames
from cryopick.tables.paths import resolve_path

__all__ = ["Examples", "read_examples"]

_AT_ONCE = 512  # boxes

Floats = NDArray[np.float64]


class Examples(NamedTuple):
    """Examples of one kind, as positions or as boxes."""

    path: Path
    places: dict[str, Floats]  # (n, 2) x and y, px, by the name of the micrograph
    boxes: ParticleImages | None  # None where there are places

    @property
    def n_examples(self) -> int:
        """Examples in all."""
        n_boxes = 0 if self.boxes is None else len(self.boxes)
        return n_boxes + sum(len(p) for p in self.places.values())

    @property
    def identity(self) -> str:
        """Name what the file holds, so that a change of it is noticed."""
        digest = hashlib.sha256()
        for name, places in sorted(self.places.items()):
            digest.update(name.encode() + np.round(places, 3).astype("<f8").tobytes())
        if self.boxes is not None:
            table = self.boxes.particles
            for column in ("image", "image_index"):
                digest.update(" ".join(map(str, table.rows[column])).encode())
            stacks = [resolve_path(str(n), table.source) for n in table.rows["image"].unique()]
            digest.update(identity_of(*stacks).encode())
        return digest.hexdigest()[:16]

    def in_field(self, name: str) -> Floats:
        """Positions on a micrograph, (n, 2) x and y, px."""
        return self.places.get(name, np.empty((0, 2)))

    def sheets(self, *, diameter: float, most: int = -1, seed: int = 0) -> Iterator[BoxSheet]:
        """Read the boxes as the network sees them, some at a time; broken ones are left out.

        Parameters
        ----------
        diameter
            Of the particle, A.
        most
            Boxes at most, drawn at random; -1 for all.
        seed
            Of the boxes that are drawn.

        Yields
        ------
        BoxSheet
            As many as are needed.

        Raises
        ------
        FormatError
            If a stack cannot be read any more.
        """
        if self.boxes is None:
            return
        chosen = np.arange(len(self.boxes))
        if 0 <= most < len(chosen):
            chosen = np.sort(np.random.default_rng([seed, 17]).permutation(len(chosen))[:most])
        for start in range(0, len(chosen), _AT_ONCE):
            rows = chosen[start : start + _AT_ONCE].astype(np.int64)
            images = self.boxes.read(rows)
            is_good = torch.tensor([int(row) not in self.boxes.bad for row in rows])
            yield from lay_out_boxes(
                images[is_good], pixel_size=self.boxes.pixel_size, diameter=diameter
            )


def read_examples(
    path: Path, micrographs: Micrographs, *, diameter: float, phase_flip: bool
) -> Examples:
    """Read examples, and refuse what no network can see.

    Parameters
    ----------
    path
        Picks of any program on these micrographs; or a table of particles, white in their images.
    micrographs
        Of the consensus.
    diameter
        Of the particle, A.
    phase_flip
        Whether the phases of the micrographs are flipped: those of boxes must be, too.

    Raises
    ------
    DataError
        If there is none, the boxes are smaller than 1.2 diameters, or the table says that their
        phases were treated otherwise than those of the micrographs.
    TableError, FormatError
        If the table or a stack is missing, broken, or of other micrographs.
    """
    table = open_coordinates(path)
    if (
        isinstance(table, Particles)
        and "image" in table.rows
        and not _names_any(table, micrographs)
    ):
        boxes = ParticleImages.open(table)
        _require_visible(path, boxes, diameter)
        _require_phases(path, table, phase_flip=phase_flip)
        return Examples(path, {}, boxes)
    found = Examples(path, read_set(path, micrographs).positions, None)
    if not found.n_examples:
        raise DataError(
            str(path),
            must="hold particles on these micrographs",
            got="none",
            remedy="Give another file",
        )
    return found


def _names_any(table: Particles, micrographs: Micrographs) -> bool:
    """Whether a table names any of the micrographs."""
    if "micrograph" not in table.rows or not {"x", "y"} <= set(table.rows):
        return False
    finder = MicrographNames([str(n) for n in micrographs.rows["micrograph"]])
    for name in table.rows["micrograph"].unique():
        try:
            finder.find(str(name), source=str(table.source))
        except TableError:
            continue
        return True
    return False


def _require_visible(path: Path, boxes: ParticleImages, diameter: float) -> None:
    side, least = boxes.box_size * boxes.pixel_size, LEAST_BOX * diameter
    if side < least:
        raise DataError(
            str(path),
            must=f"have boxes of at least {LEAST_BOX:g} diameters, {least:g} A",
            got=f"{side:g} A",
            remedy="Extract them in a larger box, or give their coordinates",
        )


def _require_phases(path: Path, table: Particles, *, phase_flip: bool) -> None:
    if "is_phase_flipped" not in table.optics:
        return
    is_flipped = bool((table.optics["is_phase_flipped"] != 0).any())
    if is_flipped != phase_flip:
        states = {True: "flipped phases", False: "phases as recorded"}
        raise DataError(
            str(path),
            must=f"have {states[phase_flip]}, as the micrographs are seen",
            got=states[is_flipped],
            remedy="Extract them again, or choose --phase-flip alike",
        )
