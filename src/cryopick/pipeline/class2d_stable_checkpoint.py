"""States of a stable classification on disk: the last one, and one of each main iteration.

A run goes on from the last one, or begins again after a main iteration.
"""

from __future__ import annotations

import shutil
import time
import zipfile
from pathlib import Path

import numpy as np

from cryopick.class2d.stable_state import StableState
from cryopick.errors import FormatError, ParameterError
from cryopick.io.atomic import make_folder, output_errors, writing
from cryopick.pipeline.class2d_stable_sphire import ALIGNMENT_FOLDER, generation_folder

__all__ = [
    "CHECKPOINT",
    "FOLDERS",
    "StateKeeper",
    "finished_mains",
    "has_main_state",
    "read_last_state",
    "read_main_state",
    "remove_beyond",
    "write_main_state",
]

CHECKPOINT = "checkpoint.npz"
FOLDERS = (ALIGNMENT_FOLDER, "mains")
_FINISHED = "finished.npz"
_SHARE = 0.05  # of the time may go into writing states


def read_last_state(out: Path) -> StableState | None:
    """Read the state that a run has left; None if there is none.

    Raises
    ------
    FormatError
        If the file is not one of ours.
    """
    path = Path(out) / CHECKPOINT
    return _read(path) if path.exists() else None


def read_main_state(out: Path, main: int) -> StableState:
    """Read the state at the end of a main iteration; 0 is the end of the prealignment.

    Raises
    ------
    ParameterError
        If this main iteration is not finished.
    FormatError
        If the file is not one of ours.
    """
    if not has_main_state(out, main):
        known = finished_mains(out)
        raise ParameterError(
            "restart", must=f"be a main iteration that is finished (0 to {known})", got=main,
            remedy="Lower --restart, or leave it out to go on",
        )  # fmt: skip
    return _read(_path_of(out, main))


def finished_mains(out: Path) -> int:
    """Count the main iterations that are finished."""
    number = 0
    while has_main_state(out, number + 1):
        number += 1
    return number


def has_main_state(out: Path, main: int) -> bool:
    """Whether a main iteration is finished; 0 is the prealignment."""
    return _path_of(out, main).exists()


def write_main_state(out: Path, main: int, state: StableState) -> None:
    """Write the state at the end of a main iteration, or of the prealignment (0).

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    path = _path_of(out, main)
    make_folder(path.parent)
    _write(path, state)


def remove_beyond(out: Path, state: StableState) -> None:
    """Remove what an earlier run has left of generations that this state does not know.

    Raises
    ------
    OutputError
        If it cannot be removed.
    """
    if state.is_finished:
        return
    first = generation_folder(out, state.main, state.generation)
    later = [f for f in first.parents[1].glob("main*") if f > first.parent]
    for folder in [*later, *(f for f in first.parent.glob("generation*") if f >= first)]:
        with output_errors(folder):
            shutil.rmtree(folder)
    with output_errors(out):
        _path_of(out, state.main).unlink(missing_ok=True)


class StateKeeper:
    """Writes states, not more often than is worth the time.

    Parameters
    ----------
    out
        Folder of the job.
    """

    def __init__(self, out: Path) -> None:
        self._path = Path(out) / CHECKPOINT
        self._next = 0.0
        self._waiting: StableState | None = None

    def offer(self, state: StableState) -> None:
        """Write the state if that takes little of the time that has passed; else keep it in mind.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        self._waiting = state
        if time.monotonic() >= self._next:
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
        begun = time.monotonic()
        _write(self._path, self._waiting)
        self._waiting = None
        now = time.monotonic()
        self._next = now + (now - begun) / _SHARE


def _path_of(out: Path, main: int) -> Path:
    if main == 0:
        return Path(out) / ALIGNMENT_FOLDER / _FINISHED
    return generation_folder(Path(out), main, 1).parent / _FINISHED


def _write(path: Path, state: StableState) -> None:
    with writing(path) as handle:
        np.savez(handle, **state.to_arrays())  # type: ignore[arg-type]


def _read(path: Path) -> StableState:
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            return StableState.from_arrays(dict(arrays))
    except (AttributeError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise FormatError(
            str(path),
            must="be a state of this version of cryopick",
            got=str(error) or type(error).__name__,
            remedy="Remove it to begin again, or choose another --out",
        ) from error
