"""What the networks of a consensus begin from and learn from, checked before any work starts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.errors import DataError, ParameterError, TableError
from cryopick.picking.consensus_learning import FEWEST, StartModel
from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.picking.consensus_training_parameters import NEW, ConsensusTraining
from cryopick.pipeline.consensus_examples import Examples, read_examples
from cryopick.pipeline.consensus_models import read_start, start_identity
from cryopick.pipeline.consensus_sets import CandidateField
from cryopick.pipeline.picking_ctf import ctfs_of_fields
from cryopick.pipeline.picking_ctf_parameters import PickingCtfParameters
from cryopick.tables.micrographs import open_micrographs
from cryopick.tables.model import Micrographs
from cryopick.tables.names import MicrographNames

__all__ = [
    "CtfCheck",
    "TrainingFiles",
    "TrainingPlan",
    "plan_training",
    "require_no_training",
]

_FEWEST_FIELDS = 4  # two to learn from in each half: one of them to validate on


@dataclass(frozen=True, kw_only=True)
class TrainingFiles:
    """Files that networks learn from or are tested on, beside the sets."""

    positives: Path | None = None
    negatives: Path | None = None
    test_positives: Path | None = None
    test_negatives: Path | None = None
    ctf: Path | None = None  # table of micrographs with their CTF

    def given(self) -> dict[str, Path]:
        """Those that are there, by name."""
        return {n: p for n, p in self.__dict__.items() if p is not None}


class ExamplePair(NamedTuple):
    """Particles and non-particles."""

    positives: Examples | None
    negatives: Examples | None

    @property
    def identity(self) -> str:
        """Name what the files hold."""
        return " ".join("none" if e is None else f"{e.path} {e.identity}" for e in self)


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """All that says how networks are made, ready to be used."""

    training: ConsensusTraining
    start: tuple[StartModel, ...]  # random weights if empty
    phase_flip: bool
    ctfs: dict[str, FieldCtf]  # by the name of the micrograph, where known
    examples: ExamplePair  # to learn from
    tests: ExamplePair  # to test on; both or neither

    @property
    def identity(self) -> str:
        """Name all that candidates are judged by."""
        ctfs = sorted(self.ctfs.items()) if self.phase_flip else []
        named = f"{self.record()} {ctfs} {self.examples.identity}"
        return hashlib.sha256(named.encode()).hexdigest()[:16]

    def record(self) -> dict[str, Any]:
        """All values that change the result, ready for JSON."""
        return {**self.training.to_dict(), "model": start_identity(self.start)}

    def flip(self, micrograph: str) -> FieldCtf | None:
        """CTF that the phases of a micrograph are flipped with; None where they are not."""
        return self.ctfs[micrograph] if self.phase_flip else None


def require_no_training(training: ConsensusTraining, files: TrainingFiles, method: str) -> None:
    """Refuse options of networks where none has a say.

    Raises
    ------
    ParameterError
        If one is given.
    """
    for name in (*training.given(), *files.given()):
        raise ParameterError(
            name,
            must="be given with --method network only",
            got=f"--method {method}",
            remedy=f"Leave out --{name.replace('_', '-')}, or change --method",
        )


def plan_training(
    micrographs: Micrographs,
    fields: Sequence[CandidateField],
    *,
    parameters: ConsensusParameters,
    training: ConsensusTraining,
    files: TrainingFiles,
) -> TrainingPlan:
    """Read what networks are made from, and refuse what no training can come of.

    Parameters
    ----------
    micrographs
        The table.
    fields
        Those that a set has looked at, with their candidates.
    parameters, training
        Of the consensus and of its networks.
    files
        To learn from and to test on.

    Raises
    ------
    ParameterError
        If options contradict each other, or models were made for other images.
    DataError
        If random weights are to learn from too little, or boxes are too small.
    TableError, FormatError
        If a CTF is missing, or a table or a model is missing, broken or of something else.
    """
    _require_pairs(training, files, parameters)
    start = read_start(
        training.model, diameter=parameters.diameter, phase_flip=parameters.phase_flip
    )
    if not start:
        _require_enough(fields)
    ctfs = _ctfs(micrographs, files.ctf, [f.micrograph for f in fields])
    if parameters.phase_flip:
        _require_ctfs(ctfs, fields, files.ctf)
    pairs = [
        ExamplePair(
            *(
                None
                if path is None
                else read_examples(
                    path,
                    micrographs,
                    diameter=parameters.diameter,
                    phase_flip=parameters.phase_flip,
                )
                for path in paths
            )
        )
        for paths in (
            (files.positives, files.negatives),
            (files.test_positives, files.test_negatives),
        )
    ]
    return TrainingPlan(
        training=training,
        start=start,
        phase_flip=parameters.phase_flip,
        ctfs=ctfs,
        examples=pairs[0],
        tests=pairs[1],
    )


class CtfCheck:
    """Whether the CTF of a micrograph is known yet, while tables grow.

    Parameters
    ----------
    path
        Table of the CTF; that of the micrographs if not given.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._table: Micrographs | None = None
        self._known: dict[str, FieldCtf] = {}

    def __call__(self, table: Micrographs, name: str) -> None:
        """Look a micrograph up.

        Raises
        ------
        TableError
            If its CTF is not known.
        """
        if self._table is not table:
            names = [str(n) for n in table.rows["micrograph"]]
            self._known, self._table = _ctfs(table, self._path, names), table
        if name not in self._known:
            raise TableError(
                "MICROGRAPHS" if self._path is None else str(self._path),
                must="give the CTF of every micrograph with --phase-flip",
                got=f"none that can be trusted for {name}",
                remedy="Run ctf estimate and give its table with --ctf",
            )


def _require_pairs(
    training: ConsensusTraining, files: TrainingFiles, parameters: ConsensusParameters
) -> None:
    """Refuse options that need another one."""
    given = files.given()
    for name, weight in (
        ("positives", training.positive_weight),
        ("negatives", training.negative_weight),
    ):
        if weight != 1 and name not in given:
            option = f"{name[:-1]}_weight"
            raise ParameterError(
                option,
                must=f"be given with --{name} only",
                got=f"{weight:g} without it",
                remedy=f"Give --{name}, or leave out --{option.replace('_', '-')}",
            )
        if training.is_skipped and name in given:
            raise ParameterError(
                name,
                must="be left out where nothing is trained",
                got=given[name],
                remedy=f"Leave out --{name}, or let networks be trained",
            )
    for one, other in (("test_positives", "test_negatives"), ("test_negatives", "test_positives")):
        if one in given and other not in given:
            raise ParameterError(
                one,
                must=f"be given with --{other.replace('_', '-')}",
                got="one of the two",
                remedy="Give both, or neither",
            )
    if files.ctf is not None and not (parameters.phase_flip or training.shipped_negatives):
        raise ParameterError(
            "ctf",
            must="be given with --phase-flip or --shipped-negatives",
            got=files.ctf,
            remedy="Add --phase-flip, or leave out --ctf",
        )


def _require_enough(fields: Sequence[CandidateField]) -> None:
    """Refuse to learn everything from nearly nothing."""
    usable = [f for f in fields if len(f.found.positions)]
    n_candidates = sum(len(f.found.positions) for f in usable)
    if len(usable) >= _FEWEST_FIELDS and n_candidates >= 2 * FEWEST:
        return
    raise DataError(
        "the sets",
        must=f"hold at least {2 * FEWEST} candidates on {_FEWEST_FIELDS} micrographs with "
        f"--model {NEW}",
        got=f"{n_candidates} on {len(usable)}",
        remedy="Give more micrographs, or begin from the general model",
    )


def _ctfs(micrographs: Micrographs, path: Path | None, names: Sequence[str]) -> dict[str, FieldCtf]:
    """Look up the CTF of each micrograph that has one."""
    table = micrographs if path is None else open_micrographs([str(path)])
    try:
        known = ctfs_of_fields(table, PickingCtfParameters(ctf="table"))
    except TableError:
        if path is not None:
            raise
        return {}
    finder = MicrographNames(list(names))
    found = {}
    for name, one in known.items():
        if one.known is None:
            continue
        try:
            full = finder.find(name, source=str(path))
        except TableError:
            continue  # of a micrograph that no set has looked at
        found[full] = one.known
    return found


def _require_ctfs(
    ctfs: dict[str, FieldCtf], fields: Sequence[CandidateField], path: Path | None
) -> None:
    missing = [f.micrograph for f in fields if f.micrograph not in ctfs]
    if missing:
        raise TableError(
            "MICROGRAPHS" if path is None else str(path),
            must="give the CTF of every micrograph with --phase-flip",
            got=f"none that can be trusted for {len(missing)}, the first {missing[0]}",
            remedy="Run ctf estimate and give its table with --ctf, or leave out --phase-flip",
        )
