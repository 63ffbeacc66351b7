"""What `select classes` begins from: a run of a 2D classification, or a bare stack of averages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import DataError, ParameterError, ShapeError, TableError
from cryopick.io.star import read_star
from cryopick.pipeline.class2d_references import UNSAID, averages_of_run, is_of_run, read_averages
from cryopick.pipeline.job import identity_of
from cryopick.tables.classification import Classification
from cryopick.tables.paths import resolve_path
from cryopick.tables.relion_class2d import find_classification, read_classification

__all__ = ["SAVED_SELECTION", "ClassSource", "find_stack", "read_class_source", "read_selection"]

SAVED_SELECTION = "backup_selection.star"
_LABEL = "rlnSelected"


@dataclass(frozen=True, kw_only=True)
class ClassSource:
    """Class averages, and the run that they come from, if there is one."""

    path: Path  # as the user named it
    averages: NDArray[np.float32]  # (k, y, x), in the order of the class numbers
    pixel_size: float | None  # A/px; None where nobody says it
    mask_diameter: float | None  # A; None where nobody says it
    run: Classification | None  # None: a bare stack

    @property
    def particle_count(self) -> NDArray[np.float64]:
        """Particles that fit each class best, (k,); NaN in a bare stack."""
        if self.run is None:
            return np.full(len(self.averages), np.nan)
        numbers = self.run.particles.rows["class_number"].to_numpy(np.int64)
        length = len(self.averages) + 1
        return np.bincount(numbers, minlength=length)[1:length].astype(np.float64)

    @property
    def files(self) -> list[Path]:
        """What was read, for its identity."""
        if self.run is None or self.run.source is None:
            return [self.path]
        names = find_classification(self.run.source)
        stacks = self.run.classes["image"].astype(str).unique()
        found = [find_stack(name, self.run.source) for name in stacks]
        return [*(f for f in names if f is not None), *found]

    @property
    def identity(self) -> str:
        """Changes when a file of the run is replaced."""
        return identity_of(*self.files)


def read_class_source(path: Path, *, mask_diameter: float | None = None) -> ClassSource:
    """Read a run, or a stack of averages.

    Parameters
    ----------
    path
        A file or the folder of a 2D classification of RELION or cryopick, a stack, or a table
        of averages such as ``class_averages.star``.
    mask_diameter
        A, instead of what the run says.

    Raises
    ------
    FormatError
        If a file is missing or broken.
    TableError
        If a STAR file is not of a 2D classification.
    ParameterError
        If `mask_diameter` is not above 0.
    ShapeError
        If the averages are not square.
    DataError
        If no class has particles, or a pixel is not finite.
    """
    path = Path(path)
    if mask_diameter is not None and not mask_diameter > 0:
        raise ParameterError(
            "mask_diameter",
            must="be above 0 A",
            got=f"{mask_diameter:g} A",
            remedy="Change --mask-diameter",
        )
    if is_of_run(path):
        run = read_classification(path)
        averages, pixel_size = averages_of_run(run), run.model.pixel_size
    else:
        run = None
        averages, pixel_size = read_averages(path)
    if mask_diameter is None and run is not None and run.optimiser is not None:
        mask_diameter = run.optimiser.particle_diameter
    source = ClassSource(
        path=path,
        averages=averages,
        pixel_size=None if run is None and pixel_size in UNSAID else pixel_size,
        mask_diameter=mask_diameter,
        run=run,
    )
    _require_images(source)
    return source


def _require_images(source: ClassSource) -> None:
    height, width = source.averages.shape[1:]
    name = str(source.path)
    if height != width:
        got = f"{width} x {height} px"
        raise ShapeError(name, must="hold square averages", got=got, remedy="Crop them")
    if not np.isfinite(source.averages).all():
        raise DataError(
            name,
            must="have finite pixel values",
            got="NaN or infinity",
            remedy="Make the averages again",
        )
    has_image = np.asarray(source.averages.any((1, 2)))
    is_empty = ~has_image if source.run is None else source.particle_count == 0
    if is_empty.all():
        raise DataError(
            name,
            must="hold at least one class with particles",
            got=f"{len(is_empty)} empty classes",
            remedy="Give another iteration or run",
        )


def find_stack(name: str, table: Path) -> Path:
    """Find a stack of averages, which may have been moved with the table that names it."""
    beside = table.with_name(Path(name).name)
    return beside if beside.exists() else resolve_path(name, table)


def read_selection(path: Path, *, n_classes: int) -> NDArray[np.bool_]:
    """Read which classes somebody has selected before.

    Parameters
    ----------
    path
        A ``backup_selection.star`` of RELION or cryopick, or the folder with it.
    n_classes
        Classes there must be.

    Returns
    -------
    numpy.ndarray
        (n_classes,), in the order of the class numbers. RELION's colours 1 to 6 are all selected.

    Raises
    ------
    FormatError
        If the file is missing or broken.
    TableError
        If it holds no selection, or one of another number of classes.
    """
    path = Path(path) / SAVED_SELECTION if Path(path).is_dir() else Path(path)
    tables = [t for t in read_star(path).values() if _LABEL in t.columns]
    if not tables:
        raise TableError(
            f"--selection {path}",
            must=f"have a column {_LABEL}",
            got="none",
            remedy=f"Give a {SAVED_SELECTION}",
        )
    chosen = tables[0][_LABEL].to_numpy()
    if len(chosen) != n_classes:
        raise TableError(
            f"--selection {path}",
            must=f"have one row for each of the {n_classes} classes",
            got=f"{len(chosen)} rows",
            remedy="Give the selection of this run",
        )
    if not np.issubdtype(chosen.dtype, np.number):
        raise TableError(
            f"--selection {path}, column {_LABEL},",
            must="hold numbers",
            got=repr(chosen[0]),
            remedy="Mend it",
        )
    return np.asarray(chosen > 0, np.bool_)
