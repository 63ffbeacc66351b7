"""``cryopick select``: keep a part of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.console import print_result
from cryopick.cli.options import expand_parameters
from cryopick.selection.subset_parameters import SubsetParameters

__all__ = ["select_app"]

select_app = typer.Typer(
    help="Keep a part of a table.", no_args_is_help=True, pretty_exceptions_enable=False
)


@select_app.callback()
def _group() -> None:
    """Keep a part of a table."""


@select_app.command("subset")
@expand_parameters
def select_subset_command(
    table: Annotated[
        Path,
        typer.Argument(help="STAR file of micrographs, particles or picks; a folder of picks."),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the result.")],
    parameters: SubsetParameters,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier selection in --out.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Select by value, remove duplicates, split: micrographs, particles or picks.

    Writes micrographs.star, particles.star or autopick.star; after a split
    micrographs_split1.star and so on. Picks are split by micrograph, into folders.
    """
    from cryopick.pipeline.select_subset import select_subset

    result = select_subset(table, out, parameters, overwrite=overwrite)
    lines = [f"Kept {result.n_kept:,} of {result.n_before:,} {result.kind}."]
    lines += [f"{path}: {count:,} {result.kind}" for path, count in result.files.items()]
    print_result(result.to_dict(), lines, is_json=is_json)
