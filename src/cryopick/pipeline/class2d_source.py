"""The images of a table as a 2D classification takes them, less those that are of no use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.em_state import Poses
from cryopick.errors import DataError, TableError
from cryopick.pipeline.job import ProgressCallback
from cryopick.pipeline.particle_checks import require_images
from cryopick.pipeline.particle_images import ParticleImages
from cryopick.pipeline.particle_optics import ParticleOptics
from cryopick.tables.model import Particles, require_columns
from cryopick.tables.relion_names import PARTICLE_ROWS

__all__ = ["ParticleSource", "images_of_no_use", "open_source", "poses_of_table"]

_BATCH = 512  # images looked at together
_HOT = 20.0  # times the median deviation: such an image would outweigh hundreds
_FIRST_ROWS = np.arange(1)


class ParticleSource:
    """Images of some rows of a table; image i is that of row `rows[i]`.

    What `cryopick.class2d.em_state.ImageSource` asks for.

    Parameters
    ----------
    images
        Of all rows of the table.
    rows
        (n,) int, the rows that take part.
    corrects_ctf
        Whether CTFs are to be had.
    n_hot
        Images left out because they are far brighter than the others.
    """

    def __init__(
        self,
        images: ParticleImages,
        rows: NDArray[np.int64],
        *,
        corrects_ctf: bool,
        n_hot: int = 0,
    ) -> None:
        self.images = images
        self.rows = rows
        self.corrects_ctf = corrects_ctf
        self.n_hot = n_hot
        self.half_numbers = rows  # those of even and odd ones are averaged apart
        self.box_size = images.box_size
        self.pixel_size = images.pixel_size
        groups = images.micrograph_groups()
        self.group_names = groups.names
        self.group_numbers = groups.numbers[rows] - 1
        self.optics_numbers = images.optics.groups_of(rows)
        lenses = images.optics.groups
        self.is_premultiplied = np.array([g.is_premultiplied for g in lenses], bool)
        self.is_phase_flipped = np.array([g.is_phase_flipped for g in lenses], bool)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Read images (m, y, x), float32 on the CPU, from any thread."""
        return self.images.read(self.rows[indices])

    def ctf_parameters(self, indices: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Give (m, 9), columns as in `particle_optics.CTF_PARAMETERS`; None without correction."""
        if not self.corrects_ctf:
            return None
        return self.images.optics.ctf_parameters(self.rows[indices])


def open_source(
    particles: Particles,
    *,
    corrects_ctf: bool,
    scratch: Path | None = None,
    progress: ProgressCallback | None = None,
) -> ParticleSource:
    """Open the images of a table and leave out those that are of no use.

    All images are read once to find those that are constant, not numbers, or so much brighter
    than the others that each would outweigh hundreds of them.

    Parameters
    ----------
    particles
        The table.
    corrects_ctf
        Whether every particle must have a CTF.
    scratch
        A folder on a fast disk, where images are copied to first.
    progress
        Called with the number of images copied or looked at, and in all.

    Raises
    ------
    FormatError
        If stacks are missing or broken, or their boxes differ.
    OutputError
        If `scratch` has no room.
    TableError
        If the table is empty, contradicts its stacks, or lacks a CTF that is wanted.
    DataError
        If no image is of use.
    """
    if corrects_ctf:
        _require_ctf(particles)
    images = ParticleImages.open(particles, scratch=scratch, progress=progress)
    everything = np.arange(len(images))
    done = 0
    deviation = np.zeros(len(images))
    for indices, batch in images.batches(everything, _BATCH):
        deviation[indices] = batch.std((1, 2)).numpy()
        done += len(indices)
        if progress is not None:
            progress(done, len(images))
    useful = np.setdiff1d(everything, np.array(sorted(images.bad), np.int64))
    typical = float(np.median(deviation[useful])) if len(useful) else 0.0
    is_hot = deviation[useful] > _HOT * typical
    hot, useful = useful[is_hot], useful[~is_hot]
    if not len(useful):
        raise DataError(
            str(particles.source or "particles"),
            must="name images that hold different numbers",
            got=f"{len(images)} images that are constant or not numbers",
            remedy="Extract the particles again",
        )
    return ParticleSource(images, useful, corrects_ctf=corrects_ctf, n_hot=len(hot))


def images_of_no_use(source: ParticleSource) -> list[str]:
    """Say which images are left out, and why."""
    found = []
    bad = source.images.bad
    if bad:
        more = f" {len(bad) - 1} more images are of no use either." if len(bad) > 1 else ""
        found.append(f"{bad[min(bad)]}{more} They are left out, with class 0.")
    if source.n_hot:
        found.append(
            f"{source.n_hot} images are more than 20 times as bright as the others. They "
            "are left out, with class 0."
        )
    return found


def _require_ctf(particles: Particles) -> None:
    require_images(particles, str(particles.source or "particles"))
    optics = ParticleOptics(particles)
    try:
        optics.ctf_parameters(_FIRST_ROWS)
    except TableError as error:
        raise TableError(
            error.what,
            must=error.must,
            got=error.got,
            remedy="Estimate the CTF of the micrographs and extract again, or add --ctf none",
        ) from error


def poses_of_table(source: ParticleSource, *, aligns: bool) -> Poses:
    """Start from the shifts of the table, and without alignment from its rotations and classes.

    Raises
    ------
    TableError
        If there is to be no alignment, and the table has no poses to keep.
    """
    rows = source.images.particles.rows.iloc[source.rows]
    if not aligns:
        table = str(source.images.particles.source or "particles")
        require_columns(
            rows,
            ("psi", "shift_x", "shift_y"),
            table=table,
            labels=PARTICLE_ROWS,
            remedy="Leave out --no-align, or give a table of particles with poses",
        )
    poses = Poses.empty(len(source))
    wanted = ("shift_x", "shift_y") if aligns else ("shift_x", "shift_y", "psi")
    for name in wanted:
        if name in rows.columns:
            getattr(poses, name)[:] = np.nan_to_num(rows[name].to_numpy(np.float32))
    if not aligns and "class_number" in rows.columns:
        poses.class_index[:] = np.maximum(rows["class_number"].to_numpy(np.int64) - 1, 0)
    return poses
