"""Count the rows of a STAR table by micrograph without holding the table in memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

__all__ = ["count_by_micrograph"]

_LABEL = b"_rlnMicrographName"


def count_by_micrograph(path: Path) -> Counter[str]:
    """Count the rows of each micrograph.

    Parameters
    ----------
    path
        A STAR file, as cryopick and RELION write particles: a row for each line.

    Returns
    -------
    Counter
        Rows by name; empty if no table has a column of micrographs.
    """
    counts: Counter[bytes] = Counter()
    column, n_labels = -1, 0
    with Path(path).open("rb") as handle:
        for line in handle:
            if line.startswith((b"data_", b"loop_")):
                column, n_labels = -1, 0
            elif line.startswith(b"_"):
                column = n_labels if line.split(None, 1)[0] == _LABEL else column
                n_labels += 1
            elif column >= 0 and not line.startswith(b"#"):
                words = line.split(None, column + 1)
                if len(words) > column:
                    counts[words[column]] += 1
    return Counter({name.decode().strip("\"'"): n for name, n in counts.items()})
