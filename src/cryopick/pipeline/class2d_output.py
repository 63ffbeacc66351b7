"""Write what a 2D classification has found: RELION's files and a picture of the averages."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.io.atomic import output_errors
from cryopick.io.mrc import write_mrc
from cryopick.pipeline.class2d_averages import FinalAverages
from cryopick.report.class_gallery import write_class_gallery
from cryopick.tables.classification import Classification
from cryopick.tables.relion_class2d import write_classification

__all__ = ["GALLERY", "iteration_files", "iteration_prefix", "remove_iterations", "write_iteration"]

GALLERY = "classes.png"
_KINDS = ("data.star", "model.star", "optimiser.star", "sampling.star")
_STACKS = ("classes.mrcs", "unmasked_classes.mrcs")


def iteration_prefix(folder: Path, iteration: int) -> Path:
    """Name the files of an iteration, as RELION does.

    Examples
    --------
    >>> iteration_prefix(Path("Class2D"), 25).as_posix()
    'Class2D/run_it025'
    """
    return Path(folder) / f"run_it{iteration:03d}"


def iteration_files(iteration: int) -> list[str]:
    """Names of all files of an iteration, the optimiser last."""
    return [f"run_it{iteration:03d}_{kind}" for kind in (*_STACKS, *_KINDS)]


def remove_iterations(folder: Path, *, keep: Sequence[str] = ()) -> None:
    """Remove the files of iterations, as a run begins anew.

    Raises
    ------
    OutputError
        If one cannot be removed.
    """
    for path in sorted(Path(folder).glob("run_it[0-9][0-9][0-9]_*")):
        if path.name.split("_", 2)[2] in (*_KINDS, *_STACKS) and path.name not in keep:
            with output_errors(path):
                path.unlink(missing_ok=True)


def write_iteration(
    folder: Path, classification: Classification, final: FinalAverages, *, command: str
) -> list[str]:
    """Write the averages, the four tables that name them, and the gallery.

    Parameters
    ----------
    folder
        Of the job.
    classification, final
        Tables and averages of one state.
    command
        The command line, for the head of the optimiser file.

    Returns
    -------
    list of str
        Names of the files, in `folder`.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    assert classification.optimiser is not None
    iteration = classification.optimiser.iteration
    prefix = iteration_prefix(folder, iteration)
    pixel_size = classification.model.pixel_size
    averages = final.averages
    images: NDArray[np.float32] = averages.images.cpu().numpy()
    for kind, pixels in zip(_STACKS, (images, averages.unmasked.cpu().numpy()), strict=True):
        write_mrc(Path(f"{prefix}_{kind}"), pixels, pixel_size=pixel_size)
    with contextlib.suppress(FileNotFoundError):  # the tables are whole only with it
        Path(f"{prefix}_optimiser.star").unlink()
    write_classification(prefix, classification, command=command)
    classes = classification.classes
    n_none = int((classification.particles.rows["class_number"] == 0).sum())
    write_class_gallery(
        Path(folder) / GALLERY,
        images,
        counts=classes["particle_count"],
        resolutions=classes["estimated_resolution"],
        pixel_size=pixel_size,
        note=f"{n_none:,} in no class (junk) not shown." if n_none else "",
    )
    return [*iteration_files(iteration), GALLERY]
