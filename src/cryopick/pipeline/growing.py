"""What is left for later while a list of micrographs grows.

Each portion of new micrographs goes through the same job. What was refused before rests until
somebody asks for it, so that it is not tried again with every portion; results of a file that has
gone since are kept; and what sums up all items is drawn when the list is whole. Tables that join
the items of a job hold those of the portion alone, in a folder of their own, and whoever hands
out portions joins them; ledgers are kept in memory from portion to portion.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "PORTION",
    "KeptLedgers",
    "Stage",
    "growing",
    "is_growing",
    "keeps_missing",
    "kept_ledgers",
    "lists_folder",
    "rests_refused",
]

PORTION = ".portion"  # folder in that of a job, with the lists of a portion
Stage = Literal["whole", "portion", "again", "closing"]
_Stamp = tuple[int, int, int]


@dataclass
class KeptLedgers:
    """Ledgers of jobs as they were left: reading them again would take ever longer.

    Attributes
    ----------
    found
        By the folder of the job, the stamp of the file and the records in it.
    """

    found: dict[Path, tuple[_Stamp, dict[str, Any]]] = field(default_factory=dict)

    def recall(self, ledger: Path) -> dict[str, Any] | None:
        """Give the records of a ledger that nobody has changed since; None if that is not known."""
        stamp, records = self.found.pop(ledger.parent, (None, None))
        return records if stamp is not None and stamp == _stamp(ledger) else None

    def records(self, folder: Path) -> dict[str, Any]:
        """Give the records of a job, by key, as they were left; none if they are not known."""
        return self.found[folder][1] if folder in self.found else {}

    def keep(self, ledger: Path, records: dict[str, Any]) -> None:
        """Keep the records of a ledger, which holds these and no others."""
        self.found[ledger.parent] = (_stamp(ledger), records)


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_size, status.st_mtime_ns)


_stage: ContextVar[Stage] = ContextVar("stage", default="whole")
_ledgers: ContextVar[KeptLedgers | None] = ContextVar("ledgers", default=None)


@contextlib.contextmanager
def growing(stage: Stage, *, ledgers: KeptLedgers | None = None) -> Iterator[None]:
    """Say for a while what is being done.

    Parameters
    ----------
    stage
        ``portion``: new micrographs, of more to come. ``again``: likewise, and what was refused is
        tried again. ``closing``: all micrographs of a list that has grown.
    ledgers
        Those of the portions before, and then of this one, too.
    """
    tokens = _stage.set(stage), _ledgers.set(ledgers)
    try:
        yield
    finally:
        _stage.reset(tokens[0])
        _ledgers.reset(tokens[1])


def is_growing() -> bool:
    """Whether more micrographs may come."""
    return _stage.get() in ("portion", "again")


def kept_ledgers() -> KeptLedgers | None:
    """Give the ledgers of the portions before; None where there are no portions."""
    return _ledgers.get() if is_growing() else None


def lists_folder(folder: Path) -> Path:
    """Name the folder of the tables that join the items of a job.

    Parameters
    ----------
    folder
        Of the job.
    """
    return folder / PORTION if is_growing() else folder


def rests_refused() -> bool:
    """Whether what was refused before is left as it is."""
    return _stage.get() == "portion"


def keeps_missing() -> bool:
    """Whether results are kept whose input is not there any more."""
    return _stage.get() != "whole"
