"""``cryopick run``: from micrographs to clean particles with one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.console import EXIT_SOME_FAILED, print_result, share_bar, warn
from cryopick.cli.options import expand_parameters
from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.run_parameters import RunParameters

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
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Pick, classify, train, pick all, and classify again, unattended.

    The CTF is estimated where the table has none, and the diameter if it is not given. Killed at
    any time, the same command goes on; run again later, it takes up new micrographs. With other
    parameters it redoes what depends on them, and keeps what was made before. Exit code 3 says
    that some micrographs were refused, 1 that the run halted, because no class is good, for
    example; the report says why.
    """
    from cryopick.pipeline.run import run_project
    from cryopick.pipeline.run_story import step_sentence

    told: dict[str, str] = {}  # a step that went on to more micrographs is told once
    with share_bar(is_json=is_json) as progress:
        result = run_project(
            micrographs,
            out,
            parameters=parameters,
            compute=compute,
            pixel_size=pixel_size,
            progress=progress,
            say=(lambda _: None) if is_json else warn,
            after=lambda step: told.update({step.name: step_sentence(step)}),
        )
    for sentence in result.report_problems:
        warn(sentence)
    if result.refused:
        warn(f"{len(result.refused)} micrographs refused; the report says why.")
    print_result(result.to_dict(), [*told.values(), f"Report: {result.report}"], is_json=is_json)
    if result.halted is not None:
        raise result.halted.error
    if result.refused:
        raise typer.Exit(EXIT_SOME_FAILED)
