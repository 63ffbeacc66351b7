"""The networks of a consensus as files, so that none is trained twice and others can go on.

``models/`` in the folder of a consensus holds ``fold_1_1.npz`` and so on (fold and member), files
of `cryopick.pipeline.pick_models`, each written when its training ends; until then
``training.npz``, the state that it goes on from after a kill; and at last ``models.json``, which
names them all. Where nothing was trained, ``start_1.npz`` is what scored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.errors import FormatError, ParameterError
from cryopick.io.atomic import make_folder, output_errors, write_json
from cryopick.picking.consensus_learning import LearnedNetwork, NetworkPlace, StartModel
from cryopick.picking.consensus_training_parameters import GENERAL, NEW
from cryopick.picking.network_fit import FitState
from cryopick.pipeline.network_picker import model_identity
from cryopick.pipeline.pick_models import read_model, write_model
from cryopick.pipeline.pick_train_checkpoint import read_fit_state, write_fit_state

__all__ = [
    "MODELS",
    "ModelKeeper",
    "TrainedRecord",
    "is_finished",
    "read_models",
    "read_start",
    "start_identity",
    "trained_networks",
]

MODELS, _LIST = "models", "models.json"
_BEGUN = "training.npz"  # state of the training under way
_KIND = "models of a consensus"
_OTHER_SIZE = 1.1  # times the diameter that a network was trained for, from which it is another


@dataclass(frozen=True, kw_only=True)
class TrainedRecord:
    """One of the networks of a consensus."""

    file: str  # in the folder of the models
    fold: int  # that it judged, from 1
    steps: int  # of the network that was taken; 0 if training made nothing better
    average_precision: float  # on micrographs held out; what is not marked counts as wrong
    first_average_precision: float | None  # of what training began from, there


@dataclass(frozen=True, kw_only=True)
class ModelKeeper:
    """Keeps the networks of a consensus as they are trained, and finds them again."""

    folder: Path  # of the models
    identity: str  # of all that they depend on, beside what they learn from
    diameter: float  # A
    phase_flip: bool  # whether the micrographs were flipped

    def kept(self, place: NetworkPlace) -> LearnedNetwork | None:
        """Read the network of a place that was trained on the same; None if there is none."""
        try:
            model, notes = read_model(self._path(place))
            if notes["made_from"] != self._made_from(place):
                return None
            first = notes["first_average_precision"]
            return LearnedNetwork(
                model=model,
                step=int(notes["steps"]),
                precision=float(notes["average_precision"]),
                first_precision=None if first is None else float(first),
                n_expected=float(notes["n_expected"]),
            )
        except (FormatError, KeyError, TypeError, ValueError):
            return None  # it is trained again

    def keep(self, place: NetworkPlace, found: LearnedNetwork) -> None:
        """Write the network of a place.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        make_folder(self.folder)
        notes = {
            "made_from": self._made_from(place),
            "micrographs": list(place.seen),
            "steps": found.step,
            "average_precision": found.precision,
            "first_average_precision": found.first_precision,
            "n_expected": found.n_expected,
            **self._notes(),
        }
        write_model(self._path(place), found.model, notes)

    def begun(self, place: NetworkPlace) -> FitState | None:
        """Read the state of the training of a place; None if it has not begun."""
        return read_fit_state(self.folder / _BEGUN, identity=self._made_from(place))

    def keep_begun(self, place: NetworkPlace, state: FitState) -> None:
        """Write the state of the training of a place.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        make_folder(self.folder)
        write_fit_state(self.folder / _BEGUN, state, identity=self._made_from(place))

    def finish(
        self, models: Sequence[Sequence[LearnedNetwork]], start: Sequence[StartModel]
    ) -> None:
        """Name all models, and remove what is left of other trainings.

        Parameters
        ----------
        models
            Of each fold, all of which were kept.
        start
            What they began from; it is kept itself where nothing was trained.

        Raises
        ------
        OutputError
            If the list cannot be written.
        """
        make_folder(self.folder)
        listed = [
            _entry(_name(fold, member), one, fold)
            for fold, own in enumerate(models)
            for member, one in enumerate(own)
        ]
        for number, first in enumerate(start if not listed else ()):
            name = f"start_{number + 1}.npz"
            notes = {"micrographs": sorted(first.seen), **self._notes()}
            write_model(self.folder / name, first.model, notes)
            listed.append(_entry(name, first, first.fold))
        write_json(self.folder / _LIST, {"kind": _KIND, "models": listed, **self._notes()})
        names = {entry["file"] for entry in listed}
        for path in self.folder.glob("*.npz"):
            if path.name not in names:
                with output_errors(path):
                    path.unlink(missing_ok=True)

    def _path(self, place: NetworkPlace) -> Path:
        return self.folder / _name(place.fold, place.member)

    def _made_from(self, place: NetworkPlace) -> str:
        named = f"{self.identity} {place.fold} {place.member} {place.content}"
        return hashlib.sha256(named.encode()).hexdigest()[:16]

    def _notes(self) -> dict[str, Any]:
        return {"diameter": self.diameter, "phase_flip": self.phase_flip}


def is_finished(folder: Path) -> bool:
    """Whether a folder names its models, as that of a finished training does."""
    return (folder / _LIST).is_file()


def read_start(model: str, *, diameter: float, phase_flip: bool) -> tuple[StartModel, ...]:
    """Read what networks begin from.

    Parameters
    ----------
    model
        ``general``, ``new``, a file or a folder of `pick train`, or the folder of a consensus.
    diameter
        Of the particle, A.
    phase_flip
        Whether the micrographs are flipped.

    Returns
    -------
    tuple of StartModel
        None for random weights.

    Raises
    ------
    FormatError
        If a file is missing, damaged, or of something else.
    ParameterError
        If the models of a consensus were made for a particle of another size, or for
        micrographs whose phases were flipped where these are not, or the other way round.
    """
    if model == NEW:
        return ()
    if model == GENERAL:
        return (StartModel(read_model(None)[0]),)
    path = Path(model)
    folder = path / MODELS if (path / MODELS).is_dir() else path
    if not folder.is_dir() or (folder / "model.npz").is_file():
        return (StartModel(read_model(path)[0]),)
    found, described = read_models(folder)
    _require_fit(folder, described, diameter=diameter, phase_flip=phase_flip)
    return found


def read_models(folder: Path) -> tuple[tuple[StartModel, ...], dict[str, Any]]:
    """Read all models of a finished consensus.

    Parameters
    ----------
    folder
        ``models`` in that of the consensus.

    Returns
    -------
    tuple of tuple and dict
        The models, each with its fold and the micrographs it has learned from; and what they were
        made for: ``diameter``, A, and ``phase_flip``.

    Raises
    ------
    FormatError
        If the list of the models is missing or foreign, or a model is missing, damaged or another
        than the list names.
    """
    described = _read_list(folder / _LIST)
    found = []
    for entry in described["models"]:
        path = folder / str(entry["file"])
        model, notes = read_model(path)
        if model_identity(model) != entry["identity"]:
            raise FormatError(
                str(path),
                must=f"be the model that {_LIST} beside it names",
                got="another model",
                remedy="Run the consensus again, or name another --model",
            )
        seen = frozenset(str(n) for n in notes.get("micrographs", ()))
        found.append(StartModel(model, seen, entry["fold"]))
    return tuple(found), {n: described[n] for n in ("diameter", "phase_flip")}


def trained_networks(folder: Path) -> list[TrainedRecord]:
    """List the networks that a finished consensus has trained; none where it trained none.

    Parameters
    ----------
    folder
        Of the models.

    Raises
    ------
    FormatError
        If the list of the models is missing or foreign.
    """
    return [
        TrainedRecord(
            file=str(entry["file"]),
            fold=int(entry["fold"]) + 1,
            steps=int(entry["steps"]),
            average_precision=float(entry["average_precision"]),
            first_average_precision=entry["first_average_precision"],
        )
        for entry in _read_list(folder / _LIST, least=0)["models"]
        if "steps" in entry
    ]


def start_identity(start: Iterable[StartModel]) -> str:
    """Name what networks begin from.

    Parameters
    ----------
    start
        The models; the order counts.
    """
    return " ".join(f"{model_identity(s.model)}:{s.fold}" for s in start) or NEW


def _read_list(path: Path, *, least: int = 1) -> dict[str, Any]:
    """Read the list of the models of a consensus, with so many at least."""
    got = ""
    try:
        read: dict[str, Any] = json.loads(path.read_bytes())
        is_whole = read["kind"] == _KIND and {"diameter", "phase_flip"} <= set(read)
        is_whole &= all({"file", "fold", "identity"} <= set(entry) for entry in read["models"])
        if is_whole and len(read["models"]) >= least:
            return read
        got = "no model in it" if is_whole else f"another {path.name}"
    except FileNotFoundError:
        got = f"a folder without {path.name}"
    except (OSError, ValueError, TypeError, KeyError):
        got = f"a damaged {path.name}"
    raise FormatError(
        str(path.parent),
        must="hold the models of a finished consensus",
        got=got,
        remedy="Run that consensus to its end, or name another --model",
    )


def _require_fit(
    folder: Path, made_for: Mapping[str, Any], *, diameter: float, phase_flip: bool
) -> None:
    """Refuse models of other images than these."""
    ratio = diameter / float(made_for["diameter"])
    if max(ratio, 1 / ratio) > _OTHER_SIZE:
        raise ParameterError(
            "model",
            must=f"be of particles of about {diameter:g} A",
            got=f"{folder}, of {float(made_for['diameter']):g} A",
            remedy="Check --diameter, or begin from the general model",
        )
    if bool(made_for["phase_flip"]) != phase_flip:
        words = ("without", "with") if phase_flip else ("with", "without")
        raise ParameterError(
            "model",
            must=f"have been trained {words[1]} --phase-flip, as these micrographs are seen",
            got=f"{folder}, trained {words[0]} it",
            remedy="Choose the same for both, or begin from the general model",
        )


def _entry(name: str, one: LearnedNetwork | StartModel, fold: int | None) -> dict[str, Any]:
    entry = {"file": name, "fold": fold, "identity": model_identity(one.model)}
    if isinstance(one, StartModel):
        return entry
    return {
        **entry,
        "steps": one.step,
        "average_precision": one.precision,
        "first_average_precision": one.first_precision,
    }


def _name(fold: int, member: int) -> str:
    return f"fold_{fold + 1}_{member + 1}.npz"
