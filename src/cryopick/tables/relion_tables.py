"""RELION's tables of micrographs and particles: 3.0, 3.1, 4 and 5 are read, 3.1 is written.

Offsets are `shift_x`, `shift_y` in Angstrom with RELION's sign; an image name such as
``000001@stack.mrcs`` becomes `image` and `image_index`, which counts from 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cryopick.errors import FormatError, TableError
from cryopick.io.mrc import read_mrc_header
from cryopick.io.star import read_star, write_star
from cryopick.tables.model import Micrographs, Particles
from cryopick.tables.paths import resolve_path
from cryopick.tables.relion_names import (
    MICROGRAPH_OPTICS,
    MICROGRAPH_ROWS,
    PARTICLE_OPTICS,
    PARTICLE_ROWS,
    from_relion,
    to_relion,
)
from cryopick.tables.relion_optics import (
    check_groups,
    check_pixel_size,
    groups_of_old_rows,
    offsets_to_angstrom,
)

__all__ = [
    "join_image_names",
    "particle_rows_from_relion",
    "read_micrographs",
    "read_particles",
    "write_micrographs",
    "write_particles",
]

_STACKS = (".mrc", ".mrcs", ".map", ".tif", ".tiff", ".hdf")


def read_micrographs(path: Path, *, pixel_size: float | None = None) -> Micrographs:
    """Read a table of micrographs.

    Parameters
    ----------
    path
        ``micrographs_ctf.star`` and the like.
    pixel_size
        A/px, instead of what the table says.

    Returns
    -------
    Micrographs
        Columns without one of our names keep RELION's label.

    Raises
    ------
    FormatError
        If the file is broken.
    TableError
        If it holds no micrographs, or no pixel size is known.
    """
    path = Path(path)
    blocks = read_star(path)
    table = _find_block(blocks, "micrographs", "rlnMicrographName", path)
    table, groups = _with_groups(table, blocks.get("optics"), MICROGRAPH_OPTICS["pixel_size"])
    optics = from_relion(groups, MICROGRAPH_OPTICS, path)
    rows = from_relion(table, MICROGRAPH_ROWS, path)
    check_pixel_size(optics, path, pixel_size=pixel_size)
    check_groups(rows, optics, path)
    return Micrographs(rows=rows, optics=optics, source=path)


def read_particles(path: Path, *, pixel_size: float | None = None) -> Particles:
    """Read a table of particles.

    Parameters
    ----------
    path
        ``particles.star``, ``run_it025_data.star`` and the like.
    pixel_size
        A/px of the particle images, instead of what the table says.

    Returns
    -------
    Particles
        Columns without one of our names keep RELION's label.

    Raises
    ------
    FormatError
        If the file is broken.
    TableError
        If it is no STAR file, holds no particles, or no pixel size is known.
    """
    path = Path(path)
    _refuse_other_kinds(path)
    blocks = read_star(path)
    table = _find_block(blocks, "particles", "rlnImageName", path)
    table, groups = _with_groups(table, blocks.get("optics"), PARTICLE_OPTICS["pixel_size"])
    optics = from_relion(groups, PARTICLE_OPTICS, path)
    check_pixel_size(optics, path, pixel_size=pixel_size)
    rows = particle_rows_from_relion(table, optics, path)
    check_groups(rows, optics, path)
    if "box_size" not in optics.columns:
        optics = _with_box_size(rows, optics, path)
    return Particles(rows=rows, optics=optics, source=path)


def _refuse_other_kinds(path: Path) -> None:
    """Refuse a stack, or another program's table, that is given instead of a STAR file."""
    is_packed = path.suffix in (".gz", ".bz2")
    kind = (path.with_suffix("") if is_packed else path).suffix.lower()
    if kind not in (*_STACKS, ".cs") or not path.is_file():
        return
    is_stack = kind in _STACKS
    raise TableError(
        str(path),
        must="be the STAR file of the particles",
        got="a stack of images" if is_stack else "a file of cryoSPARC",
        remedy="Give the STAR file that names this stack"
        if is_stack
        else f"Convert it first with: cryopick convert {path} {path.stem}.star",
    )


def particle_rows_from_relion(
    table: pd.DataFrame, optics: pd.DataFrame | None, source: Path
) -> pd.DataFrame:
    """Convert the rows of a particle table to our names, units and counting.

    Parameters
    ----------
    table
        Rows with RELION's labels.
    optics
        Groups with our names and a pixel size; without it, offsets in pixels are left alone.
    source
        The file, for messages.

    Raises
    ------
    TableError
        If a column of numbers holds something else.
    """
    if optics is not None and "rlnOpticsGroup" in table.columns:
        sizes = optics.set_index("optics_group")["pixel_size"]
        table = offsets_to_angstrom(table, table["rlnOpticsGroup"].map(sizes))
    rows = from_relion(table, PARTICLE_ROWS, source)
    if "image" in rows.columns:
        images, indices = _split_image_names(rows["image"], source)
        rows["image"] = images
        rows.insert(int(rows.columns.get_loc("image")) + 1, "image_index", indices)  # type: ignore[arg-type]
    return rows


def _find_block(blocks: dict[str, pd.DataFrame], name: str, label: str, path: Path) -> pd.DataFrame:
    """Take the block of that name, or the only other one that has the column."""
    table = blocks.get(name)
    if table is None:
        fitting = [b for key, b in blocks.items() if key != "optics" and label in b.columns]
        table = fitting[0] if len(fitting) == 1 else None
    if table is None or label not in table.columns:
        there = ", ".join(f"data_{key}" for key in blocks) or "no table"
        raise TableError(
            str(path),
            must=f"hold a table data_{name} with a column {label}",
            got=there,
            remedy=f"Give a STAR file of {name}",
        )
    return table


def _with_groups(
    table: pd.DataFrame, optics: pd.DataFrame | None, pixel_size_label: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    if optics is None or "rlnOpticsGroup" not in optics.columns:
        return groups_of_old_rows(table, pixel_size_label)
    if "rlnOpticsGroup" not in table.columns and len(optics) == 1:
        table = table.assign(rlnOpticsGroup=optics["rlnOpticsGroup"].iloc[0])
    return table, optics


def _split_image_names(names: pd.Series, source: Path) -> tuple[pd.Series, np.ndarray]:
    """Split ``000001@stack`` into the stack and a 0-based index; a name without @ is index 0."""
    words = pa.array(names, pa.large_string())
    words = words.combine_chunks() if isinstance(words, pa.ChunkedArray) else words
    if not pc.all(pc.match_substring(words, "@")).as_py():
        has_index = pc.match_substring(words, "@")
        words = pc.if_else(has_index, words, _join("1", words, "@"))
    halves = pc.list_flatten(pc.split_pattern(words, "@", max_splits=1))
    numbers, images = halves[0::2], halves[1::2]
    try:
        indices = numbers.cast(pa.int64()).to_numpy() - 1
    except pa.ArrowInvalid as error:
        _refuse_index(source, str(error))
    if len(indices) and indices.min() < 0:
        _refuse_index(source, str(words[int(indices.argmin())]))
    return pd.Series(images.to_pandas(), dtype="str").set_axis(names.index), indices


def _join(*words: pa.Array | str) -> pa.Array:
    """Join two columns, or constants, with the last as separator."""
    kind = pa.large_string()
    return pc.binary_join_element_wise(
        *[pa.scalar(w, kind) if isinstance(w, str) else w for w in words]
    )


def _refuse_index(source: Path, got: str) -> None:
    raise TableError(
        f"{source}, column rlnImageName,",
        must="number the images of a stack from 1",
        got=got,
        remedy="Mend it",
    )


def join_image_names(images: pd.Series, indices: pd.Series) -> pd.Series:
    """Write stack and 0-based index as RELION does: ``000001@stack``."""
    numbers = pa.array(indices.to_numpy(np.int64) + 1).cast(pa.large_string())
    padded = pc.utf8_lpad(numbers, 6, "0")
    names = pa.array(images, pa.large_string())
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    joined = _join(padded, names, "@")
    return pd.Series(joined.to_pandas(), dtype="str").set_axis(images.index)


def _with_box_size(rows: pd.DataFrame, optics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Old tables do not say the box size; ask the stacks, if they are there."""
    firsts = rows.drop_duplicates("optics_group").set_index("optics_group")["image"]
    sizes = []
    for group in optics["optics_group"]:
        try:
            header = read_mrc_header(resolve_path(str(firsts[group]), path))
        except (KeyError, FormatError):
            return optics
        sizes.append(header.shape[2])
    return optics.assign(box_size=sizes, image_dimensions=2)


def write_micrographs(path: Path, micrographs: Micrographs) -> None:
    """Write a table of micrographs as RELION 3.1 does.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    blocks = {
        "optics": to_relion(_with_names(micrographs.optics), MICROGRAPH_OPTICS),
        "micrographs": to_relion(micrographs.rows, MICROGRAPH_ROWS),
    }
    write_star(path, blocks)


def write_particles(path: Path, particles: Particles) -> None:
    """Write a table of particles as RELION 3.1 does on extraction.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    names = join_image_names(particles.rows["image"], particles.rows["image_index"])
    rows = particles.rows.assign(image=names).drop(columns="image_index")
    blocks = {
        "optics": to_relion(_with_names(particles.optics), PARTICLE_OPTICS),
        "particles": to_relion(rows, PARTICLE_ROWS),
    }
    write_star(path, blocks)


def _with_names(optics: pd.DataFrame) -> pd.DataFrame:
    """RELION refuses groups without a name."""
    if "optics_group_name" in optics.columns:
        return optics
    return optics.assign(optics_group_name=[f"opticsGroup{g}" for g in optics["optics_group"]])
