"""Extract the particles of all micrographs: one stack each, and one table of them all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryopick.errors import CryopickError
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.io.micrograph import read_micrograph_size
from cryopick.pipeline.extraction_field import FieldPayload, extract_field, stack_path
from cryopick.pipeline.extraction_plan import ExtractionPlan, plan_extraction
from cryopick.pipeline.job import Job, ProgressCallback, Record, Task, identity_of
from cryopick.tables.model import Micrographs, Particles, Picks
from cryopick.tables.relion import write_particles

__all__ = ["ExtractionResult", "extract"]


@dataclass(frozen=True, kw_only=True)
class ExtractionResult:
    """What became of the coordinates."""

    n_particles: int
    n_micrographs: int  # that were given
    n_without_coordinates: int  # micrographs
    n_unlisted: int  # micrographs that only the coordinates name
    n_below_fom: int  # picks
    n_edge: int  # boxes that ran over an edge and were dropped
    n_outside: int  # boxes that lay wholly outside
    n_flat: int  # boxes without contrast
    image_size: int  # px
    pixel_sizes: list[float]  # A/px, one for each optics group
    particles: str | None  # path of the table; None where there is no particle
    failures: dict[str, str] = field(default_factory=dict)  # micrograph or file: sentence

    def to_dict(self) -> dict[str, Any]:
        """All values, ready for JSON."""
        return asdict(self)


def extract(
    micrographs: Micrographs,
    coordinates: Picks | Particles,
    out: Path,
    *,
    parameters: ExtractionParameters,
    compute: ComputeParameters,
    inputs: Sequence[str] = (),
    refused: Sequence[CryopickError] = (),
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> ExtractionResult:
    """Extract particles and write ``particles.star``.

    Parameters
    ----------
    micrographs
        The fields, with pixel sizes and CTF.
    coordinates
        Picks, or particles to be extracted again.
    out
        Folder for the stacks (``<micrograph key>.mrcs``), a table beside each
        (``<micrograph key>_extract.star``) and the table of all particles. Killed and started
        again, the job goes on where it was.
    parameters, compute
        What to do, and with how much of the machine.
    inputs
        What the user gave, for the record.
    refused
        Coordinate files that could not be read, to be listed among the failures.
    overwrite
        Throw away what other parameters left in `out`.
    progress
        Called with micrographs done and in all.

    Returns
    -------
    ExtractionResult
        Micrographs that failed are listed; the others are extracted.

    Raises
    ------
    CryopickError
        If there are no coordinates, or `out` cannot be written or holds another job.
    """
    parameters = parameters.resolved()
    plan = plan_extraction(micrographs, coordinates, parameters)
    values = parameters.to_dict()
    with Job(out, name="extract", parameters=values, inputs=inputs, overwrite=overwrite) as job:
        executor = make_executor(
            compute, n_items=len(plan.fields), bytes_per_item=_peak_bytes(plan, parameters)
        )
        tasks = _tasks(plan, Path(out), parameters, compute)
        records = job.run(executor, extract_field, tasks, progress=progress)
        particles = _join(plan, records, Path(out))
        path = Path(out) / "particles.star"
        if particles is None:
            path.unlink(missing_ok=True)
        else:
            write_particles(path, particles)
    failures = {f.micrograph: r.error for f, r in zip(plan.fields, records, strict=True) if r.error}
    failures |= {error.what: str(error) for error in refused}
    return ExtractionResult(
        n_particles=0 if particles is None else len(particles),
        n_micrographs=plan.n_micrographs,
        n_without_coordinates=plan.n_micrographs - len(plan.fields),
        n_unlisted=plan.n_unlisted,
        n_below_fom=plan.n_below_fom,
        n_edge=_total(records, "n_edge"),
        n_outside=_total(records, "n_outside"),
        n_flat=_total(records, "n_flat"),
        image_size=parameters.image_size,
        pixel_sizes=[round(float(s), 6) for s in plan.optics["pixel_size"]],
        particles=None if particles is None else str(path),
        failures=failures,
    )


def _total(records: Sequence[Record], name: str) -> int:
    return sum(int(r.summary.get(name, 0)) for r in records if r.is_done)


def _tasks(
    plan: ExtractionPlan, folder: Path, parameters: ExtractionParameters, compute: ComputeParameters
) -> list[Task]:
    hashes = pd.util.hash_pandas_object(plan.table, index=False).to_numpy()
    tasks = []
    for number, one in enumerate(plan.fields):
        digest = hashlib.blake2b(hashes[one.rows].tobytes(), digest_size=8).hexdigest()
        payload = FieldPayload(
            field=one,
            folder=folder,
            table=plan.table.iloc[one.rows],
            optics=plan.optics,
            centers_yx=plan.centers_yx[one.rows],
            parameters=parameters,
            device=compute.devices[number % len(compute.devices)],
        )
        identity = f"{identity_of(one.path)} {digest} {one.pixel_size:.6g}"
        tasks.append(Task(key=one.key, identity=identity, payload=payload))
    return tasks


def _peak_bytes(plan: ExtractionPlan, parameters: ExtractionParameters) -> int:
    """Estimate from the first micrograph that can be read."""
    batch = 16 * max(1 << 21, parameters.filter_box_size**2)
    for one in plan.fields:
        try:
            height, width = read_micrograph_size(one.path)
        except CryopickError:
            continue
        return 12 * height * width + batch
    return batch


def _join(plan: ExtractionPlan, records: Sequence[Record], folder: Path) -> Particles | None:
    """Make the table of all particles from the plan and what became of each micrograph."""
    is_kept = np.zeros(len(plan.table), bool)
    indices = np.zeros(len(plan.table), np.int64)
    images = np.empty(len(plan.fields), object)
    for number, (one, record) in enumerate(zip(plan.fields, records, strict=True)):
        images[number] = str(stack_path(folder, one.key))
        if record.is_done:
            kept = np.ones(one.rows.stop - one.rows.start, bool)
            kept[np.asarray(record.summary["dropped"], np.int64)] = False
            is_kept[one.rows] = kept
            indices[one.rows] = np.cumsum(kept) - 1
    if not is_kept.any():
        return None
    lengths = [one.rows.stop - one.rows.start for one in plan.fields]
    table = plan.table.assign(image=np.repeat(images, lengths), image_index=indices)
    rows = table[is_kept].reset_index(drop=True)
    optics = plan.optics[plan.optics["optics_group"].isin(rows["optics_group"].unique())]
    return Particles(rows=rows, optics=optics)
