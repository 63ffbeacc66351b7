"""``cryopick tomo``: tomograms, segmented and picked without labels or templates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryopick.cli.console import EXIT_SOME_FAILED, print_result, progress_bar, warn
from cryopick.cli.micrograph_options import AsJson, Overwrite
from cryopick.cli.options import expand_parameters
from cryopick.cli.tomo_pick import add_pick_command
from cryopick.execution.parameters import ComputeParameters
from cryopick.parameters import Parameters, describe
from cryopick.pipeline.tomo_segment_parameters import SegmentOutputParameters
from cryopick.tomogram.segment_parameters import BatchParameters, SegmentParameters

if TYPE_CHECKING:
    from cryopick.pipeline.tomo_segment import SegmentResult
    from cryopick.pipeline.tomo_segment_request import SegmentRequest

__all__ = ["tomo_app"]

Inputs = Annotated[
    list[str], typer.Argument(help="A YAML file of parameters, as PickET has it; or tomograms.")
]

tomo_app = typer.Typer(
    help="Segment and pick tomograms, without labels or templates.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
add_pick_command(tomo_app)


@tomo_app.callback()
def _group() -> None:
    """Segment and pick tomograms, without labels or templates."""


@tomo_app.command("segment")
@expand_parameters
def segment_command(
    context: typer.Context,
    inputs: Inputs,
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results; output_dir/dataset_name of a YAML file."),
    ] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(help="Kind of features: ffts, gabor or intensities; gabor if not given."),
    ] = None,
    clustering: Annotated[
        list[str] | None, typer.Option(help="Method: kmeans or gmm; gmm if not given.")
    ] = None,
    lower_z: Annotated[
        int | None,
        typer.Option(help="First section to learn from; all sections are labelled. [voxels]"),
    ] = None,
    upper_z: Annotated[
        int | None, typer.Option(help="First section beyond those to learn from. [voxels]")
    ] = None,
    voxel_size: Annotated[
        float | None, typer.Option(help="Of the tomograms, instead of what headers say. [A]")
    ] = None,
    parameters: SegmentParameters,
    batch: BatchParameters,
    output: SegmentOutputParameters,
    compute: ComputeParameters,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say memory and time, and end.")
    ] = False,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Label the voxels of tomograms by clusters of the features of their neighbourhoods.

    One model is learned from all tomograms. Limits of z restrict what is learned from, never what
    is labelled. The same command again goes on where it was stopped. Exit code 3: some refused.
    """
    from cryopick.pipeline.tomo_segment import segment_tomograms
    from cryopick.pipeline.tomo_segment_plan import plan_segmentation

    request = _request(context, inputs, out, feature, clustering, (lower_z, upper_z))
    plan = plan_segmentation(request, output, voxel_size=voxel_size)
    if dry_run:
        print_result(plan.to_dict(), plan.sentences(compute), is_json=is_json)
        return
    if not is_json:
        warn("\n".join(plan.sentences(compute)))
    with progress_bar("Segmenting", is_json=is_json) as progress:
        result = segment_tomograms(
            request,
            output=output,
            compute=compute,
            voxel_size=voxel_size,
            overwrite=overwrite,
            progress=progress,
        )
    _tell(result, is_json=is_json)


def _request(
    context: typer.Context,
    inputs: list[str],
    out: Path | None,
    feature: list[str] | None,
    clustering: list[str] | None,
    limits: tuple[int | None, int | None],
) -> SegmentRequest:
    """Join the YAML file, if there is one, and the options that were given."""
    from cryopick.pipeline.tomo_segment_request import read_request, request_of

    given = {
        name: value
        for name, value in context.params.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    segment, batch = (_taken(given, cls) for cls in (SegmentParameters, BatchParameters))
    make = read_request if inputs[0].lower().endswith((".yaml", ".yml")) else request_of
    return make(
        inputs,
        changes=segment,
        batch=batch,
        folder=out,
        feature=feature,
        clustering=clustering,
        limits=limits,
    )


def _taken(given: dict[str, Any], cls: type[Parameters]) -> dict[str, Any]:
    return {d.name: given[d.name] for d in describe(cls) if d.name in given}


def _tell(result: SegmentResult, *, is_json: bool) -> None:
    record = result.record
    lines = []
    for workflow in record["workflows"]:
        shape = ", ".join(f"{n:,}" for n in workflow["features_shape"])
        lines.append(
            f"{workflow['name']}: features of shape ({shape}), "
            f"{workflow['n_components']} components, {len(workflow['clusters'])} clusters."
        )
        lines += [
            f"  cluster {c['number']}: {c['share']:.1%} of the voxels"
            + (f", taken for particles: {c['why']}" if c["is_particle"] else "")
            for c in workflow["clusters"]
        ]
    n_done = len(record["tomograms"]) - len(result.failed)
    lines.append(f"{n_done} tomograms segmented: {result.folder / 'segmentation.json'}")
    for path, reason in result.failed.items():
        warn(f"Refused {path}: {reason}")
    print_result(record, lines, is_json=is_json)
    if result.failed:
        raise typer.Exit(EXIT_SOME_FAILED)
