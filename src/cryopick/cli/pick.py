"""``cryopick pick``: find particles in micrographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryopick.cli.console import EXIT_SOME_FAILED, print_result, progress_bar, warn
from cryopick.cli.micrograph_options import (
    AsJson,
    MicrographFiles,
    Out,
    Overwrite,
    PixelSize,
    warn_of_refused,
)
from cryopick.cli.options import expand_parameters
from cryopick.cli.pick_topaz import topaz_app
from cryopick.execution.parameters import ComputeParameters
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.log_parameters import LogParameters
from cryopick.picking.template_parameters import TemplateParameters
from cryopick.pipeline.picking_ctf_parameters import PickingCtfParameters

if TYPE_CHECKING:
    from cryopick.pipeline.picking import PickingResult

__all__ = ["pick_app"]

pick_app = typer.Typer(
    help="Find particles in micrographs.", no_args_is_help=True, pretty_exceptions_enable=False
)
pick_app.add_typer(topaz_app, name="topaz")


@pick_app.callback()
def _group() -> None:
    """Find particles in micrographs."""


@pick_app.command("log")
@expand_parameters
def pick_log_command(
    micrographs: MicrographFiles,
    *,
    out: Out,
    parameters: LogParameters,
    pixel_size: PixelSize = None,
    compute: ComputeParameters,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Find blobs of a known size, without references.

    Writes autopick.star and one coordinate file per micrograph, as RELION does; all peaks,
    also those below the threshold, lie in peaks/. The same command again goes on where it was
    stopped and tries again what failed. Exit code 3 says that some micrographs were refused;
    they are listed in failed.star.
    """
    from cryopick.pipeline.pickers import LogPicker
    from cryopick.pipeline.picking import pick_micrographs

    picker = LogPicker(parameters=parameters)
    with progress_bar("Picking", is_json=is_json) as progress:
        result = pick_micrographs(
            micrographs,
            out,
            picker=picker,
            ctf=picker.ctf,
            compute=compute,
            pixel_size=pixel_size,
            overwrite=overwrite,
            progress=progress,
        )
    _tell(result, is_json=is_json)


@pick_app.command("blob")
@expand_parameters
def pick_blob_command(
    micrographs: MicrographFiles,
    *,
    out: Out,
    parameters: BlobParameters,
    ctf: PickingCtfParameters,
    pixel_size: PixelSize = None,
    compute: ComputeParameters,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Find blobs by matched filters that see the CTF and the noise of each field.

    Filled and hollow shapes over the range of diameters, as the lens shows them, are sought
    against the spectrum of the background. Without diameters, they are estimated first and
    shown in diameter.png. Files, resuming and exit codes are those of pick log; the class of
    a pick is its shape, and micrographs without a trusted CTF are searched as if there were no
    lens and counted.
    """
    from cryopick.pipeline.picking import pick_micrographs
    from cryopick.pipeline.picking_diameter import blob_picker

    with progress_bar("Estimating the diameter", is_json=is_json) as progress:
        picker = blob_picker(
            parameters,
            micrographs,
            out,
            ctf=ctf,
            compute=compute,
            pixel_size=pixel_size,
            overwrite=overwrite,
            progress=progress,
        )
    with progress_bar("Picking", is_json=is_json) as progress:
        result = pick_micrographs(
            micrographs,
            out,
            picker=picker,
            ctf=ctf,
            compute=compute,
            pixel_size=pixel_size,
            overwrite=overwrite,
            progress=progress,
        )
    is_estimated = parameters.min_diameter is None
    _tell(result, is_json=is_json, limits=_limits(picker.parameters) if is_estimated else None)


def _limits(parameters: BlobParameters) -> tuple[float, float]:
    return parameters.min_diameter or 0.0, parameters.max_diameter or 0.0


@pick_app.command("template")
@expand_parameters
def pick_template_command(
    micrographs: MicrographFiles,
    *,
    templates: Annotated[
        Path,
        typer.Option(
            help="Class averages (STAR file or folder of a 2D classification), a stack, or a map."
        ),
    ],
    out: Out,
    parameters: TemplateParameters,
    ctf: PickingCtfParameters,
    pixel_size: PixelSize = None,
    compute: ComputeParameters,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Find particles that look like templates, at any rotation.

    Class and psi of each pick name the template and turn the particle onto it; templates.mrcs
    holds the templates by number. Files, resuming and exit codes are those of pick log.
    Helices and amyloids are not followed.
    """
    from cryopick.pipeline.pickers import make_template_picker
    from cryopick.pipeline.picking import pick_micrographs

    picker = make_template_picker(templates, parameters=parameters)
    n_blank = len(picker.images) - len(picker.numbers)
    if n_blank:
        warn(f"{n_blank} of {len(picker.images)} templates are blank and were left out.")
    with progress_bar("Picking", is_json=is_json) as progress:
        result = pick_micrographs(
            micrographs,
            out,
            picker=picker,
            ctf=ctf,
            compute=compute,
            pixel_size=pixel_size,
            overwrite=overwrite,
            progress=progress,
        )
    _tell(result, is_json=is_json)


def _tell(
    result: PickingResult, *, is_json: bool, limits: tuple[float, float] | None = None
) -> None:
    """Say what was found and what was refused, and set the exit code."""
    counts = result.to_dict()
    done = len(result.picked)
    mean = f", {counts['n_picks'] / done:.0f} each on average" if done else ""
    lines = [f"{counts['n_picks']} picks in {done} micrographs{mean}: {counts['coordinates']}"]
    if limits is not None:
        counts["estimated_diameters"] = list(limits)
        chart = result.folder / "diameter.png"
        lines.insert(0, f"Diameters, estimated: {limits[0]:.0f} to {limits[1]:.0f} A; see {chart}")
    if counts["n_ctf_estimated"]:
        lines.append(
            f"The CTF of {counts['n_ctf_estimated']} micrographs was estimated for picking only; "
            "for particles with CTF values run: cryopick ctf estimate"
        )
    if counts["n_without_picks"]:
        lines.append(f"{counts['n_without_picks']} micrographs have no pick.")
    if counts["n_without_ctf"]:
        warn(
            f"{counts['n_without_ctf']} micrographs have no CTF that can be trusted; they were "
            "searched as if there were no lens."
        )
    warn_of_refused(counts["failed"], result.folder)
    print_result(counts, lines, is_json=is_json)
    if result.failed:
        raise typer.Exit(EXIT_SOME_FAILED)
