"""Score a table of classified particles against the truth of a simulated stack."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cryopick.class2d.evaluate import ClassEvaluation, evaluate_classes
from cryopick.class2d.truth import ClassTruth
from cryopick.errors import FormatError, TableError
from cryopick.io.mrc import read_mrc
from cryopick.simulation.orientations import point_group
from cryopick.tables.model import require_columns
from cryopick.tables.relion import read_particles
from cryopick.tables.relion_class2d import find_classification

__all__ = ["ClassFileEvaluation", "evaluate_class_files", "read_class_truth"]

_COLUMNS = ("class_number", "psi", "shift_x", "shift_y")
_REMEDY = "Give the folder of cryopick simulate particles"


@dataclass(frozen=True, kw_only=True)
class ClassFileEvaluation:
    """Scores, ready to be printed."""

    scores: ClassEvaluation

    def to_dict(self) -> dict[str, Any]:
        """Gather all numbers for JSON; what is not known is None."""
        return {
            **self.scores.total.to_dict(),
            "rare_groups": _records(self.scores.rare_groups),
            "classes": _records(self.scores.classes),
        }


def evaluate_class_files(
    particles: Path,
    truth: Path,
    *,
    n_classes: int | None = None,
    min_size: int = 5,
    averages: Path | None = None,
    symmetry: str = "C1",
) -> ClassFileEvaluation:
    """Score a 2D classification.

    Parameters
    ----------
    particles
        STAR file with classes, psi and offsets, such as ``run_it025_data.star``, or the folder of
        a run, of which the last iteration is taken; its images are those of the simulated stack,
        told by their number.
    truth
        Folder with ``truth.npz`` and ``clean.npy``, and ``truth.star`` where there is one.
    n_classes
        Classes asked for; the highest class number if not given.
    min_size
        True members that a class needs to count as one of views.
    averages
        Stack of class averages, white particles; None scores none.
    symmetry
        Point group of the particle, for the spread of views.

    Raises
    ------
    FormatError
        If a file is missing or broken.
    TableError
        If the table lacks a column, or names images that the truth does not have.
    ParameterError
        If there is no such point group, or there are more classes than `n_classes`.
    ShapeError
        If the averages have another box.
    """
    known = read_class_truth(truth, symmetry=symmetry)
    particles = find_classification(particles).data if particles.is_dir() else particles
    rows = read_particles(particles).rows
    require_columns(rows, _COLUMNS, table=str(particles))
    if not len(rows):
        raise TableError(
            str(particles), must="hold particles", got="none", remedy="Give a result of class2d"
        )
    pictures = None
    if averages is not None:
        stack = read_mrc(averages, dtype=np.float32)
        pictures = torch.from_numpy(stack if stack.ndim == 3 else stack[None])
    scores = evaluate_classes(
        rows, known, n_classes=n_classes, min_size=min_size, averages=pictures
    )
    return ClassFileEvaluation(scores=scores)


def read_class_truth(folder: Path, *, symmetry: str = "C1") -> ClassTruth:
    """Read what is known of the images of a simulated stack; the projections stay on disk.

    Parameters
    ----------
    folder
        Holds ``truth.npz`` (label, junk, apix, and R where known) and ``clean.npy``; species
        and views come from ``truth.star`` if it is there.
    symmetry
        Point group of the particle.

    Raises
    ------
    FormatError
        If a file is missing or broken, or the files are of different stacks.
    ParameterError
        If there is no such point group.
    """
    folder = Path(folder)
    group = point_group(symmetry)
    if not folder.is_dir():
        raise FormatError(
            f"--truth {folder}",
            must="be the folder that holds truth.npz and clean.npy of the simulated stack",
            got="a file" if folder.exists() else "no such folder",
            remedy=_REMEDY,
        )
    arrays = _read_arrays(folder / "truth.npz")
    clean = _map_clean(folder / "clean.npy")
    label, is_junk = arrays["label"].astype(np.int64), arrays["junk"].astype(bool)
    rotations = arrays.get("R")
    sizes = {len(label), len(is_junk), len(clean), len(label if rotations is None else rotations)}
    if len(sizes) > 1:
        raise FormatError(
            str(folder),
            must="hold as many rows in truth.npz as projections in clean.npy",
            got=" and ".join(map(str, sorted(sizes))),
            remedy=_REMEDY,
        )
    species, view = _read_names(folder / "truth.star", label, is_junk)
    return ClassTruth(
        clean=clean,
        label=label,
        is_junk=is_junk,
        pixel_size=float(arrays["apix"]),
        rotations=None if rotations is None else rotations.astype(np.float64),
        view=view,
        species=species,
        symmetry=group,
    )


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as handle, np.load(handle) as stored:
            return {n: stored[n] for n in ("label", "junk", "apix")} | {
                n: stored[n] for n in ("R",) if n in stored.files
            }
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise FormatError(
            str(path), must="hold label, junk and apix", got=_reason(error), remedy=_REMEDY
        ) from error


def _map_clean(path: Path) -> torch.Tensor:
    """Map the projections; a private mapping, as torch wants memory it could write to."""
    try:
        clean = np.load(path, mmap_mode="c")
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(
            str(path), must="hold noise-free projections", got=_reason(error), remedy=_REMEDY
        ) from error
    if clean.ndim != 3 or clean.shape[1] != clean.shape[2] or clean.dtype.kind != "f":
        raise FormatError(
            str(path),
            must="hold square projections",
            got=f"{clean.dtype} of {' x '.join(map(str, clean.shape))}",
            remedy=_REMEDY,
        )
    return torch.from_numpy(clean)


def _read_names(
    path: Path, label: NDArray[np.int64], is_junk: NDArray[np.bool_]
) -> tuple[tuple[str, ...], NDArray[np.int64] | None]:
    """Names of the species and the number of each view, as far as ``truth.star`` says them."""
    if not path.is_file():
        return (), None
    rows = read_particles(path).rows.sort_values("image_index")
    if not np.array_equal(rows["image_index"], np.arange(len(label))):
        raise FormatError(
            str(path),
            must=f"name images 1 to {len(label)}",
            got=f"{len(rows)} images",
            remedy=_REMEDY,
        )
    names: tuple[str, ...] = ()
    if "cryopickSpecies" in rows:
        of_label = dict(zip(label[~is_junk], rows["cryopickSpecies"][~is_junk], strict=True))
        names = tuple(str(of_label.get(n, n)) for n in range(max(of_label, default=-1) + 1))
    view = (
        pd.to_numeric(rows["cryopickView"]).to_numpy(np.int64) if "cryopickView" in rows else None
    )
    return names, view


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"no {error.args[0]}" if isinstance(error, KeyError) and error.args else "other content"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table for JSON, which knows no NaN."""
    return [
        {str(k): None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in table.to_dict("records")
    ]
