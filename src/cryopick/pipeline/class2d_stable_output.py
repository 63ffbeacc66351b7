"""Write what a stable classification has found: SPHIRE's files, RELION's, and a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cryopick.class2d.averages import ClassAverages
from cryopick.class2d.ordering import Ordering, apply_ordering, order_averages
from cryopick.io.atomic import write_json
from cryopick.io.mrc import write_mrc
from cryopick.io.star import write_star
from cryopick.pipeline.class2d_stable_averages import average_members
from cryopick.pipeline.class2d_stable_parameters import StableRunParameters
from cryopick.pipeline.class2d_stable_report import write_stable_report
from cryopick.pipeline.class2d_stable_sphire import (
    write_lists,
    write_ordered,
    write_sphire_averages,
)
from cryopick.pipeline.class2d_stable_tables import (
    Outcome,
    class_rows,
    particle_rows,
    to_stable_classification,
)
from cryopick.pipeline.job import ProgressCallback
from cryopick.tables.model import Particles
from cryopick.tables.relion import write_particles
from cryopick.tables.relion_class2d import write_classification

__all__ = ["REPORT", "Written", "write_outcome"]

REPORT = "report.html"
_PREFIX = "run"
_DATA = f"{_PREFIX}_data.star"
_TABLE = "class_averages.star"


@dataclass(frozen=True, kw_only=True)
class Written:
    """Names of the files in the folder, and what is known of each accepted class, in order."""

    files: list[str]
    classes: list[dict[str, Any]]


def write_outcome(
    out: Path, outcome: Outcome, compute: StableRunParameters, *, progress: ProgressCallback
) -> Written:
    """Write all files of a run.

    Parameters
    ----------
    out
        Folder of the job.
    outcome
        Of the run.
    compute
        Threads, and whether to put averages in order.
    progress
        Called with the full averages that are done and in all.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    rows = particle_rows(outcome, out / _DATA)
    files = [*write_lists(out, outcome), "parameters.json"]
    write_json(out / "parameters.json", _parameters(outcome))
    files += _write_particles(out, outcome, rows)
    table, ordering, full = pd.DataFrame(), None, None
    if len(outcome.accepted):
        full = average_members(
            outcome.source, outcome.members(), mask_diameter=outcome.mask_diameter,
            threads=compute.n_threads, progress=progress,
        )  # fmt: skip
        table = class_rows(outcome, str(out / "class_averages.mrcs"))
        table["rlnEstimatedResolution"] = full.estimated_resolution.numpy()
        files += _write_averages(out, outcome, full, rows)
        if not compute.skip_ordering:
            ordering, ordered = _write_ordered(out, outcome, compute)
            files += ordered
            place = np.empty(len(table), np.int64)
            place[ordering.order] = np.arange(1, len(table) + 1)
            table["cryopickPlaceInOrder"] = place
        write_star(out / _TABLE, {"": table})
        files.append(_TABLE)
    write_stable_report(out / REPORT, outcome, table, ordering=ordering)
    files.append(REPORT)
    return Written(files=files, classes=_records(table))


def _write_particles(out: Path, outcome: Outcome, rows: pd.DataFrame) -> list[str]:
    """Write the table of all particles, that of the members and that of the others."""
    optics = outcome.source.images.particles.optics
    is_member = (rows["class_number"] > 0).to_numpy()
    names = {
        _DATA: np.ones(len(rows), bool),
        "processed_particles.star": is_member,
        "not_processed_particles.star": ~is_member,
    }
    for name, kept in names.items():
        chosen = rows[kept].reset_index(drop=True)
        write_particles(out / name, Particles(rows=chosen, optics=optics))
    return list(names)


def _write_averages(
    out: Path, outcome: Outcome, full: ClassAverages, rows: pd.DataFrame
) -> list[str]:
    """Write averages at working size and at full size, and RELION's model."""
    source = outcome.source
    small, whole = outcome.averages, full.images.numpy()
    write_mrc(out / "class_averages.mrcs", small, pixel_size=outcome.shrink.pixel_size)
    written = write_sphire_averages(
        out / "class_averages.hdf", outcome, small, pixel_size=outcome.shrink.pixel_size
    )
    written += write_sphire_averages(
        out / "full_class_averages.hdf", outcome, whole, pixel_size=source.pixel_size
    )
    stack = out / f"{_PREFIX}_classes.mrcs"
    write_mrc(stack, whole, pixel_size=source.pixel_size)
    unmasked = out / f"{_PREFIX}_unmasked_classes.mrcs"
    write_mrc(unmasked, full.unmasked.numpy(), pixel_size=source.pixel_size)
    tables = to_stable_classification(outcome, full, rows, stack.as_posix())
    write_classification(out / _PREFIX, tables)
    names = ["class_averages.mrcs", stack.name, unmasked.name, f"{_PREFIX}_model.star"]
    return [*names, *(path.name for path in written)]


def _write_ordered(
    out: Path, outcome: Outcome, compute: StableRunParameters
) -> tuple[Ordering, list[str]]:
    images = torch.from_numpy(np.ascontiguousarray(outcome.averages))
    diameter = min(2 * outcome.shrink.radius, float(images.shape[-1]))
    ordering = order_averages(images, diameter=diameter, threads=compute.n_threads)
    moved: NDArray[np.float32] = apply_ordering(images, ordering).numpy()
    written = write_ordered(out / "ordered_class_averages.hdf", outcome, moved, ordering)
    stack = out / "ordered_class_averages.mrcs"
    write_mrc(stack, moved, pixel_size=outcome.shrink.pixel_size)
    return ordering, [stack.name, *(path.name for path in written)]


def _parameters(outcome: Outcome) -> dict[str, Any]:
    """All parameters, and what follows from them for these images."""
    p, shrink, n = outcome.parameters, outcome.shrink, len(outcome.source)
    return p.to_dict() | {
        "n_images": n,
        "images_per_class": p.images_per_class(n),
        "least_class_size": p.least_size(n),
        "shrink_ratio": round(shrink.ratio, 6),
        "box_size": outcome.source.box_size,
        "working_size": shrink.size,
        "pixel_size": outcome.source.pixel_size,
        "working_pixel_size": round(shrink.pixel_size, 6),
        "pixel_error_limit": round(p.pixel_error_limit, 6),
    }


_RECORDS = {
    "rlnClassNumber": "number",
    "cryopickParticleCount": "n_particles",
    "cryopickMainIteration": "main",
    "cryopickGeneration": "generation",
    "cryopickPixelError": "pixel_error",
    "cryopickStableShare": "stable_share",
    "cryopickReproducibility": "reproducibility",
    "rlnEstimatedResolution": "resolution",
}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    if not len(table):
        return []
    rows = table[list(_RECORDS)].rename(columns=_RECORDS)
    return [{str(k): _plain(v) for k, v in row.items()} for row in rows.to_dict("records")]


def _plain(value: Any) -> int | float | None:
    if isinstance(value, int):
        return value
    return round(float(value), 4) if np.isfinite(value) else None
