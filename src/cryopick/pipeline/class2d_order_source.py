"""Class averages to be put in order, with all that their files say of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import FormatError, ShapeError
from cryopick.io.eman_hdf import EmanStack, is_eman_database
from cryopick.io.mrc import read_mrc_header
from cryopick.io.star import read_star
from cryopick.pipeline.class2d_references import (
    EMAN_SUFFIXES,
    UNSAID,
    averages_of_run,
    find_stacks,
    is_of_run,
    kept_averages,
    listed_stacks,
    read_averages,
)
from cryopick.tables.relion_class2d import find_classification, read_classification

__all__ = ["AveragesToOrder", "read_averages_to_order"]

_IMAGE, _NUMBER = "rlnReferenceImage", "rlnClassNumber"


@dataclass(frozen=True, kw_only=True)
class AveragesToOrder:
    """n averages and what is known of them."""

    images: NDArray[np.float32]  # (n, y, y)
    pixel_size: float | None  # A/px; None where nobody says it
    files: list[Path]  # that were read, for their identity
    mask_diameter: float | None = None  # A, of a run
    counts: NDArray[np.int64] | None = None  # (n,) particles
    columns: pd.DataFrame | None = None  # other columns of a table of averages
    headers: list[dict[str, Any]] = field(default_factory=list)  # of an HDF stack

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Number of each: that of its table, or its place from 1."""
        if self.columns is not None and _NUMBER in self.columns:
            return self.columns[_NUMBER].to_numpy(np.int64)
        return np.arange(1, len(self.images) + 1)

    @property
    def has_density(self) -> NDArray[np.bool_]:
        """Which are not those of an empty class."""
        return np.asarray(self.images.max((1, 2)) > self.images.min((1, 2)))


def read_averages_to_order(path: Path) -> AveragesToOrder:
    """Read a stack (MRC, HDF of EMAN2), a table of averages, a run or a selection of classes.

    Raises
    ------
    FormatError
        If a file is missing, broken, of another kind or a 3D map.
    TableError
        If a STAR file is neither a table of averages nor of a 2D classification.
    ShapeError
        If the averages are not square.
    """
    path = kept_averages(Path(path)) or Path(path)
    if path.suffix in EMAN_SUFFIXES or is_eman_database(path):
        source = _read_eman(path)
    elif is_of_run(path):
        source = _read_run(path)
    else:
        source = _read_stack(path)
    y, x = source.images.shape[1:]
    if y != x:
        raise ShapeError(
            str(path), must="hold square averages", got=f"{x} x {y} px", remedy="Crop or pad them"
        )
    return source


def _read_eman(path: Path) -> AveragesToOrder:
    with EmanStack(path) as stack:
        headers = stack.all_attributes()
        counts = [header.get("n_objects") for header in headers]
        is_counted = all(isinstance(c, int) for c in counts)
        return AveragesToOrder(
            images=stack.read(),
            pixel_size=_said(stack.pixel_size),
            files=[path],
            counts=np.array(counts, np.int64) if is_counted else None,
            headers=headers,
        )


def _read_run(path: Path) -> AveragesToOrder:
    run = read_classification(path)
    assert run.source is not None
    images = averages_of_run(run)
    stacks = find_stacks(run.classes["image"].astype(str), run.source)
    tables = [f for f in find_classification(run.source) if f is not None]
    return AveragesToOrder(
        images=images,
        pixel_size=run.model.pixel_size,
        files=[*tables, *stacks.values()],
        mask_diameter=None if run.optimiser is None else run.optimiser.particle_diameter,
        counts=np.asarray(run.member_counts, np.int64),
    )


def _read_stack(path: Path) -> AveragesToOrder:
    if path.suffix not in (".star", ".xmd"):
        _require_no_map(path)
    images, pixel_size = read_averages(path)
    columns = None
    if path.suffix == ".star":
        tables = [t for t in read_star(path, text=(_IMAGE,)).values() if _IMAGE in t]
        columns = tables[0].drop(columns=_IMAGE) if tables else None
    files = [path, *(listed_stacks(path) if path.suffix == ".star" else [])]
    return AveragesToOrder(
        images=images, pixel_size=_said(pixel_size), files=files, columns=columns
    )


def _said(pixel_size: float) -> float | None:
    return None if pixel_size in UNSAID else pixel_size


def _require_no_map(path: Path) -> None:
    header = read_mrc_header(path)
    count, y, x = header.shape
    if header.is_volume and count == y == x and path.suffix != ".mrcs":
        raise FormatError(
            str(path), must="hold class averages", got=f"a 3D map of {x} x {y} x {count} voxels",
            remedy="Give a stack of averages; the name of a stack ends in .mrcs",
        )  # fmt: skip
