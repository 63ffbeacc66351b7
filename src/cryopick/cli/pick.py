"""``cryopick pick``: find particles in micrographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.console import progress_bar, warn
from cryopick.cli.micrograph_options import (
    AsJson,
    MicrographFiles,
    Out,
    Overwrite,
    PixelSize,
    pick_and_tell,
)
from cryopick.cli.options import expand_parameters
from cryopick.cli.pick_consensus import add_consensus_command
from cryopick.cli.pick_network import add_network_commands
from cryopick.cli.pick_topaz import topaz_app
from cryopick.execution.parameters import ComputeParameters
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.log_parameters import LogParameters
from cryopick.picking.template_parameters import TemplateParameters
from cryopick.pipeline.picking_ctf_parameters import PickingCtfParameters

__all__ = ["pick_app"]

pick_app = typer.Typer(
    help="Find particles in micrographs.", no_args_is_help=True, pretty_exceptions_enable=False
)
add_network_commands(pick_app)
add_consensus_command(pick_app)
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

    picker = LogPicker(parameters=parameters)
    pick_and_tell(
        micrographs,
        out,
        picker,
        ctf=picker.ctf,
        compute=compute,
        pixel_size=pixel_size,
        overwrite=overwrite,
        is_json=is_json,
    )


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
    for words in picker.estimate.warnings if picker.estimate is not None else ():
        warn(f"{words[0].upper()}{words[1:]}")
    is_estimated = parameters.min_diameter is None
    pick_and_tell(
        micrographs,
        out,
        picker,
        ctf=ctf,
        compute=compute,
        pixel_size=pixel_size,
        overwrite=overwrite,
        is_json=is_json,
        limits=_limits(picker.parameters) if is_estimated else None,
    )


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

    picker = make_template_picker(templates, parameters=parameters)
    n_blank = len(picker.images) - len(picker.numbers)
    if n_blank:
        warn(f"{n_blank} of {len(picker.images)} templates are blank and were left out.")
    pick_and_tell(
        micrographs,
        out,
        picker,
        ctf=ctf,
        compute=compute,
        pixel_size=pixel_size,
        overwrite=overwrite,
        is_json=is_json,
    )
