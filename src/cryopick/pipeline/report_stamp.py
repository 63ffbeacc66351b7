"""Tell whether the report of a run is still true, so that what is known need not be drawn again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.runner import Halted, StepDone
from cryopick.pipeline.versions import known_versions

__all__ = ["has_stamp", "make_stamp"]

_TAIL = 200  # bytes at the end of a file that hold its stamp


def make_stamp(
    *,
    table: Path,
    parameters: RunParameters,
    steps: Sequence[StepDone],
    halted: Halted | None,
) -> str:
    """Name what a report is made from.

    Parameters
    ----------
    table
        All micrographs.
    parameters
        Of the run.
    steps
        That are done, in order.
    halted
        Why the run could not go on, if so.

    Returns
    -------
    str
        A comment to end an HTML file with.
    """
    said = [
        known_versions(),
        parameters.to_dict(),
        [[s.name, s.number, s.seconds, dict(s.facts)] for s in steps],
        None if halted is None else [halted.step, str(halted.error), halted.folder.name],
    ]
    digest = hashlib.sha256(json.dumps(said, default=str).encode())
    digest.update(table.read_bytes())
    return f"<!-- made from {digest.hexdigest()[:32]} -->\n"


def has_stamp(path: Path, stamp: str) -> bool:
    """Whether a file is there and ends with a stamp."""
    try:
        with path.open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - _TAIL))
            return handle.read().endswith(stamp.encode())
    except OSError:
        return False
