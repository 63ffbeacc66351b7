"""Labelled micrographs as the picking network learns from them, kept until a training is done."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.errors import CryopickError, DataError
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import writing
from cryopick.io.micrograph import read_micrograph
from cryopick.picking.label_edges import unlabelled_band
from cryopick.picking.network_field import prepare_network_field
from cryopick.picking.network_parameters import NetworkParameters, NetworkTrainingParameters
from cryopick.picking.network_pick import network_bytes
from cryopick.picking.network_training import TrainingField
from cryopick.pipeline.job import identity_of
from cryopick.pipeline.labelled_fields import LabelledField

__all__ = ["FIELDS", "PreparedFields", "prepare_fields"]

FIELDS = "fields"  # folder of what was prepared; removed at the end
_NEAR = 0.5  # diameters: what was rejected so near to a label is the labelled particle
_WIDEST_BAND = 1.5  # diameters: half of the largest box in use

Points = NDArray[np.float64]


class PreparedFields(NamedTuple):
    """Fields to learn from, in the order of those given, less the broken ones."""

    fields: list[TrainingField]
    micrographs: list[str]
    n_masked: int  # labels where a field is not valid, left out
    n_rejected: int  # rejected particles in use
    edge_band: float  # A from the edges in which nothing is labelled, so nothing is known
    failed: dict[str, str]  # reasons, by micrograph

    @property
    def known_share(self) -> float:
        """Share of the valid pixels on which particles may have been labelled."""
        valid = sum(int(f.is_valid.sum()) for f in self.fields)
        return sum(int(f.is_known.sum()) for f in self.fields) / max(valid, 1)


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """One micrograph, as a worker gets it."""

    path: Path
    target: Path
    pixel_size: float  # A/px
    diameter: float  # A
    white_particles: bool
    mask: bool

    @property
    def identity(self) -> str:
        """Name all that makes it be prepared again when it changes."""
        options = f"{self.diameter:g} {self.white_particles} {self.mask}"
        return f"{identity_of(self.path)} {self.pixel_size:g} {options}"


class _Prepared(NamedTuple):
    image: NDArray[np.float16]  # (y, x)
    is_valid: NDArray[np.bool_]  # (y, x)
    scale: Points  # (2,) y and x, micrograph px per px
    offset: Points  # (2,) micrograph px


def prepare_fields(
    fields: Sequence[LabelledField],
    rejected: Sequence[Points] | None,
    unsure: Sequence[Points] | None,
    folder: Path,
    *,
    parameters: NetworkTrainingParameters,
    compute: ComputeParameters,
    progress: Callable[[int, int], None],
) -> PreparedFields:
    """Prepare micrographs side by side; what a killed run has prepared is found again.

    Parameters
    ----------
    fields
        Micrographs with their labels.
    rejected
        For each, (n, 2) y and x of particles that were not kept, px; None for none.
    unsure
        As `rejected`, of what may or may not be particles.
    folder
        Of the job.
    parameters
        Of the training.
    compute
        How much of the machine to use; fields are prepared on the CPU, one core each.
    progress
        Called with the number of fields done and in all.

    Returns
    -------
    PreparedFields
        Without micrographs that cannot be read, and without those on whose valid part no label
        lies.

    Raises
    ------
    CryopickError
        The last reason, if no micrograph can be read.
    """
    wanted = [_wanted(f, folder, parameters) for f in fields]
    failed = _make_missing(fields, wanted, parameters, compute, progress)
    band = _unlabelled_band(fields, widest=_WIDEST_BAND * parameters.diameter)
    found = PreparedFields([], [], 0, 0, band, failed)
    for number, (field, one) in enumerate(zip(fields, wanted, strict=True)):
        if field.micrograph in failed:
            continue
        prepared = _load(one)
        if prepared is None:
            continue
        wrong, maybe = (np.empty((0, 2)) if p is None else p[number] for p in (rejected, unsure))
        made, n_masked = _training_field(
            field, wrong, maybe, prepared, near=_NEAR * one.diameter, band=band
        )
        found = found._replace(n_masked=found.n_masked + n_masked)
        if len(made.particles):
            found.fields.append(made)
            found.micrographs.append(field.micrograph)
            found = found._replace(n_rejected=found.n_rejected + len(made.rejected))
    return found


def _wanted(field: LabelledField, folder: Path, parameters: NetworkTrainingParameters) -> _Wanted:
    return _Wanted(
        path=field.path,
        target=folder / FIELDS / f"{field.key}.npz",
        pixel_size=field.pixel_size,
        diameter=parameters.diameter,
        white_particles=parameters.white_particles,
        mask=parameters.mask,
    )


def _make_missing(
    fields: Sequence[LabelledField],
    wanted: Sequence[_Wanted],
    parameters: NetworkTrainingParameters,
    compute: ComputeParameters,
    progress: Callable[[int, int], None],
) -> dict[str, str]:
    """Prepare what is not yet there; return reasons by micrograph."""
    missing = [n for n, one in enumerate(wanted) if _load(one) is None]
    like = NetworkParameters(diameter=parameters.diameter)
    largest = max(network_bytes(max(f.size), f.pixel_size, parameters=like) for f in fields)
    alone = replace(compute, device="cpu", threads=1)  # transforms differ with threads, in a digit
    executor = make_executor(alone, n_items=len(missing), bytes_per_item=largest)
    failed: dict[str, str] = {}
    last: CryopickError | None = None
    done = len(wanted) - len(missing)
    progress(done, len(wanted))
    for outcome in executor.map_unordered(_prepare, [wanted[n] for n in missing]):
        if outcome.error is not None:
            last = outcome.error
            failed[fields[missing[outcome.index]].micrograph] = str(last)
        done += 1
        progress(done, len(wanted))
    if last is not None and len(failed) == len(fields):
        raise last
    return failed


def _prepare(wanted: _Wanted) -> None:
    micrograph = torch.from_numpy(read_micrograph(wanted.path))
    try:
        field = prepare_network_field(
            micrograph,
            pixel_size=wanted.pixel_size,
            diameter=wanted.diameter,
            edge_distance=0.0,
            white_particles=wanted.white_particles,
            mask=wanted.mask,
        )
    except DataError as error:
        if error.what == "micrograph":  # pure functions know no file
            error.what = str(wanted.path)
        raise
    working = field.search.field
    with writing(wanted.target) as handle:
        np.savez(
            handle,
            identity=np.array(wanted.identity),
            image=field.image.numpy().astype(np.float16),
            is_valid=field.search.is_valid.numpy(),
            scale=np.array(working.scale),
            offset=np.array(working.offset),
        )


def _load(wanted: _Wanted) -> _Prepared | None:
    """Read what was prepared of a micrograph as it is now; None if there is nothing whole."""
    try:
        with np.load(wanted.target, allow_pickle=False) as stored:
            if str(stored["identity"]) != wanted.identity:
                return None
            return _Prepared(*(stored[name] for name in _Prepared._fields))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _unlabelled_band(fields: Sequence[LabelledField], *, widest: float) -> float:
    labels = [np.stack([f.y, f.x], axis=1) * f.pixel_size for f in fields]
    sizes = [(f.size[0] * f.pixel_size, f.size[1] * f.pixel_size) for f in fields]
    return unlabelled_band(labels, sizes, widest=widest)


def _training_field(
    field: LabelledField,
    rejected: Points,
    unsure: Points,
    prepared: _Prepared,
    *,
    near: float,
    band: float,
) -> tuple[TrainingField, int]:
    """Put labels into a prepared field; also count those where it is not valid."""
    labels = np.stack([field.y, field.x], axis=1)
    rejected, unsure = (
        _away_from(labels, points, px=near / field.pixel_size) for points in (rejected, unsure)
    )
    places = (labels - prepared.offset) / prepared.scale
    last = np.array(prepared.is_valid.shape) - 1
    rows, columns = np.rint(places).clip(0, last).astype(int).T
    is_valid = prepared.is_valid[rows, columns]
    made = TrainingField(
        image=torch.from_numpy(prepared.image.astype(np.float32)),
        is_valid=torch.from_numpy(prepared.is_valid),
        is_known=torch.from_numpy(_known(field, prepared, band)),
        particles=places[is_valid],
        rejected=(rejected - prepared.offset) / prepared.scale,
        ignored=(unsure - prepared.offset) / prepared.scale,
    )
    return made, int((~is_valid).sum())


def _away_from(labels: Points, points: Points, *, px: float) -> Points:
    """Keep the points that are farther than so many px from every label."""
    if not len(labels) or not len(points):
        return points
    away = np.array([np.linalg.norm(labels - one, axis=1).min() for one in points])
    return points[away > px]


def _known(field: LabelledField, prepared: _Prepared, band: float) -> NDArray[np.bool_]:
    """Where the field is valid and not within a band, A, of the edges of the micrograph."""
    inside = []
    for axis in (0, 1):
        place = np.arange(prepared.is_valid.shape[axis]) * prepared.scale[axis]
        place = place + prepared.offset[axis]  # px of the micrograph
        away = np.minimum(place, field.size[axis] - 1 - place) * field.pixel_size
        inside.append(away >= band)
    return np.asarray(prepared.is_valid & inside[0][:, None] & inside[1])
