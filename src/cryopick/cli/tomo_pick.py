"""``cryopick tomo pick``: find particles in tomograms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryopick.cli.console import EXIT_SOME_FAILED, print_result, progress_bar, warn
from cryopick.cli.micrograph_options import AsJson, Out, Overwrite
from cryopick.cli.options import expand_parameters
from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.tomo_pick_parameters import TomogramPickOutput
from cryopick.tomogram.locate_parameters import TomogramPickParameters

if TYPE_CHECKING:
    from cryopick.pipeline.tomo_pick import TomogramPickResult

__all__ = ["add_pick_command"]


def add_pick_command(app: typer.Typer) -> None:
    """Put ``pick`` among the commands of ``tomo``."""
    app.command("pick")(pick_command)


@expand_parameters
def pick_command(
    tomograms: Annotated[
        list[Path] | None,
        typer.Argument(help="Tomograms: MRC, OME-Zarr or TIFF; none takes those segmented."),
    ] = None,
    *,
    out: Out,
    parameters: TomogramPickParameters,
    output: TomogramPickOutput,
    segmentation: Annotated[
        Path | None, typer.Option(help="Folder of tomo segment, for method segment.")
    ] = None,
    workflow: Annotated[
        str, typer.Option(help="Of the segmentation, such as gabor_gmm; its only one otherwise.")
    ] = "",
    cluster: Annotated[
        list[int] | None,
        typer.Option(help="Cluster that is particle, instead of what the segmentation took."),
    ] = None,
    voxel_size: Annotated[
        float | None, typer.Option(help="Of the tomograms, instead of what headers say. [A]")
    ] = None,
    compute: ComputeParameters,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Find particles in tomograms, without labels or templates.

    Gold beads are masked and their streaks taken away first. Each pick gets a score in deviations
    of the noise, its size and axes, and a kind; particles.star and the other coordinate files
    hold them, report.html shows them. Memory depends on --block; results do not. The same command
    again goes on where it was stopped. Exit code 3 says that some tomograms were refused.
    """
    from cryopick.pipeline.tomo_pick import pick_tomograms

    with progress_bar("Picking", is_json=is_json) as progress:
        result = pick_tomograms(
            tomograms or [],
            out,
            parameters=parameters,
            output=output,
            segmentation=segmentation,
            workflow=workflow,
            clusters=cluster or (),
            voxel_size=voxel_size,
            compute=compute,
            overwrite=overwrite,
            progress=progress,
        )
    _tell(result, is_json=is_json)


def _tell(result: TomogramPickResult, *, is_json: bool) -> None:
    counts = result.to_dict()
    done = counts["n_tomograms"] - counts["n_failed"]
    lines = [
        f"{counts['n_picks']} picks of {counts['n_kinds']} kinds in {done} tomograms: "
        f"{', '.join(counts['coordinates'][:3])}",
        f"{counts['n_beads']} gold beads masked; {counts['n_extended']} maxima on membranes or "
        "filaments left out.",
    ]
    if (result.folder / "report.html").exists():
        lines.append(f"Slices, sizes and kinds: {result.folder / 'report.html'}")
    for path, reason in result.failed.items():
        warn(f"Refused {path}: {reason}")
    print_result(counts, lines, is_json=is_json)
    if result.failed:
        raise typer.Exit(EXIT_SOME_FAILED)
