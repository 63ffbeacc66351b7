"""Score classes with trained networks, and say what each score rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit
from torch import Tensor

from cryopick.errors import FormatError
from cryopick.io.weights import Weights, read_weights
from cryopick.selection.class_features import FEATURES, GROUPS
from cryopick.selection.class_network import ClassNetwork, combine
from cryopick.selection.class_reasons import describe
from cryopick.selection.class_scores import ClassInputs, ClassScores, Reason

__all__ = [
    "KIND",
    "ClassScorer",
    "Taste",
    "certain_logit",
    "hidden_values",
    "read_notes",
    "read_scorer",
    "score_classes",
    "to_weights",
]

KIND = "class scores"
_VERSION = 1
_OWN, _JUNK_PURITY = 3.0, 0.2  # members that each class is thought to have besides its own
_SHIPPED = "class_scores.npz"
_SUREST = 1e-4  # distance of a score from 0 and 1 that taste still tells
_FEWEST_EFFECT = 0.1  # on the logarithm of a score's odds: less is no reason

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Taste:
    """What a person's choices have changed: logit(score) becomes slope logit + turn . values."""

    slope: float
    offset: float
    turn: Floats  # (hidden values of all networks,)

    def apply(self, score: Floats, hidden: Floats) -> Floats:
        """Score of classes (n,) as the person would, from ours and the hidden values (n, v)."""
        changed = self.slope * certain_logit(score) + self.offset + hidden @ self.turn
        return np.asarray(expit(changed))


@dataclass(frozen=True, kw_only=True)
class ClassScorer:
    """Networks whose mean is the score."""

    networks: tuple[ClassNetwork, ...]
    calibration: Floats  # (2, 2) slope and offset of the logits of purity and quality
    taste: Taste | None = None


def certain_logit(score: Floats) -> Floats:
    """Logit of scores, none of which is taken to be surer than 1 in 10,000."""
    return np.asarray(logit(np.clip(score, _SUREST, 1 - _SUREST)))


def read_scorer(path: Path | None = None) -> ClassScorer:
    """Read weights; they are numbers only and cannot run code.

    Parameters
    ----------
    path
        A file of `select learn` or of the training script; those shipped if not given.

    Raises
    ------
    FormatError
        If the file is missing, damaged, or of something else.
    """
    with _file(path) as found:
        return _from_weights(read_weights(found, kind=KIND, versions=(_VERSION,)), found)


def read_notes(path: Path | None = None) -> dict[str, Any]:
    """Read how weights were made; parameters and errors as for `read_scorer`."""
    with _file(path) as found:
        return dict(read_weights(found, kind=KIND, versions=(_VERSION,)).notes)


def score_classes(inputs: ClassInputs, scorer: ClassScorer) -> ClassScores:
    """Score classes.

    Parameters
    ----------
    inputs
        Of `cryopick.selection.class_features.class_inputs`.
    scorer
        Of `read_scorer`.

    Returns
    -------
    ClassScores
        Purity and quality are means over the networks. The effect of a group of measures is the
        score less what it would be if that group were unknown; with a person's choices learned,
        all effects are on the score that follows from them, and theirs is one of them.
    """
    features, images = _tensors(inputs)
    scored = images.abs().amax((1, 2)) > 0
    known = torch.ones(int(scored.sum()), len(GROUPS) + 1)
    counts = inputs.features["particle_count"].to_numpy(np.float64)[scored.numpy()]
    names = [*GROUPS, "look"]
    with torch.inference_mode():
        looks = [network.see(images[scored]) for network in scorer.networks]
        found = _judge(scorer, features[scored], looks, known, counts)
        without = np.zeros((int(scored.sum()), len(names) + (scorer.taste is not None)))
        for k in range(len(names)):
            less = known.clone()
            less[:, k] = 0
            without[:, k] = _judge(scorer, features[scored], looks, less, counts)[0]
        if scorer.taste is not None:
            names.append("taste")
            ours = replace(scorer, taste=None)
            without[:, -1] = _judge(ours, features[scored], looks, known, counts)[0]
    rows = inputs.features[scored.numpy()]
    reasons = iter(
        [
            _reasons(row, score, others, names)
            for (_, row), score, others in zip(rows.iterrows(), found[0], without, strict=True)
        ]
    )
    columns = np.full((3, len(images)), np.nan)
    columns[:, scored.numpy()] = found
    return ClassScores(
        score=columns[0],
        purity=columns[1],
        quality=columns[2],
        reasons=tuple(next(reasons) if is_scored else () for is_scored in scored.tolist()),
    )


def hidden_values(inputs: ClassInputs, scorer: ClassScorer) -> Floats:
    """Find what all networks make of classes before they judge, (k, values)."""
    features, images = _tensors(inputs)
    known = torch.ones(len(images), len(GROUPS) + 1)
    with torch.inference_mode():
        parts = [n.think(features, n.see(images), known) for n in scorer.networks]
    return torch.cat(parts, dim=1).double().numpy()


def to_weights(scorer: ClassScorer, notes: Mapping[str, object]) -> Weights:
    """Put a scorer into the form of its file."""
    arrays: dict[str, NDArray[np.floating]] = {
        f"network{k}.{name}": values
        for k, network in enumerate(scorer.networks)
        for name, values in network.arrays().items()
    }
    arrays["calibration"] = scorer.calibration
    if scorer.taste is not None:
        arrays["taste"] = np.array([scorer.taste.slope, scorer.taste.offset, *scorer.taste.turn])
    described = {"features": list(FEATURES), "networks": len(scorer.networks), **notes}
    return Weights(kind=KIND, version=_VERSION, arrays=arrays, notes=described)


@contextmanager
def _file(path: Path | None) -> Iterator[Path]:
    if path is not None:
        yield Path(path)
        return
    with resources.as_file(resources.files("cryopick.selection") / _SHIPPED) as shipped:
        yield shipped


def _from_weights(weights: Weights, path: Path) -> ClassScorer:
    arrays = dict(weights.arrays)
    if weights.notes.get("features") != list(FEATURES):
        _refuse(path, "be made for the measures of this version", "other measures")
    networks = []
    try:
        for k in range(int(weights.notes["networks"])):
            prefix = f"network{k}."
            own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            network = ClassNetwork(GROUPS)
            network.load_arrays(own)
            networks.append(network.eval())
        calibration = np.asarray(arrays["calibration"], np.float64).reshape(2, 2)
        taste = _taste(arrays.get("taste"), networks)
    except (KeyError, RuntimeError, TypeError, ValueError):
        _refuse(path, "hold the weights of whole networks", "other arrays")
    if not networks:
        _refuse(path, "hold networks", "none")
    return ClassScorer(networks=tuple(networks), calibration=calibration, taste=taste)


def _taste(values: NDArray[np.floating] | None, networks: Sequence[ClassNetwork]) -> Taste | None:
    if values is None:
        return None
    width = 2 + sum(network.output.in_features for network in networks)
    if values.shape != (width,):
        raise ValueError(values.shape)
    found = values.astype(np.float64)
    return Taste(slope=float(found[0]), offset=float(found[1]), turn=found[2:])


def _refuse(path: Path, must: str, got: str) -> NoReturn:
    raise FormatError(
        str(path), must=must, got=got, remedy="Leave --weights out, or make them again"
    )


def _tensors(inputs: ClassInputs) -> tuple[Tensor, Tensor]:
    features = inputs.features[list(FEATURES)].to_numpy(np.float32)
    return torch.from_numpy(features.copy()), torch.from_numpy(inputs.images)


def _judge(
    scorer: ClassScorer, features: Tensor, looks: Sequence[Tensor], known: Tensor, counts: Floats
) -> Floats:
    """Score, purity and quality, (3, n).

    The average of few members says little of them: purity is drawn to that of junk, as much as by
    `_OWN` members that are known to be it.
    """
    total = np.zeros((len(features), 2))
    hidden = []
    for network, seen in zip(scorer.networks, looks, strict=True):
        thought = network.think(features, seen, known)
        hidden.append(thought.double().numpy())
        logits = network.output(thought).double().numpy()
        total += logits / len(scorer.networks)
    slope, offset = scorer.calibration
    purity, quality = expit(slope * total + offset).T
    trust = 1 - _OWN / (_OWN + np.where(np.isfinite(counts), counts, np.inf))
    purity = trust * purity + (1 - trust) * _JUNK_PURITY
    score = combine(purity, quality)
    if scorer.taste is not None:
        score = scorer.taste.apply(score, np.concatenate(hidden, axis=1))
    return np.stack([score, purity, quality])


def _reasons(
    row: pd.Series, score: float, without: Floats, names: Sequence[str]
) -> tuple[Reason, ...]:
    """Say what moved a score, by how much it moved its odds: near 0 and 1 scores hardly move."""
    moved = certain_logit(np.array(score)) - certain_logit(without)
    return tuple(
        Reason(
            group=names[k],
            effect=float(score - without[k]),
            text=describe(names[k], row),
        )
        for k in np.argsort(-np.abs(moved), kind="stable").tolist()
        if abs(moved[k]) >= _FEWEST_EFFECT
        and (names[k] not in GROUPS or row[list(GROUPS[names[k]])].notna().any())
    )
