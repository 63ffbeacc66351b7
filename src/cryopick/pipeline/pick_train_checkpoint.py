"""The state of a training of the picking network on disk, whole at any moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.weights import Weights, read_weights, write_weights
from cryopick.picking.network_fit import FitState, Look
from cryopick.picking.network_learner import LearnerState

__all__ = ["CHECKPOINT", "read_fit_state", "write_fit_state"]

CHECKPOINT = "checkpoint.npz"
_KIND, _VERSION = "particle picker in training", 1
_LEARNER, _BEST = "learner.", "best."


def write_fit_state(path: Path, state: FitState, *, identity: str) -> None:
    """Write a state.

    Parameters
    ----------
    path
        File to write.
    state
        At a report of the training.
    identity
        Names what is learned from and how.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    arrays = {f"{_LEARNER}{n}": a for n, a in state.learner.arrays.items()}
    arrays |= {f"{_BEST}{n}": a for n, a in state.best.items()}
    notes = {
        "identity": identity,
        "step": state.learner.step,
        "random": dict(state.learner.random),
        "hidden_share": state.hidden_share,
        "first": None if state.first is None else list(state.first),
        "history": [list(h) for h in state.history],
    }
    write_weights(path, Weights(kind=_KIND, version=_VERSION, arrays=arrays, notes=notes))


def read_fit_state(path: Path, *, identity: str) -> FitState | None:
    """Read a state; None if there is none that is whole and of the same training.

    Parameters
    ----------
    path
        File of `write_fit_state`.
    identity
        Names what is learned from and how.
    """
    try:
        weights = read_weights(path, kind=_KIND, versions=(_VERSION,))
    except FormatError:
        return None
    notes = weights.notes
    if notes["identity"] != identity:
        return None
    learner = LearnerState(
        step=int(notes["step"]), arrays=_below(weights, _LEARNER), random=notes["random"]
    )
    return FitState(
        learner=learner,
        best=_below(weights, _BEST),
        hidden_share=float(notes["hidden_share"]),
        first=None if notes["first"] is None else Look(*notes["first"]),
        history=tuple(Look(*look) for look in notes["history"]),
    )


def _below(weights: Weights, prefix: str) -> dict[str, NDArray[Any]]:
    return {n.removeprefix(prefix): a for n, a in weights.arrays.items() if n.startswith(prefix)}
