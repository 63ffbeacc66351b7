"""``cryopick simulate``: data whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.console import print_result, progress_bar
from cryopick.cli.options import expand_parameters
from cryopick.execution.parameters import ComputeParameters
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    ParticleSimulationParameters,
    SpecimenParameters,
)
from cryopick.simulation.tomograms_parameters import TomogramSimulationParameters

__all__ = ["simulate_app"]

simulate_app = typer.Typer(
    help="Make data whose truth is known.", no_args_is_help=True, pretty_exceptions_enable=False
)

Out = Annotated[Path, typer.Option(help="Folder for the results.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the results of other parameters in --out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@simulate_app.command("micrographs")
@expand_parameters
def simulate_micrographs_command(
    *,
    out: Out,
    specimen: SpecimenParameters,
    microscope: MicroscopeParameters,
    parameters: MicrographSimulationParameters,
    compute: ComputeParameters,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Make micrographs with known particles.

    Writes micrographs_ctf.star as RELION does, and the truth in truth/ and truth.json. The same
    command again makes what is missing, and with a larger --number goes on from there.
    """
    from cryopick.pipeline.simulate import simulate_micrographs

    with progress_bar("Simulating", is_json=is_json) as progress:
        result = simulate_micrographs(
            out,
            specimen=specimen,
            microscope=microscope,
            parameters=parameters,
            compute=compute,
            overwrite=overwrite,
            progress=progress,
        )
    lines = [
        f"{result.n_micrographs} micrographs with {result.n_particles} particles of "
        f"{result.diameter:.0f} A: {result.table}",
        f"Truth: {result.folder / 'truth.json'}",
    ]
    print_result(result.to_dict(), lines, is_json=is_json)


@simulate_app.command("particles")
@expand_parameters
def simulate_particles_command(
    *,
    out: Out,
    specimen: SpecimenParameters,
    microscope: MicroscopeParameters,
    parameters: ParticleSimulationParameters,
    compute: ComputeParameters,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Make a stack of particle images with known poses, classes and junk.

    Writes particles.star and particles.mrcs as RELION does on extraction, and the truth in
    truth.star, truth.npz and clean.npy. The same command again makes what is missing.
    """
    from cryopick.pipeline.simulate_particles import simulate_stack

    with progress_bar("Simulating", is_json=is_json) as progress:
        result = simulate_stack(
            out,
            specimen=specimen,
            microscope=microscope,
            parameters=parameters,
            compute=compute,
            overwrite=overwrite,
            progress=progress,
        )
    counts = result.to_dict()
    lines = [
        f"{result.n_images} images, {result.n_junk} of them junk: {counts['particles']}",
        f"Truth: {counts['truth']}",
    ]
    print_result(counts, lines, is_json=is_json)


@simulate_app.command("tomogram")
@expand_parameters
def simulate_tomogram_command(
    *,
    out: Out,
    specimen: SpecimenParameters,
    parameters: TomogramSimulationParameters,
    compute: ComputeParameters,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Make tomograms with known particles, gold beads and vesicles, and a missing wedge.

    Writes tomograms/*.mrc, a volume of labels for each, and the truth in truth.json and as
    RELION 5 counts in truth.star. The same command again makes what is missing, and with a larger
    --number goes on from there.
    """
    from cryopick.pipeline.simulate_tomogram import simulate_tomograms

    with progress_bar("Simulating", is_json=is_json) as progress:
        result = simulate_tomograms(
            out,
            specimen=specimen,
            parameters=parameters,
            compute=compute,
            overwrite=overwrite,
            progress=progress,
        )
    counts = result.to_dict()
    sizes = ", ".join(f"{name} {size:.0f} A" for name, size in result.diameters.items())
    lines = [
        f"{result.n_tomograms} tomograms with {result.n_particles} particles ({sizes}): "
        f"{counts['tomograms']}",
        f"Truth: {counts['truth']}",
    ]
    print_result(counts, lines, is_json=is_json)
