"""Write Xmipp's metadata files: STAR whose first line says so, with labels that are not numbered.

They are read by `cryopick.io.star.read_star`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cryopick.io.atomic import write_text

__all__ = ["write_xmd"]


def write_xmd(path: Path, blocks: Mapping[str, pd.DataFrame]) -> None:
    """Write blocks as Xmipp does, each as a loop.

    Parameters
    ----------
    path
        Where to; whole or not at all.
    blocks
        Tables by the name of their block.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    parts = ["# XMIPP_STAR_1 * \n# \n"]
    for name, table in blocks.items():
        labels = "".join(f" _{label}\n" for label in table.columns)
        parts.append(f"data_{name}\nloop_\n{labels}")
        columns = [_texts(table[label]) for label in table.columns]
        parts.extend(" " + " ".join(row) + "\n" for row in zip(*columns, strict=True))
    write_text(path, "".join(parts))


def _texts(column: pd.Series) -> list[str]:
    if column.dtype.kind in "iub":
        return [f"{int(value):>6d}" for value in column]
    if column.dtype.kind == "f":
        return [f"{value:>14.6f}" for value in column]
    return [_quoted(str(value)) for value in column]


def _quoted(text: str) -> str:
    if not text or re.search(r"\s", text):
        return f'"{text}"' if '"' not in text else f"'{text}'"
    return text
