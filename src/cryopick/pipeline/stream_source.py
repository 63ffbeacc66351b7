"""The images of a stream: those that are of use, shrunk where the box is large."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.errors import DataError, FormatError, TableError
from cryopick.image.fourier import fourier_resize, good_size
from cryopick.io.image_stacks import is_packed
from cryopick.io.mrc import MrcHeader
from cryopick.pipeline.class2d_source import ParticleSource
from cryopick.pipeline.particle_images import ParticleImages
from cryopick.pipeline.particle_optics import ParticleOptics
from cryopick.tables.model import Particles

__all__ = ["ImageScreen", "StreamSource", "StreamStandard", "shrunk_size"]

_LARGE = 128  # px; larger boxes are shrunk to the resolution limit
_FINER = 1.05  # the Nyquist frequency of shrunk images lies this much beyond the limit
_BATCH = 512  # images looked at together
_HOT = 20.0  # times the median deviation: such an image would outweigh hundreds
_TOLERANCE = 1e-3  # of the pixel size


def shrunk_size(*, box_size: int, pixel_size: float, resolution: float) -> int:
    """Choose the side to shrink images to, px; a box of up to 128 px stays as it is.

    Examples
    --------
    >>> shrunk_size(box_size=360, pixel_size=1.0, resolution=8.0)
    96
    >>> shrunk_size(box_size=96, pixel_size=1.0, resolution=8.0)
    96
    """
    if box_size <= _LARGE:
        return box_size
    needed = math.ceil(_FINER * box_size * pixel_size / (resolution / 2))
    return min(box_size, good_size(needed, even=True))


class StreamStandard:
    """What all tables of a stream must have in common: that of the first one.

    Parameters
    ----------
    needs_ctf
        Whether every particle must have a CTF.
    box_size, pixel_size
        Of the particles so far, px and A/px; None takes those of the first table.
    """

    def __init__(
        self, *, needs_ctf: bool, box_size: int | None = None, pixel_size: float | None = None
    ) -> None:
        self._needs_ctf = needs_ctf
        self.box_size, self.pixel_size = box_size, pixel_size

    def check(self, table: Particles) -> None:
        """Refuse a table with another box or pixel size, or without a CTF that is needed.

        Raises
        ------
        TableError
            Saying which.
        """
        name = str(table.source or "particles")
        box_size, pixel_size = self.box_size, self.pixel_size
        used = table.optics[table.optics["optics_group"].isin(table.rows["optics_group"])]
        boxes = used["box_size"].dropna().unique() if "box_size" in used else np.empty(0)
        for box in boxes:
            self._require(name, "box", int(box), box_size, "px", "extract them alike")
            box_size = int(box)
        for pixel in used["pixel_size"]:
            self._require(name, "pixel size", float(pixel), pixel_size, "A", "rescale them")
            pixel_size = pixel_size or float(pixel)
        if self._needs_ctf:
            self._require_ctf(table, name)
        self.box_size, self.pixel_size = box_size, pixel_size

    def check_stack(self, path: Path, header: MrcHeader) -> None:
        """Refuse a stack whose images cannot be read with those before.

        Raises
        ------
        FormatError
            If it is compressed, or its images are not square or of odd size.
        TableError
            If they are of another box.
        """
        height, width = header.shape[1:]
        if is_packed(path):
            raise FormatError(
                str(path),
                must="not be compressed, to be read image by image",
                got=path.suffix,
                remedy="Unpack it, and start again",
            )
        if height != width or width % 2:
            raise FormatError(
                str(path),
                must="hold square images of an even number of pixels",
                got=f"{width} x {height} px",
                remedy="Extract the particles again with an even --box-size",
            )
        self._require(str(path), "box", width, self.box_size, "px", "extract them alike")
        self.box_size = width

    def _require(
        self, name: str, what: str, found: float, wanted: float | None, unit: str, how: str
    ) -> None:
        if wanted is not None and abs(found - wanted) > _TOLERANCE * wanted:
            raise TableError(
                name,
                must=f"have the {what} of the particles before, {wanted:g} {unit}",
                got=f"{found:g} {unit}",
                remedy=f"Classify them apart, or {how}",
            )

    def _require_ctf(self, table: Particles, name: str) -> None:
        try:
            ParticleOptics(table).ctf_parameters(np.arange(len(table)))
        except TableError as error:
            raise TableError(
                name,
                must=error.must,
                got=error.got,
                remedy="Estimate the CTF and extract again, or begin with --ctf none",
            ) from error


class ImageScreen:
    """Tells which images are of use; what is known of earlier ones is kept.

    Parameters
    ----------
    is_useful
        (n,) bool of the particles that have been looked at.
    typical
        Their median standard deviation, of the first that came.
    """

    def __init__(self, is_useful: NDArray[np.bool_] | None = None, typical: float = 0.0) -> None:
        self.is_useful = np.zeros(0, bool) if is_useful is None else is_useful
        self.typical = typical

    def look(self, images: ParticleImages, *, enough: int) -> None:
        """Look at the images that are new.

        Parameters
        ----------
        images
            Of all particles, those known first.
        enough
            Number of images whose brightness is taken for that of all: it does not depend on how
            many came together.

        Raises
        ------
        DataError
            If none is of use.
        """
        known = len(self.is_useful)
        deviation = np.zeros(len(images) - known)
        for indices, batch in images.batches(np.arange(known, len(images)), _BATCH):
            deviation[indices - known] = batch.std((1, 2)).numpy()
        is_useful = deviation > 0
        is_useful[[row - known for row in images.bad if row >= known]] = False
        if not self.typical and is_useful.any():
            self.typical = float(np.median(deviation[:enough][is_useful[:enough]]))
        is_useful &= deviation <= _HOT * self.typical
        self.is_useful = np.concatenate([self.is_useful, is_useful])
        if not self.is_useful.any():
            raise DataError(
                "the particles",
                must="be images that hold different numbers",
                got=f"{len(images)} images that are constant or not numbers",
                remedy="Extract them again",
            )


class StreamSource(ParticleSource):
    """Images of use of all particles so far; image i stays image i when more come.

    Parameters
    ----------
    images
        Of all rows.
    screen
        That has looked at them.
    corrects_ctf
        Whether CTFs are to be had.
    size
        Side that images are shrunk to, px.
    """

    def __init__(
        self, images: ParticleImages, screen: ImageScreen, *, corrects_ctf: bool, size: int
    ) -> None:
        super().__init__(images, np.flatnonzero(screen.is_useful), corrects_ctf=corrects_ctf)
        self._is_shrunk = size < images.box_size
        self.box_size = size
        self.pixel_size = images.pixel_size * images.box_size / size
        self.half_numbers = _halves(images.particles.rows.iloc[self.rows])

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Read images (m, y, x), float32 on the CPU, from any thread."""
        images = super().read(indices)
        if not self._is_shrunk:
            return images
        return fourier_resize(images, shape=(self.box_size, self.box_size)).to(torch.float32)


def _halves(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Put each particle into a half set by its name, in whatever order particles come."""
    stacks = {name: PurePosixPath(str(name)).name for name in rows["image"].unique()}
    names = rows["image_index"].astype(str) + "@" + rows["image"].map(stacks)
    hashes = pd.util.hash_pandas_object(names, index=False).to_numpy()
    return (hashes & np.uint64(1)).astype(np.int64)
