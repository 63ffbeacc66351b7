"""Extract the particles of all micrographs: one stack each, and one table of them all."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import CryopickError, TableError
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.io.atomic import aside_path, commit_file, output_errors
from cryopick.io.micrograph import read_micrograph_size
from cryopick.pipeline.extraction_field import (
    FieldCtf,
    FieldPayload,
    extract_field,
    stack_path,
    table_path,
)
from cryopick.pipeline.extraction_plan import ExtractionPlan, plan_extraction
from cryopick.pipeline.job import Job, ProgressCallback, Record, Task, identity_of
from cryopick.tables.model import Micrographs, Particles, Picks
from cryopick.tables.relion import write_particles

__all__ = ["ExtractionResult", "extract"]

_LENS = ("voltage", "spherical_aberration", "amplitude_contrast")
_CTF = ("defocus_u", "defocus_v", "defocus_angle", "phase_shift", "ctf_bfactor", "ctf_scale")


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
    job = Job(
        out,
        name="extract",
        parameters=values,
        inputs=inputs,
        results=("particles.star",),
        overwrite=overwrite,
    )
    with job:
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
            _write_parts(path, plan, records)
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
    ctf_columns = _ctf_columns(plan, parameters)
    groups = plan.table["optics_group"].to_numpy()
    lenses = {int(g): _lens(plan, int(g)) for g in np.unique(groups)} if ctf_columns else {}
    tasks = []
    for number, one in enumerate(plan.fields):
        ctf = None
        if ctf_columns:
            columns = {name: values[one.rows] for name, values in ctf_columns.items()}
            ctf = FieldCtf(per_particle=columns, **lenses[int(groups[one.rows.start])])
        payload = FieldPayload(
            field=one,
            folder=folder,
            centers_yx=plan.centers_yx[one.rows],
            ctf=ctf,
            parameters=parameters,
            device=compute.devices[number % len(compute.devices)],
        )
        tasks.append(Task(key=one.key, identity=_identity(payload), payload=payload))
    return tasks


def _identity(payload: FieldPayload) -> str:
    """Everything that the images of a micrograph depend on, beside the parameters."""
    digest = hashlib.blake2b(payload.centers_yx.tobytes(), digest_size=8)
    if payload.ctf is not None:
        for column in payload.ctf.per_particle.values():
            digest.update(column.tobytes())
        digest.update(repr([getattr(payload.ctf, name) for name in _LENS]).encode())
    size = payload.field.pixel_size
    return f"{identity_of(payload.field.path)} {digest.hexdigest()} {size:.6g}"


def _ctf_columns(
    plan: ExtractionPlan, parameters: ExtractionParameters
) -> dict[str, NDArray[np.float32]]:
    if not (parameters.phase_flip or parameters.premultiply):
        return {}
    there = [name for name in _CTF if name in plan.table.columns]
    return {name: plan.table[name].to_numpy(np.float32) for name in there}


def _lens(plan: ExtractionPlan, group: int) -> dict[str, float]:
    row = plan.optics[plan.optics["optics_group"] == group].iloc[0]
    for name in _LENS:
        if name not in row.index:
            raise TableError(
                "the optics groups of the micrographs",
                must=f"say the {name.replace('_', ' ')} where the CTF is applied",
                got="none",
                remedy="Add it to their table",
            )
    return {name: float(row[name]) for name in _LENS}


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


def _write_parts(path: Path, plan: ExtractionPlan, records: Sequence[Record]) -> None:
    """Write each micrograph's rows of a particle table into a table of their own.

    They are cut out of the text that is there: formatting every small table anew would take
    longer than cutting the images.
    """
    with path.open("rb") as lines:
        header = []
        for line in lines:
            header.append(line)
            if line == b"data_particles\n":
                break
        for line in lines:
            if not (line.isspace() or line.startswith((b"loop_", b"_"))):
                break
            header.append(line)
        rows = itertools.chain([line], lines)
        start = b"".join(header)
        for one, record in zip(plan.fields, records, strict=True):
            count = int(record.summary["n_particles"]) if record.is_done else 0
            if count:
                part = table_path(path.parent, one.key)
                content = start + b"".join(itertools.islice(rows, count)) + b"\n"
                aside = aside_path(part)
                with output_errors(part):
                    if part.exists() and part.read_bytes() == content:
                        continue
                    aside.write_bytes(content)
                    commit_file(aside, part)
