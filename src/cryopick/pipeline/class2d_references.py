"""Averages to begin a 2D classification from, out of a stack or of an earlier run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.errors import DataError, FormatError, ParameterError
from cryopick.io.eman_hdf import is_eman_database, read_eman_stack
from cryopick.io.eman_image_stacks import EMAN_SUFFIXES
from cryopick.io.mrc import read_mrc, read_mrc_header, read_mrc_images
from cryopick.io.star import read_star
from cryopick.pipeline.scored_classes import SCORES
from cryopick.tables.classification import Classification
from cryopick.tables.paths import resolve_path
from cryopick.tables.relion_class2d import read_classification

__all__ = [
    "AVERAGE_TABLE",
    "EMAN_SUFFIXES",
    "UNSAID",
    "averages_of_run",
    "find_stacks",
    "is_of_run",
    "kept_averages",
    "listed_stacks",
    "read_average_table",
    "read_averages",
    "read_listed_averages",
    "read_references",
]

_TOLERANCE = 0.01  # of the pixel size
_OF_RUN = ("_optimiser", "_model", "_data", "_sampling")
_LABEL = "rlnReferenceImage"
AVERAGE_TABLE = "class_averages.star"  # of the classes that a selection has kept
UNSAID = (0.0, 1.0)  # pixel sizes in headers that nobody has filled in


def read_references(path: Path, *, n_classes: int, box_size: int, pixel_size: float) -> Tensor:
    """Read class averages.

    Parameters
    ----------
    path
        An MRC stack, an HDF stack of EMAN2, a table such as ``class_averages.star``, Xmipp's
        table of classes, or a model, optimiser, data or sampling file of RELION or cryopick, or
        the folder of such a run; of the folder of a selection of classes, those that were kept.
    n_classes
        Averages there must be.
    box_size
        Of the particles, px.
    pixel_size
        Of the particles, A/px.

    Returns
    -------
    Tensor
        (n_classes, box_size, box_size) float32; that of an empty class is 0.

    Raises
    ------
    FormatError
        If a file is missing or broken.
    TableError
        If a STAR file is not of a 2D classification.
    ParameterError
        If their number, box or pixel size is another than that of the run.
    DataError
        If they hold no density, or values that are not numbers.
    """
    path = Path(path)
    averages, found = read_averages(path)
    if len(averages) != n_classes:
        _refuse(path, f"hold {n_classes} averages, as --classes says", f"{len(averages)}",
                f"Give --classes {len(averages)}")  # fmt: skip
    if averages.shape[1:] != (box_size, box_size):
        got = f"{averages.shape[2]} x {averages.shape[1]} px"
        _refuse(path, f"have the box of the particles, {box_size} px", got,
                "Give averages of particles extracted alike")  # fmt: skip
    if found not in UNSAID and abs(found - pixel_size) > _TOLERANCE * pixel_size:
        _refuse(path, f"have the pixel size of the particles, {pixel_size:.4g} A", f"{found:.4g} A",
                "Give averages of particles extracted alike")  # fmt: skip
    if not np.isfinite(averages).all() or not averages.any():
        what = "0 everywhere" if np.isfinite(averages).all() else "NaN or infinity"
        raise DataError(
            f"--references {path}", must="hold densities", got=what, remedy="Give other averages"
        )
    return torch.from_numpy(np.ascontiguousarray(averages, np.float32))


def read_averages(path: Path) -> tuple[NDArray[np.float32], float]:
    """Read the averages of a stack or of a run, and their pixel size.

    Parameters
    ----------
    path
        As for `read_references`.

    Returns
    -------
    tuple of numpy.ndarray and float
        (n, y, x), and A/px; 0 or 1 where nobody has filled it in.

    Raises
    ------
    FormatError
        If a file is missing or broken.
    TableError
        If a STAR file is not of a 2D classification.
    """
    path = kept_averages(path) or path
    if path.suffix in EMAN_SUFFIXES or is_eman_database(path):
        return read_eman_stack(path)
    if path.suffix == ".xmd":
        return _read_xmd(path)
    if path.suffix != ".star" and not path.is_dir():
        pixels = read_mrc(path, dtype=np.float32)
        return pixels.reshape(-1, *pixels.shape[-2:]), read_mrc_header(path).pixel_size
    listed = None if is_of_run(path) else read_average_table(path)
    if listed is not None:
        return listed
    run = read_classification(path)
    return averages_of_run(run), run.model.pixel_size


def _read_xmd(path: Path) -> tuple[NDArray[np.float32], float]:
    """Read the averages that Xmipp lists, by their numbers where it gives them."""
    for table in read_star(path, text=("image",)).values():
        if "image" in table:
            order = (
                table["ref"].astype(int).argsort(kind="stable") if "ref" in table else slice(None)
            )
            return read_listed_averages(*_places(table["image"].iloc[order]), path)
    raise FormatError(
        str(path),
        must="list averages",
        got="no column image",
        remedy="Give Xmipp's table of classes, or the stack of averages",
    )


def kept_averages(folder: Path) -> Path | None:
    """Find the table of the averages that a selection of classes in this folder has kept.

    Such a folder holds all classes too, as a run (``rank_model.star``).

    Returns
    -------
    Path or None
        None if `folder` is no folder of cryopick's ``select classes`` or RELION's class ranker.
    """
    table = folder / AVERAGE_TABLE
    if not table.is_file():
        return None
    is_selection = (folder / SCORES).exists() or any(folder.glob("rank_*.star"))
    return table if is_selection else None


def is_of_run(path: Path) -> bool:
    """Tell by its name whether this is a folder or a table of a run."""
    return path.is_dir() or (path.suffix == ".star" and path.stem.endswith(_OF_RUN))


def read_average_table(path: Path) -> tuple[NDArray[np.float32], float] | None:
    """Read the averages that a STAR file lists itself.

    Parameters
    ----------
    path
        A table such as ``class_averages.star``, or a model file.

    Returns
    -------
    tuple of numpy.ndarray and float
        (n, y, x), and the A/px of their stack; None if the file lists none.

    Raises
    ------
    FormatError
        If a file is missing, broken or too short.
    """
    listed = _listed(path)
    return None if listed is None else read_listed_averages(*listed, path)


def listed_stacks(path: Path) -> list[Path]:
    """Find the stacks of the averages that a STAR file lists itself; none if it lists none.

    Raises
    ------
    FormatError
        If the file is missing or broken.
    """
    listed = _listed(path)
    return [] if listed is None else list(find_stacks(listed[0], path).values())


def _listed(path: Path) -> tuple[list[str], NDArray[np.int64]] | None:
    """Stack and place of each average."""
    for table in read_star(path, text=(_LABEL,)).values():
        if _LABEL in table:
            return _places(table[_LABEL])
    return None


def _places(names: Iterable[object]) -> tuple[list[str], NDArray[np.int64]]:
    halves = [str(name).rpartition("@") for name in names]
    places = np.array([int(n) - 1 if n.isdigit() else 0 for n, _, _ in halves], np.int64)
    return [stack.removesuffix(":mrcs").removesuffix(":mrc") for _, _, stack in halves], places


def averages_of_run(run: Classification) -> NDArray[np.float32]:
    """Read the averages that a run names.

    Parameters
    ----------
    run
        As it was read from its files.

    Returns
    -------
    numpy.ndarray
        (n, y, x), in the order of `run.classes`.

    Raises
    ------
    FormatError
        If it names none, or their stack is missing, broken or too short.
    """
    assert run.source is not None
    if "image" not in run.classes.columns:
        raise FormatError(
            str(run.source), must="name the averages", got="none", remedy="Give their stack instead"
        )
    places = run.classes["image_index"].to_numpy(np.int64)
    return read_listed_averages(run.classes["image"].astype(str), places, run.source)[0]


def read_listed_averages(
    names: Iterable[str], places: NDArray[np.int64], source: Path
) -> tuple[NDArray[np.float32], float]:
    """Read averages that a table names.

    Parameters
    ----------
    names, places
        (n,) stack of each average and its place there, from 0.
    source
        The table.

    Returns
    -------
    tuple of numpy.ndarray and float
        (n, y, x), and the A/px of the first one's stack.

    Raises
    ------
    FormatError
        If a stack is missing, broken or too short.
    """
    averages: list[NDArray[np.float32]] = []
    found = 0.0
    named = list(names)
    stacks = find_stacks(named, source)
    for name, index in zip(named, places, strict=True):
        averages.append(read_mrc_images(stacks[name], np.array([index]))[0].astype(np.float32))
        found = found or read_mrc_header(stacks[name]).pixel_size
    return np.stack(averages), found


def find_stacks(names: Iterable[str], table: Path) -> dict[str, Path]:
    """Find the stacks that a table names; they may have been moved with it.

    Parameters
    ----------
    names
        All names of stacks in the table.
    table
        The table. A file of the same name beside it is taken for the one stack of a table, as
        the old place may hold another run by now. Stacks of several runs can have the same name,
        so of several each is looked for where it is said to be first.

    Returns
    -------
    dict of str and Path
        By the name in the table; where nothing is found, the name as it is.
    """
    different = list(dict.fromkeys(names))
    found = {}
    for name in different:
        beside, written = table.with_name(Path(name).name), resolve_path(name, table)
        is_moved = beside.exists() and (len(different) == 1 or not written.exists())
        found[name] = beside if is_moved else written
    return found


def _refuse(path: Path, must: str, got: str, remedy: str) -> None:
    raise ParameterError(f"--references {path}", must=must, got=got, remedy=remedy)
