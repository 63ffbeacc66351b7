"""The passes in which networks learn while micrographs still arrive.

A pass is a whole consensus of the micrographs so far, in a folder of its own; its networks begin
from those of the pass before. ``passes.jsonl`` lists those that have ended. What a pass was
killed in is done again.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cryopick.io.line_list import append_lines, read_lines
from cryopick.picking.consensus_training_parameters import ConsensusTraining
from cryopick.pipeline.consensus_chances import Chances
from cryopick.pipeline.consensus_models import MODELS, trained_networks

__all__ = ["Pass", "Passes"]

PASSES, _FOLDER = "passes.jsonl", "passes"
_LIKELY = 0.8  # probability of a candidate that networks learn from
_KEPT = 2  # passes whose networks stay


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What one pass came to."""

    n_micrographs: int
    n_likely: int  # candidates that are likely particles
    precision: float | None  # mean average precision of its networks; None if none was trained
    is_complete: bool  # nothing more is to be learned


class Passes:
    """All passes of a stream.

    Parameters
    ----------
    folder
        Of the stream.

    Raises
    ------
    FormatError
        If the list is broken.
    """

    def __init__(self, folder: Path) -> None:
        self._root = Path(folder)
        self._list = self._root / PASSES
        self.done = read_lines(self._list, lambda x: Pass(**x), name="passes")

    @property
    def last(self) -> Pass | None:
        """The last one that has ended."""
        return self.done[-1] if self.done else None

    @property
    def is_complete(self) -> bool:
        """Whether networks have learned enough."""
        return self.last is not None and self.last.is_complete

    def folder(self, n_micrographs: int) -> Path:
        """Where the pass over so many micrographs lies."""
        return self._root / _FOLDER / f"{n_micrographs:06d}"

    def models(self) -> Path | None:
        """Folder of the networks that were trained last; None if there are none yet."""
        for one in reversed(self.done):
            folder = self.folder(one.n_micrographs)
            if one.precision is not None and (folder / MODELS).is_dir():
                return folder
        return None

    def add(self, n_micrographs: int, found: Chances, training: ConsensusTraining) -> Pass:
        """Note that a pass has ended, and remove the networks of earlier ones.

        Parameters
        ----------
        n_micrographs
            That it has learned from.
        found
            What it says of the candidates.
        training
            Says when there is nothing more to be learned.

        Raises
        ------
        OutputError
            If the list cannot be written.
        """
        networks = trained_networks(self.folder(n_micrographs) / MODELS)
        precision = float(np.mean([n.average_precision for n in networks])) if networks else None
        n_likely = int((found.trust.probability > _LIKELY).sum())
        most, enough = training.training_particles, training.stop_accuracy
        has_many = most != -1 and n_likely >= most
        is_good = enough is not None and precision is not None and precision >= enough
        made = Pass(
            n_micrographs=n_micrographs,
            n_likely=n_likely,
            precision=precision,
            is_complete=precision is not None and (has_many or is_good),
        )
        append_lines(self._list, [asdict(made)])
        self.done.append(made)
        kept = {self.folder(p.n_micrographs) for p in self.done[-_KEPT:]} | {self.models()}
        for old in sorted((self._root / _FOLDER).glob("*")):
            if old not in kept:
                shutil.rmtree(old, ignore_errors=True)
        return made
