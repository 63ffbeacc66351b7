"""Stable 2D classification of particles in a folder, which can be stopped at any time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.class2d.stable_parameters import StableOptions, StableParameters
from cryopick.errors import DataError, ParameterError
from cryopick.execution.local import require_devices
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.image_stacks import is_packed
from cryopick.pipeline.class2d import identity_of_particles
from cryopick.pipeline.class2d_run import Tell
from cryopick.pipeline.class2d_source import images_of_no_use, open_source
from cryopick.pipeline.class2d_stable_checkpoint import CHECKPOINT, FOLDERS, finished_mains
from cryopick.pipeline.class2d_stable_parameters import StableRunParameters
from cryopick.pipeline.class2d_stable_run import RESULT, Report, StableRun
from cryopick.pipeline.class2d_stable_source import (
    limit_gpu,
    plan_stable_memory,
    require_filament_angles,
    with_radius,
)
from cryopick.pipeline.job import Job, forgotten_if_not_begun
from cryopick.pipeline.particle_images import ParticleImages
from cryopick.tables.model import Particles

__all__ = ["StableResult", "classify_stably"]

_NAME = "class2d stable"
_ADJUSTABLE = ("main_iter_limit",)
_RESULTS = (RESULT, CHECKPOINT, "class_averages.hdf", "run_data.star", *FOLDERS)


@dataclass(frozen=True, kw_only=True)
class StableResult:
    """What a run has found; `values` are ready for JSON."""

    values: dict[str, Any]


def _silent(*_: object) -> None:
    pass


def classify_stably(
    particles: Particles,
    out: Path,
    *,
    options: StableOptions,
    compute: StableRunParameters,
    diameter: float | None = None,
    radius: float | None = None,
    scratch: Path | None = None,
    overwrite: bool = False,
    inputs: Sequence[str] = (),
    report: Report = _silent,
    tell: Tell = _silent,
) -> StableResult:
    """Make classes that are stable and reproducible, and write SPHIRE's and RELION's files.

    Parameters
    ----------
    particles
        From a STAR table, or from an HDF stack (`read_stable_particles`).
    out
        Folder of the job. Killed and started again, the run goes on from its last state to the
        same result; a finished one gives its result again.
    options, compute
        What to do, with how much of the machine, and where to begin again.
    diameter, radius
        Of the particle, A or px of the input: one of the two.
    scratch
        A folder on a fast disk, where images are copied to first; removed at the end.
    overwrite
        Throw away what other parameters left in `out`.
    inputs
        What the user gave, for the record.
    report, tell
        Called with step, share done and a note; and with sentences for the user.

    Raises
    ------
    CryopickError
        If the input is of no use, memory does not suffice, or `out` cannot be written or holds
        something else.
    """
    out = Path(out)
    require_devices(ComputeParameters(device=compute.device, execution=compute.execution))
    parameters = _checked(particles, options, scratch, diameter=diameter, radius=radius)
    what = {
        **parameters.to_dict(), "skip_ordering": compute.skip_ordering,
        **identity_of_particles(particles),
    }  # fmt: skip
    job = Job(
        out, name=_NAME, parameters=what, inputs=inputs, results=_RESULTS, overwrite=overwrite,
        adjustable=_ADJUSTABLE,
    )  # fmt: skip
    _require_limit(out, parameters, compute, job)
    with forgotten_if_not_begun(out, begun=CHECKPOINT), job:
        before = _finished(out, parameters) if compute.restart < 0 else None
        if before is not None:
            job.results += [n for n in before["files"] if n not in job.results]
            tell("This run is finished; its result is:")
            return StableResult(values=before)
        values = _run(job, out, particles, parameters, compute, scratch, report, tell)
    return StableResult(values=values)


def _run(
    job: Job,
    out: Path,
    particles: Particles,
    parameters: StableParameters,
    compute: StableRunParameters,
    scratch: Path | None,
    report: Report,
    tell: Tell,
) -> dict[str, Any]:
    """Open the images, and do what is left."""
    with contextlib.ExitStack() as stack:
        source = open_source(
            particles, corrects_ctf=parameters.ctf != "none", scratch=scratch,
            progress=_shares(report, "Looking at images"),
        )  # fmt: skip
        stack.callback(source.images.close)
        warnings = images_of_no_use(source)
        for sentence in warnings:
            tell(f"Warning: {sentence}")
        tell(str(plan_stable_memory(source, parameters, compute)))
        limit_gpu(compute)
        run = StableRun(source, parameters, compute, out, report)
        stack.callback(run.close)
        values = run.go(job, warnings=warnings)
    source.images.remove_scratch()
    return values


def _shares(report: Report, step: str) -> Callable[[int, int], None]:
    return lambda done, total: report(step, done / max(total, 1), "")


def _checked(
    particles: Particles,
    options: StableOptions,
    scratch: Path | None,
    *,
    diameter: float | None,
    radius: float | None,
) -> StableParameters:
    """Check all that can be checked before a pixel is read, and fill in the radius."""
    packed = any(is_packed(Path(str(name))) for name in particles.rows["image"].unique())
    if packed and scratch is not None:  # compressed stacks are looked at as they are copied
        box_size = int(particles.optics["box_size"].iloc[0])
        pixel_size = float(particles.optics["pixel_size"].iloc[0])
    else:
        with ParticleImages.open(particles, require_ctf=options.ctf != "none") as images:
            box_size, pixel_size = images.box_size, images.pixel_size
    parameters = with_radius(
        options, diameter=diameter, radius=radius, pixel_size=pixel_size, box_size=box_size
    )
    require_filament_angles(particles, parameters)
    least = 2 * parameters.images_per_class(len(particles))
    if len(particles) < least:
        raise DataError(
            str(particles.source or "the table"),
            must=f"hold at least {least} particles, two classes", got=f"{len(particles)}",
            remedy="Lower --img-per-grp, or give more particles",
        )  # fmt: skip
    return parameters


def _require_limit(
    out: Path, parameters: StableParameters, compute: StableRunParameters, job: Job
) -> None:
    """Refuse fewer main iterations than are done, and a restart of nothing."""
    stored = job.stored_parameters()
    limit, done = parameters.main_iter_limit, finished_mains(out)
    if compute.restart > 0 and (stored is None or compute.restart > done):
        raise ParameterError(
            "restart", must=f"be a main iteration that is finished (0 to {done})",
            got=compute.restart, remedy="Lower --restart, or leave it out to go on",
        )  # fmt: skip
    kept = compute.restart if compute.restart > 0 else done
    if stored is not None and 0 < limit < kept:
        raise ParameterError(
            "main_iter_limit", must=f"be at least {kept}, which are done", got=limit,
            remedy=f"Raise it, or add --restart {limit}",
        )  # fmt: skip


def _finished(out: Path, parameters: StableParameters) -> dict[str, Any] | None:
    """Read the result of a run that has reached its end; None if there is more to do."""
    try:
        values: dict[str, Any] = json.loads((out / RESULT).read_bytes())
    except (OSError, ValueError):
        return None
    if not all((out / name).exists() for name in values.get("files", ["no list"])):
        return None
    is_same = values.get("main_iter_limit") == parameters.main_iter_limit
    return values if is_same or values.get("is_exhausted") else None
