"""What became of a consensus, in numbers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cryopick.errors import CryopickError
from cryopick.io.micrograph import read_micrograph_size
from cryopick.picking.consensus_reliability import Reliability
from cryopick.pipeline.consensus_models import TrainedRecord
from cryopick.pipeline.consensus_sets import CandidateField, CoordinateSet
from cryopick.pipeline.extraction import ExtractionResult
from cryopick.pipeline.picking import PickingResult

__all__ = ["ConsensusResult", "PickerRecord", "count_shared", "picker_records"]

_LOOKED_INTO = 20  # micrographs


@dataclass(frozen=True, kw_only=True)
class PickerRecord:
    """One of the sets, and how far its picker can be trusted."""

    path: str
    n_picks: int  # on the micrographs given
    n_micrographs: int
    n_unlisted: int  # micrographs that only this set names
    n_outside: int  # picks beyond the edges of their micrographs, of 20 of these at most
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
    n_unseen: float  # particles that no picker has found, as far as that can be estimated
    n_unseen_micrographs: int  # that no set names, left out
    particles: ExtractionResult | None = None  # None where none were extracted
    networks: tuple[TrainedRecord, ...] = ()  # that were trained
    untrained_folds: int = 0  # halves of the micrographs with too little to learn from
    n_crowded: int = 0  # micrographs on which noise was drawn half a box from candidates
    testing: Mapping[str, float] | None = None  # of the networks; see `TestScores`

    def to_dict(self) -> dict[str, Any]:
        """Gather all numbers, ready for JSON."""
        return {
            **self.picks.to_dict(),
            "pickers": [asdict(p) for p in self.pickers],
            "shared": self.shared,
            "radius": self.radius,
            "n_unseen": self.n_unseen,
            "n_unseen_micrographs": self.n_unseen_micrographs,
            "particles": None if self.particles is None else self.particles.to_dict(),
            "networks": [asdict(n) for n in self.networks],
            "untrained_folds": self.untrained_folds,
            "n_crowded": self.n_crowded,
            "testing": None if self.testing is None else dict(self.testing),
        }


def picker_records(
    sets: Sequence[CoordinateSet], fields: Sequence[CandidateField], trust: Reliability
) -> tuple[PickerRecord, ...]:
    """Say of each set what it holds and how far its picker can be trusted.

    Parameters
    ----------
    sets
        All of them.
    fields
        The micrographs; into some of them it is looked whether picks lie outside.
    trust
        What the votes say.
    """
    sizes = _sizes(fields)
    return tuple(
        PickerRecord(
            path=str(one.path),
            n_picks=one.count,
            n_micrographs=len(one.positions),
            n_unlisted=one.n_unlisted,
            n_outside=_count_outside(one, sizes),
            sensitivity=float(trust.sensitivity[number]),
            false_share=float(trust.false_share[number]),
            counted_as=int(trust.group[number]) + 1,
        )
        for number, one in enumerate(sets)
    )


def _sizes(fields: Sequence[CandidateField]) -> dict[str, tuple[int, int]]:
    """Rows and columns of some micrographs, px: a TIFF is read as a whole for them."""
    found = {}
    for field in fields[:: max(1, math.ceil(len(fields) / _LOOKED_INTO))]:
        with contextlib.suppress(CryopickError):
            found[field.micrograph] = read_micrograph_size(field.path)
    return found


def _count_outside(one: CoordinateSet, sizes: Mapping[str, tuple[int, int]]) -> int:
    count = 0
    for name, places in one.positions.items():
        if name in sizes:
            rows, columns = sizes[name]
            is_outside = (places < 0) | (places >= (columns, rows))
            count += int(is_outside.any(1).sum())
    return count


def count_shared(fields: Sequence[CandidateField]) -> list[list[int]]:
    """Count the candidates that each two pickers have.

    Parameters
    ----------
    fields
        With their candidates, at least one.
    """
    votes = np.concatenate([f.found.has_vote for f in fields]).astype(np.int64)
    counts: list[list[int]] = (votes.T @ votes).tolist()
    return counts
