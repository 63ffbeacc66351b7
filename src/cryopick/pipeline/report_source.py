"""What the report of a run is made from: its steps, their folders, their tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.pipeline.run_context import CTF_TABLE
from cryopick.pipeline.run_parameters import RunParameters, Sizes
from cryopick.pipeline.runner import Halted, StepDone
from cryopick.tables.model import Micrographs
from cryopick.tables.relion import read_micrographs

__all__ = ["PICKINGS", "ReportSource", "read_record"]

PICKINGS = {"first_picks": "First picks", "picks": "Final picks"}
_SUBSET = "subset.star"


@dataclass(frozen=True, kw_only=True)
class ReportSource:
    """A run, done or halted; all else is read from the folders of its jobs."""

    table: Path  # of all micrographs
    parameters: RunParameters
    steps: Mapping[str, StepDone]  # that are done, by name, in order
    halted: Halted | None

    def facts(self, name: str) -> Mapping[str, Any] | None:
        """Numbers of a step; None where it is not done."""
        step = self.steps.get(name)
        return None if step is None else step.facts

    def folder(self, name: str) -> Path | None:
        """Folder of a step, also of the one at which the run halted; None where there is none."""
        if name in self.steps:
            return self.steps[name].folder
        if self.halted is None or self.halted.step != name:
            return None
        return self.halted.folder

    def micrographs(self, picking: str) -> Micrographs:
        """Read the table of the micrographs that a picking step worked on.

        Raises
        ------
        FormatError
            If it is missing or broken.
        """
        folder = self.steps[picking].folder
        job = read_record(folder)
        inputs = [Path(i).name for i in job.get("inputs", ())]
        if inputs[:1] == [_SUBSET]:  # where from it was started does not matter
            return read_micrographs(folder / _SUBSET)
        ctf = self.folder("ctf")
        return read_micrographs(self.table if ctf is None else ctf / CTF_TABLE)

    @property
    def sizes(self) -> Sizes | None:
        """How large particles are; None where it was to be estimated and is not known."""
        found = self.facts("diameter")
        if self.parameters.sizes is not None or found is None:
            return self.parameters.sizes
        return Sizes(**{n: float(found[n]) for n in Sizes.__dataclass_fields__})

    @property
    def seconds(self) -> float:
        """Time at work of all steps, in all runs."""
        return sum(step.seconds for step in self.steps.values())


def read_record(folder: Path) -> dict[str, Any]:
    """Read what a folder says of its job: ``job.json``, or ``step.json`` where there is none.

    Raises
    ------
    OSError, ValueError
        If neither can be read.
    """
    path = folder / "job.json"
    if not path.exists():
        path = folder / "step.json"
    return dict(json.loads(path.read_bytes()))
