"""The state of a 2D classification on disk, whole at any moment."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cryopick.class2d.em_state import EmState
from cryopick.errors import FormatError
from cryopick.io.atomic import writing

__all__ = ["CHECKPOINT", "Checkpoints", "Saved", "read_checkpoint"]

CHECKPOINT = "checkpoint.npz"
_PLANNED = "n_iterations"
_PAUSE = 20.0  # s between checkpoints of quick iterations


class Saved(NamedTuple):
    """What a checkpoint holds."""

    state: EmState
    n_iterations: int  # that the run was to do


def read_checkpoint(folder: Path) -> Saved | None:
    """Read the state that a run has left; None if there is none.

    Raises
    ------
    FormatError
        If the file is not one of ours.
    """
    path = Path(folder) / CHECKPOINT
    if not path.exists():
        return None
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            return Saved(EmState.from_arrays(dict(arrays)), int(arrays[_PLANNED]))
    except (AttributeError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise FormatError(
            str(path),
            must="be a checkpoint of this version of cryopick",
            got=str(error) or type(error).__name__,
            remedy="Remove it to begin again, or choose another --out",
        ) from error


class Checkpoints:
    """Writes states, not more often than is worth the time.

    Parameters
    ----------
    folder
        Of the job.
    n_iterations
        That the run is to do.
    pause
        Least time between two, s.
    """

    def __init__(self, folder: Path, *, n_iterations: int, pause: float = _PAUSE) -> None:
        self._planned = np.asarray(n_iterations)
        self._path = Path(folder) / CHECKPOINT
        self._pause = pause
        self._last = time.monotonic()
        self._waiting: EmState | None = None

    def offer(self, state: EmState) -> None:
        """Write the state if the last one was written long enough ago; keep it in mind if not.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        self._waiting = state
        if time.monotonic() - self._last >= self._pause:
            self.flush()

    def flush(self) -> None:
        """Write the last state offered, if it is not written yet.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if self._waiting is None:
            return
        with writing(self._path) as handle:
            arrays = self._waiting.to_arrays() | {_PLANNED: self._planned}
            np.savez(handle, **arrays)  # type: ignore[arg-type]
        self._waiting = None
        self._last = time.monotonic()
