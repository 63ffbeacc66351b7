"""What one sentence can say of a table of particles and its stacks before work begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, TableError
from cryopick.io.eman_image_stacks import EmanImageStacks, is_eman_stack
from cryopick.io.image_stacks import ImageStacks, is_packed
from cryopick.io.mrc import MrcHeader
from cryopick.pipeline.particle_optics import ParticleOptics
from cryopick.tables.model import Particles
from cryopick.tables.paths import resolve_path

__all__ = ["open_stacks", "require_images", "require_in_stacks", "require_one_box", "require_plain"]


def require_images(particles: Particles, table: str) -> None:
    """Refuse a table without particles, without names of images, or of subtomograms.

    Raises
    ------
    TableError
        Saying which.
    """
    if not len(particles):
        raise TableError(
            table, must="hold particles", got="none", remedy="Check that it is the right table"
        )
    rows, optics = particles.rows, particles.optics
    unnamed = int(rows["image"].isna().sum())
    if unnamed:
        raise TableError(
            table,
            must="name the image of every particle",
            got=f"{unnamed} rows without a name",
            remedy="Leave these rows out",
        )
    if "image_dimensions" in optics.columns and (optics["image_dimensions"] == 3).any():
        raise TableError(
            table,
            must="hold 2D images",
            got="subtomograms (image dimensionality 3)",
            remedy="Give a table of 2D particles",
        )


def open_stacks(names: Sequence[str], table: Path | None) -> ImageStacks:
    """Open the stacks that a table names.

    Raises
    ------
    FormatError
        If stacks are missing or broken. For one that is missing it names the table and where the
        stack was looked for.
    """
    paths = [resolve_path(name, table) for name in names]
    opener = EmanImageStacks if any(is_eman_stack(p) for p in paths) else ImageStacks
    try:
        return opener.open(paths)
    except FormatError as error:
        missing = Path(error.what)
        if table is None or missing not in paths or missing.exists():
            raise
        others = error.got.partition(";")[2]
        raise FormatError(
            f"{missing}, which {table} lists,",
            must="be there",
            got=f"no such file{_searched(missing, table)}" + (f";{others}" if others else ""),
            remedy="Put the stacks where the table says"
            if missing.is_absolute()
            else "Start in the folder that the names in the table begin from",
        ) from error


def _searched(name: Path, table: Path) -> str:
    """Say where `resolve_path` has looked for a file."""
    if name.is_absolute():
        return ""
    here, beside = Path.cwd(), table.resolve().parent
    if here == beside:
        return f" in {here} or a folder above it"
    return f" in {here}, {beside} or a folder above the latter"


def require_plain(stacks: ImageStacks) -> None:
    """Refuse compressed stacks, of which no single image can be read.

    Raises
    ------
    FormatError
        Naming the first and counting them.
    """
    packed = [p for p in stacks.paths if is_packed(p)]
    if packed:
        raise FormatError(
            str(packed[0]),
            must="not be compressed, to be read image by image",
            got=f"{packed[0].suffix} (as {len(packed)} of {len(stacks.paths)} stacks)",
            remedy="Give --scratch, a folder for a plain copy, or unpack the stacks",
        )


def require_one_box(
    stacks: ImageStacks, particles: Particles, optics: ParticleOptics, table: str
) -> None:
    """Refuse boxes that are not square, even, all of one size and that of the table.

    Raises
    ------
    FormatError
        If images are not square, of odd size, or differ in size from stack to stack.
    TableError
        If the table tells another size.
    """
    first, header = stacks.paths[0], stacks.headers[0]
    height, width = header.shape[1:]
    if height != width:
        raise FormatError(
            str(first),
            must="hold square images",
            got=_size(header),
            remedy="Check that it is a stack of particles",
        )
    if width % 2:
        raise FormatError(
            str(first),
            must="hold images of an even number of pixels",
            got=_size(header),
            remedy="Extract the particles again with an even --box-size",
        )
    for path, other in zip(stacks.paths, stacks.headers, strict=True):
        if other.shape[1:] != header.shape[1:]:
            raise FormatError(
                str(path),
                must=f"hold images of {_size(header)}, as {first} does",
                got=_size(other),
                remedy="Extract the particles again with one --box-size",
            )
    if "box_size" not in particles.optics.columns:
        return
    used = particles.optics["optics_group"].isin([g.number for g in optics.groups])
    told = particles.optics.loc[used, "box_size"].dropna()
    wrong = told[told != width]
    if len(wrong):
        raise TableError(
            table,
            must=f"give the box size of its stacks, {width} px",
            got=f"{wrong.iloc[0]:g} px",
            remedy="Check that the table belongs to these stacks",
        )


def _size(header: MrcHeader) -> str:
    return f"{header.shape[2]} x {header.shape[1]} px"


def require_in_stacks(
    stacks: ImageStacks,
    stack_of: NDArray[np.int64],
    index_of: NDArray[np.int64],
    table: str,
) -> None:
    """Refuse a table that names images which its stacks do not have.

    Raises
    ------
    FormatError
        Naming the first stack and row.
    """
    counts = np.array([h.shape[0] for h in stacks.headers], np.int64)
    outside = np.flatnonzero((index_of < 0) | (index_of >= counts[stack_of]))
    if len(outside):
        row = int(outside[0])
        stack = int(stack_of[row])
        raise FormatError(
            str(stacks.paths[stack]),
            must=f"hold image {int(index_of[row]) + 1}, for row {row + 1} of {table}",
            got=f"{counts[stack]} images",
            remedy="Check that the table belongs to this stack",
        )
