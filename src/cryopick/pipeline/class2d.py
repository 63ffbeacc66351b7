"""2D classification of a table of particles in a folder, which can be stopped at any time."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.em_state import EmState
from cryopick.errors import ParameterError, ProjectError
from cryopick.execution.local import require_devices
from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.class2d_checkpoint import CHECKPOINT, Saved, read_checkpoint
from cryopick.pipeline.class2d_output import GALLERY, remove_iterations
from cryopick.pipeline.class2d_parameters import ClassificationRunParameters
from cryopick.pipeline.class2d_references import kept_averages, read_averages
from cryopick.pipeline.class2d_run import (
    RESULT,
    ClassificationProgress,
    ClassificationRun,
    Report,
    Tell,
)
from cryopick.pipeline.class2d_source import ParticleSource, images_of_no_use, open_source
from cryopick.pipeline.job import Job, forgotten_if_not_begun, identity_of
from cryopick.tables.model import Particles
from cryopick.tables.paths import resolve_path

__all__ = [
    "ClassificationProgress",
    "ClassificationResult",
    "classify_particles",
    "identity_of_particles",
]

_NAME = "class2d em"
_FEWEST_OF_GROUP = 10  # particles, to tell the contrast of a micrograph
_FEWEST_ITERATIONS = 8
_FEWEST_OF_CLASS = 50  # particles


@dataclass(frozen=True, kw_only=True)
class ClassificationResult:
    """What a run has found; `values` are ready for JSON."""

    values: dict[str, Any]

    @property
    def classes(self) -> list[dict[str, Any]]:
        """One record for each class."""
        return list(self.values["classes"])


def _silent(_: object) -> None:
    pass


def _with_classes(
    parameters: ClassificationParameters, references: Path | None
) -> ClassificationParameters:
    """Fill in the number of classes: that of the references, where nobody said one."""
    if parameters.classes is not None:
        return parameters
    count = parameters.n_classes if references is None else len(read_averages(references)[0])
    return replace(parameters, classes=count)


def classify_particles(
    particles: Particles,
    out: Path,
    *,
    parameters: ClassificationParameters,
    compute: ClassificationRunParameters,
    references: Path | None = None,
    scratch: Path | None = None,
    continues: bool = False,
    overwrite: bool = False,
    inputs: Sequence[str] = (),
    progress: Report = _silent,
    tell: Tell = _silent,
) -> ClassificationResult:
    """Classify particles by expectation-maximisation and write RELION's files.

    Parameters
    ----------
    particles
        The table.
    out
        Folder of the job. Killed and started again, the run goes on from its last checkpoint to
        the same result; a finished one gives its result again.
    parameters, compute
        What to do, and with how much of the machine.
    references
        Averages to begin from: a stack, or a file or folder of an earlier run. Their number is
        that of the classes if `parameters` has none.
    scratch
        A folder on a fast disk, where images are copied to first. The copy is removed when the
        run is finished; a run that was stopped finds it again.
    continues
        Take the number of iterations from `parameters` even if the run in `out` had another.
    overwrite
        Throw away what other parameters left in `out`.
    inputs
        What the user gave, for the record.
    progress, tell
        Called with where the run is, and with sentences for the user.

    Raises
    ------
    CryopickError
        If the input is of no use, memory does not suffice, or `out` cannot be written or holds
        something else.
    """
    out = Path(out)
    require_devices(ComputeParameters(device=compute.device, execution=compute.execution))
    _require_references(parameters, references)
    parameters = _with_classes(parameters, references)
    _require_folder(out, continues=continues)
    if continues:
        _require_more(out, parameters.iterations)
    job = Job(
        out,
        name=_NAME,
        parameters=parameters.to_dict() | identity_of_particles(particles, references),
        inputs=inputs,
        results=[RESULT, CHECKPOINT, GALLERY],
        overwrite=overwrite,
        adjustable=("iterations",) if continues else (),
    )
    with forgotten_if_not_begun(out, begun=CHECKPOINT), job:
        before = _finished(out, parameters.iterations)
        if before is not None:
            job.results += [n for n in before["files"] if n not in job.results]
            tell("This run is finished; its result is:")
            return ClassificationResult(values={"warnings": [], **before})
        saved = read_checkpoint(out)
        if saved is None:
            remove_iterations(out)
        with contextlib.ExitStack() as stack:
            source = open_source(
                particles,
                corrects_ctf=parameters.ctf != "none",
                scratch=scratch,
                progress=lambda done, total: progress(
                    ClassificationProgress(step="Looking at images", done=done, total=total)
                ),
            )
            stack.callback(source.images.close)
            warnings = _warnings(source, parameters)
            for sentence in warnings:
                tell(f"Warning: {sentence}")
            run = ClassificationRun(source, parameters, compute, out, progress, tell)
            stack.callback(run.close)
            state = _reopened(saved, parameters.iterations)
            values = run.go(job, state, references, warnings=warnings)
        source.images.remove_scratch()
        return ClassificationResult(values=values)


def _require_references(parameters: ClassificationParameters, references: Path | None) -> None:
    if references is None and not parameters.update:
        raise ParameterError(
            "--no-update",
            must="come with averages to assign particles to",
            got="no --references",
            remedy="Add --references",
        )


def _require_folder(out: Path, *, continues: bool) -> None:
    """Refuse to mix with another program's run, or to go on where nothing was begun."""
    if (out / "job.json").exists():
        return
    strangers = sorted(out.glob("run_it*_*.star"))
    if strangers:
        raise ProjectError(
            str(out),
            must="hold no run of another program",
            got=strangers[-1].name,
            remedy="Choose another --out",
        )
    if continues:
        raise ProjectError(
            str(out),
            must="hold a run to continue",
            got="no job.json",
            remedy="Leave out --continue, or mend --out",
        )


def identity_of_particles(particles: Particles, references: Path | None = None) -> dict[str, str]:
    """Tell what a result depends on beside the parameters: rows, their stacks, averages."""
    digest = hashlib.blake2b(digest_size=6)
    for table in (particles.rows, particles.optics):
        digest.update(" ".join(map(str, table.columns)).encode())
        digest.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
    stacks = [resolve_path(str(n), particles.source) for n in particles.rows["image"].unique()]
    digest.update(identity_of(*stacks).encode())
    found = {"particles": f"{len(particles)} rows ({digest.hexdigest()})"}
    if references is not None:
        read = kept_averages(references) or references
        found["references"] = f"{references} ({identity_of(read)})"
    return found


def _finished(out: Path, iterations: int) -> dict[str, Any] | None:
    """Read the result of a run that has reached its end; None if there is more to do."""
    try:
        values = json.loads((out / RESULT).read_bytes())
    except (OSError, ValueError):
        return None
    is_whole = all((out / name).exists() for name in values.get("files", ["no list"]))
    return values if is_whole and values.get("n_iterations") == iterations else None


def _require_more(out: Path, iterations: int) -> None:
    """Refuse to continue to fewer iterations than are done."""
    saved = read_checkpoint(out)
    if saved is not None and saved.state.iteration > iterations:
        raise ParameterError(
            "iterations",
            must=f"be at least {saved.state.iteration}, which are done",
            got=iterations,
            remedy="Raise --iterations",
        )


def _reopened(saved: Saved | None, iterations: int) -> EmState | None:
    """State to go on from; one that had ended goes on if other iterations are asked for."""
    if saved is None or saved.n_iterations == iterations:
        return saved.state if saved else None
    state = saved.state
    return replace(state, is_finished=state.iteration == iterations, fine_from=None)


def _warnings(source: ParticleSource, parameters: ClassificationParameters) -> list[str]:
    found = images_of_no_use(source)
    per_class = len(source) / parameters.n_classes
    if 1 <= per_class < _FEWEST_OF_CLASS:
        found.append(f"{per_class:.0f} particles per class are few; fewer --classes show more.")
    if parameters.iterations < _FEWEST_ITERATIONS and parameters.update:
        found.append(
            f"{parameters.iterations} iterations are too few to settle; take at least "
            f"{_FEWEST_ITERATIONS}."
        )
    counts = np.bincount(source.group_numbers)
    few = int(((counts > 0) & (counts < _FEWEST_OF_GROUP)).sum())
    n_groups = int((counts > 0).sum())
    if parameters.scale_correction and n_groups > 1 and few:
        found.append(
            f"{few} of {n_groups} micrographs have fewer than {_FEWEST_OF_GROUP} "
            "particles, too few to tell their contrast; --no-scale-correction leaves it alone."
        )
    return found
