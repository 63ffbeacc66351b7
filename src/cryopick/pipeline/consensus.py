"""Join the sets of several pickers into one, written as a picking job writes its picks.

The folder holds what the folder of a picking job holds (see `cryopick.pipeline.picking`), with
all candidates in ``peaks/``, and ``consensus.json``: how far each picker can be trusted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import DataError, ParameterError
from cryopick.execution.local import make_executor, require_devices
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import write_json
from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.picking.consensus_reliability import Reliability
from cryopick.picking.field_picks import FieldPicks
from cryopick.pipeline.consensus_chances import CHANCES, Chances, ShareCallback, find_chances
from cryopick.pipeline.consensus_judge import by_field, judge_by_votes, keep_apart
from cryopick.pipeline.consensus_sets import (
    CandidateField,
    CoordinateSet,
    consensus_box,
    find_candidates,
    read_set,
)
from cryopick.pipeline.job import Job, Record, Task
from cryopick.pipeline.network_picker import model_identity
from cryopick.pipeline.pick_models import read_model
from cryopick.pipeline.picking import PICKING_FILES, PickingResult, gather_picks, store_picks
from cryopick.tables.micrographs import open_micrographs, pixel_sizes
from cryopick.tables.model import Micrographs
from cryopick.tables.pick_scores import PROBABILITY, VOTES, PickScore

__all__ = ["ConsensusResult", "PickerRecord", "join_sets"]

_NAME, _RESULT, _TABLE = "pick consensus", "consensus.json", "micrographs.star"
_SEARCHED = 0.25  # diameters about a candidate, at least, where a network looks for its centre
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PickerRecord:
    """One of the sets, and how far its picker can be trusted."""

    path: str
    n_picks: int  # on the micrographs given
    n_micrographs: int
    n_unlisted: int  # micrographs that only this set names
    sensitivity: float  # share of the particles that it has
    false_share: float  # share of its picks that are no particles
    counted_as: int  # pickers of one number are copies of one another, and count once


@dataclass(frozen=True, kw_only=True)
class ConsensusResult:
    """What the sets have in common."""

    picks: PickingResult
    pickers: tuple[PickerRecord, ...]
    shared: list[list[int]]  # candidates that two pickers have, or one where they are the same
    radius: float  # A, within which picks are of one particle
    n_unseen_micrographs: int  # that no set names, left out

    def to_dict(self) -> dict[str, Any]:
        """Gather all numbers, ready for JSON."""
        return {
            **self.picks.to_dict(),
            "pickers": [asdict(p) for p in self.pickers],
            "shared": self.shared,
            "radius": self.radius,
            "n_unseen_micrographs": self.n_unseen_micrographs,
        }


def join_sets(
    sets: Sequence[Path],
    micrographs: Sequence[str],
    folder: Path,
    *,
    parameters: ConsensusParameters,
    set_pixel_sizes: Sequence[float | None] = (),
    compute: ComputeParameters | None = None,
    pixel_size: float | None = None,
    model: Path | None = None,
    overwrite: bool = False,
    progress: ShareCallback | None = None,
) -> ConsensusResult:
    """Join coordinate sets and write the result; the order of the sets changes nothing.

    Parameters
    ----------
    sets
        Files or folders of picks of any program, two or more.
    micrographs
        One STAR file; or paths, folders and globs of images.
    folder
        Where the results go. Started again with the same sets, only what is missing is written.
    parameters
        Of the consensus.
    set_pixel_sizes
        A/px that each set is in; that of the micrographs where None, or if not given.
    compute
        How much of the machine to use.
    pixel_size
        A/px of all micrographs, instead of what their table or headers say.
    model
        That the networks begin from; the general model if not given.
    overwrite
        Throw away what a job with other parameters left in `folder`.
    progress
        Called with the step and the share of it that is done.

    Raises
    ------
    ParameterError
        If there are fewer than two sets, not as many pixel sizes as sets, more votes are asked
        for than there are sets, a model is given that has no say, or a device is not there.
    DataError
        If the sets hold no picks.
    TableError, FormatError
        If a set or the table of micrographs is missing, broken, or of other micrographs.
    ProjectError, OutputError
        If `folder` holds another job or is in use, or cannot be written.
    """
    folder, compute = Path(folder), compute or ComputeParameters()
    require_devices(compute)
    given = _checked(sets, set_pixel_sizes, parameters, model)
    table = open_micrographs(micrographs, pixel_size=pixel_size)
    read = _read(sets, given, table)
    radius = parameters.relative_radius * _box(read, table, parameters)
    fields = find_candidates(table, read, radius=radius)
    first = read_model(model)[0] if parameters.method == "network" else None
    job = Job(
        folder,
        name=_NAME,
        parameters={
            **parameters.to_dict(),
            "pixel_size": pixel_size,
            "set_pixel_sizes": given,
            "model": None if first is None else model_identity(first),
        },
        inputs=[str(p) for p in (*sets, *micrographs)],
        results=(*PICKING_FILES, _RESULT, CHANCES, *(() if table.source else (_TABLE,))),
        overwrite=overwrite,
    )
    tell = progress or (lambda step, share: None)
    with job:
        judged = Chances(fields, judge_by_votes(fields), {})
        if first is not None:
            judged = find_chances(
                fields,
                folder,
                parameters=parameters,
                model=first,
                radius=max(radius, _SEARCHED * parameters.diameter),
                compute=compute,
                progress=tell,
            )
        picks = _write(job, table, fields, judged, parameters, compute, tell)
        result = ConsensusResult(
            picks=picks,
            pickers=_records(read, judged.trust),
            shared=_shared(fields),
            radius=radius,
            n_unseen_micrographs=len(table) - len(fields),
        )
        write_json(folder / _RESULT, result.to_dict())
    return result


def _write(
    job: Job,
    table: Micrographs,
    fields: Sequence[CandidateField],
    judged: Chances,
    parameters: ConsensusParameters,
    compute: ComputeParameters,
    tell: ShareCallback,
) -> PickingResult:
    """Write the picks of each micrograph and the lists that join them."""
    score = VOTES if parameters.method == "votes" else PROBABILITY
    found = _scored(judged.fields, judged.trust, parameters)
    tasks = [
        Task(key=f.key, identity=_identity(picks), payload=_Stored(f.key, picks))
        for f, picks in zip(judged.fields, found, strict=True)
    ]
    executor = make_executor(compute, n_items=len(tasks), bytes_per_item=0)
    records = job.run(
        executor,
        partial(_store, folder=job.folder, score=score),
        tasks,
        progress=lambda done, total: tell("Writing", done / total),
    )
    of_key = {r.key: r for r in records}
    every = [
        of_key[f.key]
        if f.key in of_key
        else Record(key=f.key, identity="", error=judged.failed[f.micrograph])
        for f in fields
    ]
    seen = _some(table, [f.micrograph for f in fields])
    return gather_picks(job.folder, seen, every, score=score)


class _Stored(NamedTuple):
    key: str
    picks: FieldPicks


def _store(stored: _Stored, *, folder: Path, score: PickScore) -> dict[str, Any]:
    return store_picks(stored.picks, folder=folder, key=stored.key, score=score)


def _read(
    sets: Sequence[Path], sizes: Sequence[float | None], table: Micrographs
) -> list[CoordinateSet]:
    read = [read_set(p, table, pixel_size=s) for p, s in zip(sets, sizes, strict=True)]
    if not sum(s.count for s in read):
        raise DataError(
            "the sets",
            must="hold picks on these micrographs",
            got="none",
            remedy="Check that the sets are of these micrographs",
        )
    return read


def _checked(
    sets: Sequence[Path],
    sizes: Sequence[float | None],
    parameters: ConsensusParameters,
    model: Path | None,
) -> list[float | None]:
    """Refuse what contradicts itself; give a pixel size or None for each set."""
    if model is not None and parameters.method != "network":
        raise ParameterError(
            "model",
            must="be given with --method network only",
            got=f"--method {parameters.method}",
            remedy="Leave out --model, or change --method",
        )
    if len(sets) < 2:
        raise ParameterError(
            "SETS", must="be at least two", got=len(sets), remedy="Give the picks of another picker"
        )
    if sizes and len(sizes) != len(sets):
        raise ParameterError(
            "set_pixel_size",
            must=f"be given once for each of the {len(sets)} sets",
            got=len(sizes),
            remedy="Give as many as sets, in their order",
        )
    if parameters.method == "votes" and parameters.least_votes(len(sets)) > len(sets):
        raise ParameterError(
            "quorum",
            must=f"be at most the number of sets, {len(sets)}",
            got=parameters.quorum,
            remedy="Lower --quorum; 0 stands for all",
        )
    return list(sizes) or [None] * len(sets)


def _box(
    sets: Sequence[CoordinateSet], table: Micrographs, parameters: ConsensusParameters
) -> float:
    side = parameters.box_size
    given = None if side is None else side * float(pixel_sizes(table).iloc[0])
    return consensus_box(sets, given=given, usual=parameters.usual_box)


def _scored(
    fields: Sequence[CandidateField], trust: Reliability, parameters: ConsensusParameters
) -> list[FieldPicks]:
    """Give the candidates of each field their score, best first."""
    chances = by_field(fields, trust.probability)
    made = []
    for field, chance in zip(fields, chances, strict=True):
        is_counted = parameters.method == "votes"
        score = field.found.votes.astype(np.float64) if is_counted else chance
        reach = parameters.distance / field.pixel_size
        kept = keep_apart(field.found.positions, score, distance=reach)
        least = (
            float(parameters.least_votes(len(field.is_seen)))
            if is_counted
            else parameters.least_probability
        )
        x, y = field.found.positions[kept].T
        made.append(
            FieldPicks(
                x=x,
                y=y,
                fom=score[kept],
                diameter=np.full(len(kept), parameters.diameter),
                threshold=least,
                valid_fraction=1.0,
                maps={},
            )
        )
    return made


def _identity(picks: FieldPicks) -> str:
    """Name all that is written of a micrograph."""
    digest = hashlib.sha256(f"{picks.threshold:g}".encode())
    for values in (picks.x, picks.y, picks.fom, picks.diameter):
        digest.update(np.round(values, 6).astype("<f8").tobytes())
    return digest.hexdigest()[:16]


def _some(table: Micrographs, names: Sequence[str]) -> Micrographs:
    rows = table.rows[table.rows["micrograph"].isin(names)].reset_index(drop=True)
    return Micrographs(rows=rows, optics=table.optics, source=table.source)


def _records(sets: Sequence[CoordinateSet], trust: Reliability) -> tuple[PickerRecord, ...]:
    return tuple(
        PickerRecord(
            path=str(one.path),
            n_picks=one.count,
            n_micrographs=len(one.positions),
            n_unlisted=one.n_unlisted,
            sensitivity=float(trust.sensitivity[number]),
            false_share=float(trust.false_share[number]),
            counted_as=int(trust.group[number]) + 1,
        )
        for number, one in enumerate(sets)
    )


def _shared(fields: Sequence[CandidateField]) -> list[list[int]]:
    votes = np.concatenate([f.found.has_vote for f in fields]).astype(np.int64)
    counts: list[list[int]] = (votes.T @ votes).tolist()
    return counts
