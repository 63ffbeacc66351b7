"""The table of the micrographs that a job refused, and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cryopick.io.star import write_star

__all__ = ["write_failed"]


def write_failed(path: Path, reasons: Mapping[str, str]) -> None:
    """Write the sentence of each refused micrograph by its name, or take an old table away.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    if not reasons:
        path.unlink(missing_ok=True)
        return
    columns = {
        "rlnMicrographName": pd.Series(list(reasons), dtype="str"),
        "cryopickReason": pd.Series(list(reasons.values()), dtype="str"),
    }
    write_star(path, {"failed": pd.DataFrame(columns)})
