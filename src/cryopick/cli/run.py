"""``cryopick run``: from micrographs to particles and a report with one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryopick.cli.console import EXIT_SOME_FAILED, print_result, progress_bar, warn
from cryopick.cli.extract import extraction_lines
from cryopick.cli.options import expand_parameters
from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.run_parameters import RunParameters

if TYPE_CHECKING:
    from cryopick.pipeline.run import RunResult

__all__ = ["run_command"]


@expand_parameters
def run_command(
    micrographs: Annotated[
        list[str], typer.Argument(help="A STAR file; or images, folders or globs of them.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the project.")],
    parameters: RunParameters,
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
    """Pick particles, extract them and write a report, unattended.

    The project holds pick/, extract/ and report.html. Killed at any time, the same command goes
    on; run again later, it takes up new micrographs. Exit code 3 says that some were refused,
    or that no pick became a particle.
    """
    from cryopick.pipeline.run import run_project

    result = run_project(
        micrographs,
        out,
        parameters=parameters,
        compute=compute,
        pixel_size=pixel_size,
        overwrite=overwrite,
        progress=lambda label: progress_bar(label, is_json=is_json),
    )
    for sentence in result.report_problems:
        warn(sentence)
    if result.n_refused:
        warn(f"{result.n_refused} refused; the report says why.")
    print_result(result.to_dict(), _lines(result), is_json=is_json)
    if result.n_refused or (result.extraction and not result.extraction.n_particles):
        raise typer.Exit(EXIT_SOME_FAILED)


def _lines(result: RunResult) -> list[str]:
    counts = result.picking.to_dict()
    lines = [f"{counts['n_picks']} picks in {len(result.picking.picked)} micrographs."]
    if result.extraction is not None:
        lines += extraction_lines(result.extraction)
    lines.append(f"Report: {result.report}")
    return lines
