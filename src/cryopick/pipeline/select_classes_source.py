"""What `select classes` begins from: a run of a 2D classification, or a bare stack of averages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import DataError, FormatError, ParameterError, ShapeError, TableError
from cryopick.io.mrc import read_mrc_header
from cryopick.io.star import read_star
from cryopick.pipeline.class2d_references import (
    UNSAID,
    averages_of_run,
    find_stacks,
    is_of_run,
    listed_stacks,
    read_averages,
)
from cryopick.pipeline.job import identity_of
from cryopick.pipeline.scored_classes import read_particle_counts, was_selected_by_score
from cryopick.tables.classification import Classification
from cryopick.tables.relion_class2d import find_classification, read_classification

__all__ = [
    "SAVED_SELECTION",
    "ClassSource",
    "SavedSelection",
    "read_class_source",
    "read_selection",
]

SAVED_SELECTION = "backup_selection.star"
_LABEL = "rlnSelected"
_TOLERANCE = 1e-3  # of the box: a mask as large as the box may be rounded
_SMALLEST = 16  # px, box of averages; of fewer pixels neither outline nor background is seen
_MRC = (".mrc", ".mrcs", ".map", ".rec", ".ccp4")


@dataclass(frozen=True, kw_only=True)
class ClassSource:
    """Class averages, and the run that they come from, if there is one."""

    path: Path  # as the user named it
    averages: NDArray[np.float32]  # (k, y, x), in the order of the class numbers
    pixel_size: float | None  # A/px; None where nobody says it
    mask_diameter: float | None  # A; None where nobody says it
    mask_of_run: float | None = None  # A, as the run says itself
    run: Classification | None  # None: a bare stack

    @property
    def particle_count(self) -> NDArray[np.float64]:
        """Particles that fit each class best, (k,); NaN in a bare stack."""
        if self.run is None:
            return np.full(len(self.averages), np.nan)
        return self.run.member_counts.astype(np.float64)

    @property
    def files(self) -> list[Path]:
        """What was read, for its identity."""
        if self.run is None or self.run.source is None:
            is_table = self.path.suffix == ".star"
            return [self.path, *(listed_stacks(self.path) if is_table else [])]
        names = find_classification(self.run.source)
        stacks = find_stacks(self.run.classes["image"].astype(str), self.run.source)
        return [*(f for f in names if f is not None), *stacks.values()]

    @property
    def identity(self) -> str:
        """Changes when a file of the run is replaced."""
        return identity_of(*self.files)


def read_class_source(
    path: Path, *, mask_diameter: float | None = None, pixel_size: float | None = None
) -> ClassSource:
    """Read a run, or a stack of averages.

    Parameters
    ----------
    path
        A file or the folder of a 2D classification of RELION or cryopick, a stack, or a table
        of averages such as ``class_averages.star``.
    mask_diameter
        A, instead of what the run says.
    pixel_size
        A/px of the averages, instead of what their stack says; not for a run, which says more
        than this in A.

    Raises
    ------
    FormatError
        If a file is missing, broken, of another kind or a 3D map.
    TableError
        If a STAR file is not of a 2D classification.
    ParameterError
        If `mask_diameter` or `pixel_size` is not above 0, the mask is larger than the box, a mask
        is given and nobody says the pixel size, or a pixel size is given for a run.
    ShapeError
        If the averages are not square, or too small to tell anything.
    DataError
        If no class has particles, or a pixel is not finite.
    """
    path = Path(path)
    _require_positive("mask_diameter", mask_diameter, "A")
    _require_positive("pixel_size", pixel_size, "A/px")
    if is_of_run(path):
        if pixel_size is not None:
            raise ParameterError(
                "pixel_size",
                must="come with a stack of averages; a run says its own",
                got=f"the run {path}",
                remedy="Leave out --pixel-size",
            )
        run = read_classification(path)
        averages, said = averages_of_run(run), run.model.pixel_size
    else:
        run = None
        if path.suffix != ".star":
            _require_stack(path)
        averages, said = read_averages(path)
    is_said = said > 0 if run is not None else said not in UNSAID
    if pixel_size is None:
        pixel_size = said if is_said else None
    if mask_diameter is not None and pixel_size is None:
        raise ParameterError(
            "mask_diameter",
            must="come with the pixel size of the averages",
            got=f"{path}, which does not say it",
            remedy="Add --pixel-size",
        )
    _require_inside(mask_diameter, averages.shape[-1] * (pixel_size or 0.0))
    optimiser = None if run is None else run.optimiser
    mask_of_run = None if optimiser is None else optimiser.particle_diameter
    source = ClassSource(
        path=path,
        averages=averages,
        pixel_size=pixel_size,
        mask_diameter=mask_of_run if mask_diameter is None else mask_diameter,
        mask_of_run=mask_of_run,
        run=run,
    )
    _require_images(source)
    return source


def _require_positive(name: str, value: float | None, unit: str) -> None:
    if value is not None and not 0 < value < float("inf"):
        raise ParameterError(
            name,
            must=f"be above 0 {unit}",
            got=f"{value:g} {unit}",
            remedy=f"Change --{name.replace('_', '-')}",
        )


def _require_inside(mask_diameter: float | None, box: float) -> None:
    """Refuse a mask, in A, that leaves nothing of the box outside."""
    if mask_diameter is not None and mask_diameter > (1 + _TOLERANCE) * box:
        raise ParameterError(
            "mask_diameter",
            must=f"be at most {box:.4g} A, the box of the averages",
            got=f"{mask_diameter:.4g} A",
            remedy="Change --mask-diameter",
        )


def _require_stack(path: Path) -> None:
    """Refuse what is no stack of images: another kind of file, or a 3D map."""
    kinds = [s.lower() for s in path.suffixes if s.lower() not in (".gz", ".bz2")][-1:]
    try:
        header = read_mrc_header(path)
    except FormatError:
        if not path.is_file() or (kinds and kinds[0] in _MRC):
            raise
        raise FormatError(
            str(path),
            must="be a folder or file of a 2D classification, or an MRC stack of averages",
            got=f"a {kinds[0]} file" if kinds else "a file of another kind",
            remedy="Give the folder of the run",
        ) from None
    count, height, width = header.shape
    is_whole = count == height == width or header.cell_sections == count
    if header.is_volume and is_whole and kinds != [".mrcs"]:
        raise FormatError(
            str(path),
            must="hold class averages",
            got=f"a 3D map of {width} x {height} x {count} voxels",
            remedy="Give a run or a stack of averages; a stack that says it is a map is read if "
            "its name ends in .mrcs",
        )


def _require_images(source: ClassSource) -> None:
    height, width = source.averages.shape[1:]
    name = str(source.path)
    if height != width:
        got = f"{width} x {height} px"
        raise ShapeError(name, must="hold square averages", got=got, remedy="Crop them")
    if width < _SMALLEST:
        raise ShapeError(
            name,
            must=f"hold averages of at least {_SMALLEST} x {_SMALLEST} px",
            got=f"{width} x {height} px",
            remedy="Give averages of a larger box, or binned less",
        )
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


@dataclass(frozen=True, kw_only=True)
class SavedSelection:
    """What was selected before, in the order of the class numbers."""

    is_selected: NDArray[np.bool_]  # (k,)
    is_by_score: bool  # no person has changed what a score has chosen
    is_checked: bool = True  # False: nothing beside it tells of which run it is


def read_selection(path: Path, *, particle_count: NDArray[np.float64]) -> SavedSelection:
    """Read which classes somebody has selected before.

    Parameters
    ----------
    path
        A ``backup_selection.star`` of RELION or cryopick, or the folder with it.
    particle_count
        (k,) particles of each class of the run; NaN in a bare stack. Those that the folder of
        the selection tells, if it does, must be the same.

    Returns
    -------
    SavedSelection
        RELION's colours 1 to 6 are all selected.

    Raises
    ------
    FormatError
        If the file is missing or broken.
    TableError
        If it holds no selection, or one of another run.
    """
    n_classes = len(particle_count)
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
    is_selected = np.asarray(chosen > 0, np.bool_)
    return SavedSelection(
        is_selected=is_selected,
        is_by_score=was_selected_by_score(path.parent, is_selected),
        is_checked=_is_of_run(path, particle_count),
    )


def _is_of_run(path: Path, particle_count: NDArray[np.float64]) -> bool:
    """Refuse the selection of another run; False where nothing tells of which run it is."""
    before = read_particle_counts(path.parent)
    if before is None:
        return False
    has_length = len(before) == len(particle_count)
    if has_length and (np.isnan(before).any() or np.isnan(particle_count).any()):
        return False
    if has_length and np.array_equal(before, particle_count):
        return True
    got = f"one of {len(before)} classes"
    if has_length:
        place = int(np.flatnonzero(before != particle_count)[0])
        got = f"one whose class {place + 1} has {before[place]:,.0f} particles, not "
        got += f"{particle_count[place]:,.0f}"
    raise TableError(
        f"--selection {path}", must="be of this run", got=got, remedy="Give the selection of it"
    )
