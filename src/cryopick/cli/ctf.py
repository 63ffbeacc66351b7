"""``cryopick ctf``: the contrast transfer function of micrographs."""

from __future__ import annotations

from typing import Annotated

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
from cryopick.ctf.estimate_parameters import CtfParameters
from cryopick.execution.parameters import ComputeParameters

__all__ = ["ctf_app"]

ctf_app = typer.Typer(
    help="Measure the contrast transfer function (CTF) of micrographs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@ctf_app.callback()
def _group() -> None:
    """Measure the contrast transfer function (CTF) of micrographs."""


@ctf_app.command("estimate")
@expand_parameters
def ctf_estimate_command(
    micrographs: MicrographFiles,
    *,
    out: Out,
    parameters: CtfParameters,
    pixel_size: PixelSize = None,
    voltage: Annotated[
        float | None,
        typer.Option(help="Of the microscope in kV, instead of what the table says."),
    ] = None,
    spherical_aberration: Annotated[
        float | None, typer.Option(help="Of the lens in mm, instead of what the table says.")
    ] = None,
    amplitude_contrast: Annotated[
        float | None,
        typer.Option(help="As a fraction, instead of what the table says; 0.1 if it says none."),
    ] = None,
    compute: ComputeParameters,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Estimate defocus, astigmatism and phase shift from the rings of the spectrum.

    Writes micrographs_ctf.star, as RELION's CTF job does, and a picture of each fit. Micrographs
    without rings stay in the table with a low figure of merit and are counted in a warning. The
    same command again goes on where it was stopped and tries again what failed. Exit code 3 says
    that some micrographs were refused; they are listed in failed.star.
    """
    from cryopick.pipeline.ctf_estimate import estimate_ctfs

    with progress_bar("Estimating", is_json=is_json) as progress:
        result = estimate_ctfs(
            micrographs,
            out,
            parameters=parameters,
            compute=compute,
            pixel_size=pixel_size,
            voltage=voltage,
            spherical_aberration=spherical_aberration,
            amplitude_contrast=amplitude_contrast,
            overwrite=overwrite,
            progress=progress,
        )
    counts = result.to_dict()
    lines = [f"CTF of {len(result.estimated)} micrographs: {counts['table']}"]
    if counts["n_trusted"]:
        lines.append(
            f"Median defocus {counts['median_defocus']:.0f} A, "
            f"rings to {counts['median_max_resolution']:.1f} A."
        )
    if result.untrusted:
        warn(
            f"{len(result.untrusted)} of {len(result.estimated)} micrographs show no rings that "
            "can be trusted; their cryopickIsCtfTrusted is 0."
        )
    warn_of_refused(counts["failed"], result.folder)
    print_result(counts, lines, is_json=is_json)
    if result.failed:
        raise typer.Exit(EXIT_SOME_FAILED)
