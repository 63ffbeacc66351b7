"""Arguments, options and last words that commands over micrographs share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.console import warn

__all__ = ["AsJson", "MicrographFiles", "Out", "Overwrite", "PixelSize", "warn_of_refused"]

_SHOWN = 5  # failed micrographs named on the screen

MicrographFiles = Annotated[
    list[str], typer.Argument(help="A STAR file; or images, folders or globs of them.")
]
Out = Annotated[Path, typer.Option(help="Folder for the results.")]
PixelSize = Annotated[
    float | None,
    typer.Option(help="Of the micrographs, instead of what table or headers say. [A]"),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the results of other parameters in --out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def warn_of_refused(reasons: Mapping[str, str], folder: Path) -> None:
    """Name some of the micrographs that were refused, with the reason, and where all are listed."""
    for name, reason in list(reasons.items())[:_SHOWN]:
        warn(f"Refused {name}: {reason}")
    if reasons:
        warn(f"{len(reasons)} micrographs were refused; see {folder / 'failed.star'}.")
