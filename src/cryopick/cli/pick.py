"""``cryopick pick``: find particles in micrographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.console import EXIT_SOME_FAILED, print_result, progress_bar, warn
from cryopick.cli.options import expand_parameters
from cryopick.execution.parameters import ComputeParameters
from cryopick.picking.log_parameters import LogParameters

__all__ = ["pick_app"]

pick_app = typer.Typer(
    help="Find particles in micrographs.", no_args_is_help=True, pretty_exceptions_enable=False
)

_SHOWN = 5  # failed micrographs named on the screen


@pick_app.callback()
def _group() -> None:
    """Find particles in micrographs."""


@pick_app.command("log")
@expand_parameters
def pick_log_command(
    micrographs: Annotated[
        list[str], typer.Argument(help="A STAR file; or images, folders or globs of them.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    parameters: LogParameters,
    pixel_size: Annotated[
        float | None,
        typer.Option(help="Of the micrographs, instead of what table or headers say. [A]"),
    ] = None,
    compute: ComputeParameters,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results of other parameters in --out.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find blobs of a known size, without references.

    Writes autopick.star and one coordinate file per micrograph, as RELION does; all peaks,
    also those below the threshold, lie in peaks/. The same command again goes on where it was
    stopped and tries again what failed. Exit code 3 says that some micrographs were refused;
    they are listed in failed.star.
    """
    from cryopick.pipeline.picking import pick_micrographs

    with progress_bar("Picking", is_json=is_json) as progress:
        result = pick_micrographs(
            micrographs,
            out,
            parameters=parameters,
            compute=compute,
            pixel_size=pixel_size,
            overwrite=overwrite,
            progress=progress,
        )
    counts = result.to_dict()
    done = len(result.picked)
    mean = f", {counts['n_picks'] / done:.0f} each on average" if done else ""
    lines = [f"{counts['n_picks']} picks in {done} micrographs{mean}: {counts['coordinates']}"]
    if counts["n_without_picks"]:
        lines.append(f"{counts['n_without_picks']} micrographs have no pick.")
    for micrograph in result.failed[:_SHOWN]:
        warn(f"Refused {micrograph.micrograph}: {micrograph.error}")
    if result.failed:
        warn(f"{len(result.failed)} micrographs were refused; see {result.folder / 'failed.star'}.")
    print_result(counts, lines, is_json=is_json)
    if result.failed:
        raise typer.Exit(EXIT_SOME_FAILED)
