"""What a consensus writes: its picks, as a picking job does; Xmipp's table; and the particles."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cryopick.errors import ParameterError
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.io.atomic import output_errors
from cryopick.io.xmd import write_xmd
from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.picking.consensus_reliability import Reliability
from cryopick.picking.field_picks import FieldPicks
from cryopick.pipeline.consensus_chances import Chances
from cryopick.pipeline.consensus_judge import by_field, keep_apart
from cryopick.pipeline.consensus_output_parameters import ConsensusOutputParameters
from cryopick.pipeline.consensus_sets import CandidateField
from cryopick.pipeline.extraction import ExtractionResult, extract
from cryopick.pipeline.extraction_plan import open_coordinates
from cryopick.pipeline.job import Job, ProgressCallback, Record, Task
from cryopick.pipeline.picking import PickingResult, gather_picks, store_picks
from cryopick.tables.eman import whole_pixels
from cryopick.tables.model import Micrographs
from cryopick.tables.pick_scores import PROBABILITY, VOTES, PickScore
from cryopick.tables.relion import read_particles
from cryopick.tables.xmipp import write_xmd_particles

__all__ = [
    "PARTICLES",
    "extract_consensus",
    "forget_particles",
    "particle_box",
    "score_candidates_of_fields",
    "write_consensus_xmd",
    "write_picks",
]

PARTICLES = "particles"
_TABLE = "particles.star"
_XMIPP_SCORE = "zScoreDeepLearning1"


def score_candidates_of_fields(
    fields: Sequence[CandidateField], trust: Reliability, parameters: ConsensusParameters
) -> dict[str, FieldPicks]:
    """Give the candidates of each field their score, and keep them apart.

    Parameters
    ----------
    fields
        With their candidates.
    trust
        Of all of them together.
    parameters
        Of the consensus.

    Returns
    -------
    dict
        By the key of the field; candidates best first.
    """
    chances = by_field(fields, trust.probability)
    is_counted = parameters.method == "votes"
    made = {}
    for field, chance in zip(fields, chances, strict=True):
        score = field.found.votes.astype(np.float64) if is_counted else chance
        reach = parameters.distance / field.pixel_size
        kept = keep_apart(field.found.positions, score, distance=reach)
        least = (
            float(parameters.least_votes(len(field.is_seen)))
            if is_counted
            else parameters.least_probability
        )
        x, y = field.found.positions[kept].T
        made[field.key] = FieldPicks(
            x=x,
            y=y,
            fom=score[kept],
            diameter=np.full(len(kept), parameters.diameter),
            threshold=least,
            valid_fraction=1.0,
            maps={},
        )
    return made


def write_picks(
    job: Job,
    table: Micrographs,
    fields: Sequence[CandidateField],
    judged: Chances,
    found: Mapping[str, FieldPicks],
    *,
    parameters: ConsensusParameters,
    compute: ComputeParameters,
    progress: ProgressCallback,
) -> PickingResult:
    """Write the picks of each micrograph and the lists that join them.

    Parameters
    ----------
    job
        Whose folder they go to.
    table
        All micrographs.
    fields
        Those that a set has looked at.
    judged
        What could be judged, and what was refused.
    found
        Scored candidates by the key of the field.
    parameters, compute
        Of the consensus and of the machine.
    progress
        Called with micrographs done and in all.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    score = VOTES if parameters.method == "votes" else PROBABILITY
    tasks = [
        Task(key=f.key, identity=_identity(found[f.key]), payload=_Stored(f.key, found[f.key]))
        for f in judged.fields
    ]
    executor = make_executor(compute, n_items=len(tasks), bytes_per_item=0)
    store = partial(_store, folder=job.folder, score=score)
    of_key = {r.key: r for r in job.run(executor, store, tasks, progress=progress)}
    every = [
        of_key[f.key]
        if f.key in of_key
        else Record(key=f.key, identity="", error=judged.failed[f.micrograph])
        for f in fields
    ]
    return gather_picks(job.folder, _some(table, fields), every, score=score)


class _Stored(NamedTuple):
    key: str
    picks: FieldPicks


def _store(stored: _Stored, *, folder: Path, score: PickScore) -> dict[str, Any]:
    return store_picks(stored.picks, folder=folder, key=stored.key, score=score)


def _identity(picks: FieldPicks) -> str:
    """Name all that is written of a micrograph."""
    digest = hashlib.sha256(f"{picks.threshold:g}".encode())
    for values in (picks.x, picks.y, picks.fom, picks.diameter):
        digest.update(np.round(values, 6).astype("<f8").tobytes())
    return digest.hexdigest()[:16]


def _some(table: Micrographs, fields: Sequence[CandidateField]) -> Micrographs:
    names = [f.micrograph for f in fields]
    rows = table.rows[table.rows["micrograph"].isin(names)].reset_index(drop=True)
    return Micrographs(rows=rows, optics=table.optics, source=table.source)


def write_consensus_xmd(
    path: Path, fields: Sequence[CandidateField], found: Mapping[str, FieldPicks]
) -> None:
    """Write all candidates as Xmipp's table of coordinates; those left out are disabled.

    Parameters
    ----------
    path
        Of the ``.xmd``.
    fields, found
        The micrographs, and their scored candidates by key.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    parts = []
    for number, field in enumerate(fields, 1):
        if field.key not in found:
            continue
        picks = found[field.key]
        parts.append(
            pd.DataFrame(
                {
                    "enabled": np.where(picks.is_pick, 1, -1),
                    "micrograph": field.micrograph,
                    "micrographId": number,
                    "xcoor": whole_pixels(pd.Series(picks.x)),
                    "ycoor": whole_pixels(pd.Series(picks.y)),
                    _XMIPP_SCORE: picks.fom,
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "itemId", np.arange(1, len(table) + 1))
    write_xmd(path, {"particles": table})


def particle_box(box: float, pixel_size: float, output: ConsensusOutputParameters) -> int:
    """Side of the box that particles are cut in, px.

    Parameters
    ----------
    box
        A.
    pixel_size
        Of the micrographs, A/px.
    output
        What is to become of it.

    Raises
    ------
    ParameterError
        If particles would have to be enlarged.
    """
    side = max(2, 2 * round(box / pixel_size / 2))
    size = output.particle_size
    if output.particles and size is not None and size > side:
        raise ParameterError(
            "particle_size",
            must=f"be at most the box, {side} px",
            got=size,
            remedy="Lower it, raise --box-size, or give micrographs of finer pixels",
        )
    return side


def extract_consensus(
    folder: Path,
    table: Micrographs,
    *,
    box_size: int,
    white_particles: bool,
    output: ConsensusOutputParameters,
    compute: ComputeParameters,
    progress: ProgressCallback | None = None,
) -> ExtractionResult:
    """Extract the picks of a consensus, and write Xmipp's table of them as well.

    Particles of another size that are there give way, as picks of another threshold do.

    Parameters
    ----------
    folder
        Of the consensus, which has picks; ``particles`` in it takes the stacks and tables.
    table
        All micrographs.
    box_size
        Side of the box in the micrographs, px.
    white_particles
        Whether particles are brighter than their surroundings.
    output
        What to write.
    compute
        How much of the machine to use.
    progress
        Called with micrographs done and in all.

    Returns
    -------
    ExtractionResult
        As of ``cryopick extract``; the score of each particle is its figure of merit.

    Raises
    ------
    OutputError, ProjectError
        If the folder cannot be written, or another job uses it.
    """
    coordinates = folder / "autopick.star"
    made = extract(
        table,
        open_coordinates(coordinates),
        folder / PARTICLES,
        parameters=ExtractionParameters(
            box_size=box_size,
            rescale=output.particle_size or 0,
            invert_contrast=not white_particles,
        ),
        compute=compute,
        inputs=[str(coordinates)],
        overwrite=True,
        progress=progress,
    )
    path = folder / PARTICLES / _TABLE
    if not output.xmd or made.particles is None:
        _remove(path.with_suffix(".xmd"))
    else:
        particles = read_particles(path)
        rows = particles.rows.rename(columns={"fom": _XMIPP_SCORE})
        write_xmd_particles(path.with_suffix(".xmd"), replace(particles, rows=rows))
    return made


def forget_particles(folder: Path) -> None:
    """Remove tables of particles that were extracted from other picks; the stacks stay.

    Parameters
    ----------
    folder
        Of the consensus.

    Raises
    ------
    OutputError
        If one cannot be removed.
    """
    path = folder / PARTICLES / _TABLE
    for one in (path, path.with_suffix(".xmd")):
        _remove(one)


def _remove(path: Path) -> None:
    with output_errors(path):
        path.unlink(missing_ok=True)
