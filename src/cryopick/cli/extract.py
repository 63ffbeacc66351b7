"""``cryopick extract``: particle images from micrographs and coordinates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryopick.cli.console import EXIT_SOME_FAILED, print_result, progress_bar, warn
from cryopick.cli.options import expand_parameters
from cryopick.execution.parameters import ComputeParameters
from cryopick.extraction.extraction_parameters import ExtractionParameters

if TYPE_CHECKING:
    from cryopick.errors import CryopickError
    from cryopick.pipeline.extraction import ExtractionResult

__all__ = ["extract", "extraction_lines"]


@expand_parameters
def extract(
    micrographs: Annotated[
        str, typer.Argument(help="STAR file of micrographs, or a folder or quoted pattern of them.")
    ],
    coordinates: Annotated[
        Path,
        typer.Argument(
            help="Picks (file or folder of any program), or a STAR file of particles to extract "
            "again with their origins."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the particles.")],
    pixel_size: Annotated[
        float | None, typer.Option(help="Of the micrographs, if their table does not say it. [A]")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what other parameters left in --out.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
    parameters: ExtractionParameters,
    compute: ComputeParameters,
) -> None:
    """Cut particles out of micrographs and bring them to one grey scale.

    Writes one stack per micrograph and particles.star, as RELION does. The fraction of a pixel
    that a box cannot follow is kept as the particle's origin. Killed and started again with the
    same options, it goes on where it was.
    """
    from cryopick.pipeline.extraction import extract as run
    from cryopick.pipeline.extraction_plan import open_coordinates
    from cryopick.tables.micrographs import open_micrographs

    refused: list[CryopickError] = []
    fields = open_micrographs([micrographs], pixel_size=pixel_size)
    positions = open_coordinates(coordinates, refused=refused)
    with progress_bar("Extracting", is_json=is_json) as progress:
        result = run(
            fields,
            positions,
            out,
            parameters=parameters,
            compute=compute,
            inputs=[micrographs, str(coordinates)],
            refused=refused,
            overwrite=overwrite,
            progress=progress,
        )
    for sentence in _warnings(result):
        warn(sentence)
    print_result(result.to_dict(), extraction_lines(result), is_json=is_json)
    if result.failures or not result.n_particles:
        raise typer.Exit(EXIT_SOME_FAILED)


def _warnings(result: ExtractionResult) -> list[str]:
    found = []
    if result.n_without_coordinates:
        found.append(
            f"Warning: {result.n_without_coordinates} of {result.n_micrographs} micrographs "
            "have no coordinates."
        )
    if result.n_unlisted:
        found.append(
            f"Warning: {result.n_unlisted} micrographs with coordinates are not among the "
            "micrographs given; left out."
        )
    return found + [f"Failed: {sentence}" for sentence in result.failures.values()]


def extraction_lines(result: ExtractionResult) -> list[str]:
    """Sentences on what was extracted and what was left out."""
    sizes = " and ".join(f"{size:g}" for size in result.pixel_sizes)
    lines = [
        f"{result.n_particles} particles of {result.image_size} px at {sizes} A/px "
        f"in {result.particles}"
        if result.particles
        else "No particle could be extracted."
    ]
    left = {
        "over an edge": result.n_edge,
        "outside": result.n_outside,
        "without contrast": result.n_flat,
        "not above the minimum FOM": result.n_below_fom,
    }
    parts = [f"{count} {why}" for why, count in left.items() if count]
    if parts:
        lines.append(f"Left out: {', '.join(parts)}.")
    if result.failures:
        lines.append(f"{len(result.failures)} micrographs or coordinate files failed.")
    return lines
