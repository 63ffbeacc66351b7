"""Images of a table of particles, read batch by batch in bounded memory.

    images = ParticleImages.open(read_particles(path), require_ctf=True)
    for indices, batch in images.batches(order, 256):
        ctf = images.optics.ctf_of(indices, (images.box_size, images.box_size))

Opening says in one sentence whatever can be said before long work begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.checks import require_above
from cryopick.errors import DataError, ParameterError
from cryopick.io.image_stacks import ImageStacks, runs
from cryopick.pipeline.job import ProgressCallback
from cryopick.pipeline.particle_checks import (
    open_stacks,
    require_images,
    require_in_stacks,
    require_one_box,
    require_plain,
)
from cryopick.pipeline.particle_optics import ParticleOptics
from cryopick.pipeline.particle_scratch import copy_to_scratch
from cryopick.pipeline.prefetch import prefetched
from cryopick.tables.model import Particles

__all__ = ["MicrographGroups", "ParticleImages"]

_GROUP_COLUMNS = ("rlnGroupName", "micrograph", "image")  # the first that there is names the groups
_SAMPLED = 16  # pixels looked at to see whether an image may be constant


class MicrographGroups(NamedTuple):
    """Particles of one micrograph make a group, as RELION scales and weighs them."""

    numbers: NDArray[np.int64]  # (n,), from 1, in the order of appearance
    names: tuple[str, ...]  # of group 1, 2, ...


class ParticleImages:
    """The images of a table of particles, in the order of its rows; see `open`.

    Attributes
    ----------
    particles : Particles
        The table.
    optics : ParticleOptics
        Optics groups and CTFs of the rows.
    box_size : int
        Side of every image, px.
    pixel_size : float
        A/px.
    """

    def __init__(
        self,
        particles: Particles,
        optics: ParticleOptics,
        stacks: ImageStacks,
        stack_of: NDArray[np.int64],
        index_of: NDArray[np.int64],
    ) -> None:
        self.particles = particles
        self.optics = optics
        self.box_size = stacks.headers[0].shape[1]
        self.pixel_size = optics.pixel_size
        self._stacks = stacks
        self._stack_of = stack_of
        self._index_of = index_of
        self._bad: dict[int, str] = {}
        self._scratch: Path | None = None

    @classmethod
    def open(
        cls,
        particles: Particles,
        *,
        require_ctf: bool = False,
        scratch: Path | None = None,
        progress: ProgressCallback | None = None,
    ) -> Self:
        """Check the table against its stacks; no pixel is read, except for a copy to scratch.

        Parameters
        ----------
        particles
            The table; relative names of stacks start near its file.
        require_ctf
            Whether every particle must have a CTF.
        scratch
            A folder on a fast disk: images are copied there first. Compressed stacks need it.
        progress
            Called with the number of images copied and in all.

        Raises
        ------
        FormatError
            If stacks are missing, broken, too short, compressed without `scratch`, or their
            images are not square, of odd size, or of different sizes.
        OutputError
            If `scratch` has no room.
        TableError
            If the table is empty, its pixel sizes differ by more than 0.1 %, its box size is
            not that of the stacks, or a part of a CTF that is required is missing.
        """
        table = str(particles.source or "particles")
        require_images(particles, table)
        optics = ParticleOptics(particles, require_ctf=require_ctf)
        stack_of, names = pd.factorize(particles.rows["image"])
        stack_of = stack_of.astype(np.int64)
        index_of = particles.rows["image_index"].to_numpy(np.int64)
        stacks = open_stacks([str(n) for n in names], particles.source)
        if scratch is None:
            require_plain(stacks)
        require_one_box(stacks, particles, optics, table)
        require_in_stacks(stacks, stack_of, index_of, table)
        images = cls(particles, optics, stacks, stack_of, index_of)
        return images if scratch is None else images.to_scratch(scratch, progress=progress)

    def __len__(self) -> int:
        return len(self._stack_of)

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the same images in another process, without a copy on scratch."""
        return ParticleImages.open, (self.particles,)

    @property
    def bad(self) -> dict[int, str]:
        """Rows whose images are of no use, among those read so far, with one sentence each."""
        return dict(self._bad)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Read images.

        Parameters
        ----------
        indices
            (n,) int, rows of the table from 0, in any order; n may be zero.

        Returns
        -------
        Tensor
            (n, y, x) float32, in the order of `indices`. Images with pixels that are not
            numbers, and constant ones, come as zeros and are told in `bad`.

        Raises
        ------
        FormatError
            If a stack has become shorter or cannot be read any more.
        ParameterError
            If an index is not of a row.
        """
        indices = self._require_rows(indices)
        images = torch.empty((len(indices), self.box_size, self.box_size))
        pixels = images.numpy()
        places = self._stack_of[indices], self._index_of[indices]
        for positions, raw in self._stacks.chunks(*places):
            values = _as_float32(raw)
            for which, fault in _faults(values):
                values[which] = 0.0
                self._tell(int(indices[positions[which]]), fault)
            if len(runs(positions, step=1)) == 1:
                pixels[positions[0] : positions[0] + len(positions)] = values
            else:
                pixels[positions] = values
        return images

    def batches(
        self, indices: NDArray[np.int64], size: int, *, prefetch: int = 1
    ) -> Generator[tuple[NDArray[np.int64], Tensor], None, None]:
        """Read images batch by batch, the next while the caller works on the present one.

        Parameters
        ----------
        indices
            (n,) int, rows of the table from 0, in any order.
        size
            Images of a batch; the last may be smaller.
        prefetch
            Batches read in advance by another thread; 0 reads in this one.

        Returns
        -------
        generator
            Of (m,) indices and their (m, y, x) float32 images, in order. What `read` raises
            comes in the place of its batch. Closing it, or dropping it, ends the thread.

        Raises
        ------
        ParameterError
            If an index is not of a row, or `size` is below 1.
        """
        require_above(size, 0, name="the batch size", unit="images")
        indices = self._require_rows(indices)
        parts = [indices[start : start + size] for start in range(0, len(indices), size)]
        return prefetched(lambda part: (part, self.read(part)), parts, ahead=prefetch)

    def to_scratch(self, folder: Path, *, progress: ProgressCallback | None = None) -> Self:
        """Copy all images to one file on a fast disk, or find the copy made before.

        Parameters
        ----------
        folder
            Where the copy goes; it stays until `remove_scratch`.
        progress
            Called with the number of images copied and in all.

        Returns
        -------
        ParticleImages
            The same particles, read from the copy.

        Raises
        ------
        FormatError
            If a stack is broken.
        OutputError
            If the disk has no room, or cannot be written.
        """
        stacks = copy_to_scratch(
            folder, self._stacks, self._stack_of, self._index_of, progress=progress
        )
        self.close()
        count = len(self)
        here = np.zeros(count, np.int64), np.arange(count)
        copied = type(self)(self.particles, self.optics, stacks, *here)
        copied._scratch = stacks.paths[0]
        return copied

    def remove_scratch(self) -> None:
        """Remove the copy that these images are read from, if it is one; then read no more.

        Another run that reads the same copy has it open, and so keeps it to its end.
        """
        self.close()
        if self._scratch is not None:
            self._scratch.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # other copies are there
                self._scratch.parent.rmdir()

    def micrograph_groups(self) -> MicrographGroups:
        """Give each micrograph a number, or each group if the table names groups."""
        rows = self.particles.rows
        column = next(c for c in _GROUP_COLUMNS if c in rows.columns)
        codes, names = pd.factorize(rows[column], use_na_sentinel=False)
        return MicrographGroups(codes.astype(np.int64) + 1, tuple(str(n) for n in names))

    def close(self) -> None:
        """Close the files; reading opens them again."""
        self._stacks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _require_rows(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        indices = np.asarray(indices, np.int64)
        outside = indices[(indices < 0) | (indices >= len(self))]
        if len(outside):
            raise ParameterError(
                "an index of a particle",
                must=f"be from 0 to {len(self) - 1}",
                got=int(outside[0]),
                remedy="Give rows of the table",
            )
        return indices

    def _tell(self, row: int, fault: str) -> None:
        of_row = self.particles.rows.iloc[row]
        self._bad[row] = str(
            DataError(
                f"image {int(of_row['image_index']) + 1} of {of_row['image']}",
                must="hold different numbers",
                got=fault,
                remedy="Extract it again, or leave the particle out",
            )
        )


def _as_float32(raw: NDArray[Any]) -> NDArray[np.float32]:
    if raw.dtype == np.float16:  # thirty times as fast as numpy
        return torch.from_numpy(raw).float().numpy()
    return raw.astype(np.float32, copy=False)


def _faults(images: NDArray[np.float32]) -> list[tuple[int, str]]:
    """Find images of no use.

    A sum shows pixels that are not numbers, and a few pixels whether an image can be constant;
    only images that fail one of the two are looked at as a whole.
    """
    flat = images.reshape(len(images), -1)
    sampled = flat[:, :: max(1, flat.shape[1] // _SAMPLED)]
    is_suspect = ~np.isfinite(np.einsum("ij->i", flat))
    is_suspect |= (sampled == flat[:, :1]).all(axis=1)
    faults = []
    for which in np.flatnonzero(is_suspect):
        n_bad = int((~np.isfinite(flat[which])).sum())
        if n_bad:
            faults.append((int(which), f"NaN or infinity in {n_bad} of its pixels"))
        elif flat[which].min() == flat[which].max():
            faults.append((int(which), f"{flat[which, 0]:g} in every pixel"))
    return faults
