"""``cryopick pick topaz``: train Topaz, pick with it, and install it."""

from __future__ import annotations

import shlex
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
    tell_picks,
    warn_of_refused,
)
from cryopick.cli.options import expand_parameters
from cryopick.picking.topaz_parameters import (
    TopazComputeParameters,
    TopazPickParameters,
    TopazTrainParameters,
)

if TYPE_CHECKING:
    from cryopick.pipeline.topaz_train_run import TopazTraining

__all__ = ["topaz_app"]

topaz_app = typer.Typer(
    help="Pick with Topaz, a network that learns from your labels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@topaz_app.callback()
def _group() -> None:
    """Pick with Topaz, a network that learns from your labels."""


@topaz_app.command("train")
@expand_parameters
def train_command(
    micrographs: MicrographFiles,
    *,
    labels: Annotated[
        Path,
        typer.Option(
            help="Particles that were kept, or picks of any program: a file, or a folder of files."
        ),
    ],
    out: Out,
    parameters: TopazTrainParameters,
    pixel_size: PixelSize = None,
    compute: TopazComputeParameters,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Train Topaz on particles of your own.

    Micrographs without a label are not used. Writes model.sav, the model of the best epoch, for
    cryopick pick topaz pick --model. A training that was stopped begins anew.
    """
    from cryopick.pipeline.topaz_train import train_topaz

    with progress_bar("Training", is_json=is_json) as progress:
        result = train_topaz(
            micrographs,
            labels,
            out,
            parameters=parameters,
            compute=compute,
            pixel_size=pixel_size,
            overwrite=overwrite,
            progress=progress,
        )
    _tell_training(result, is_estimated=not parameters.particles_per_micrograph, is_json=is_json)


@topaz_app.command("pick")
@expand_parameters
def pick_command(
    micrographs: MicrographFiles,
    *,
    out: Out,
    parameters: TopazPickParameters,
    pixel_size: PixelSize = None,
    compute: TopazComputeParameters,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Pick with a model of Topaz, yours or one that comes with it.

    One process of Topaz picks all micrographs. Files, resuming and exit codes are those of pick
    log; the score is the logarithm of the odds, and all peaks above -6 lie in peaks/.
    """
    from cryopick.pipeline.topaz_pick import pick_with_topaz

    with progress_bar("Picking", is_json=is_json) as progress:
        result = pick_with_topaz(
            micrographs,
            out,
            parameters=parameters,
            compute=compute,
            pixel_size=pixel_size,
            overwrite=overwrite,
            progress=progress,
        )
    tell_picks(result, is_json=is_json)


@topaz_app.command("setup")
def setup_command(
    *,
    out: Annotated[Path, typer.Option(help="New folder for Topaz and its environment.")],
    python: Annotated[
        str, typer.Option(help="Python to make the environment of; cryopick's own if not given.")
    ] = "",
    torch_index: Annotated[
        str,
        typer.Option(
            help="Package index to take PyTorch from; https://download.pytorch.org/whl/cpu leaves "
            "CUDA out."
        ),
    ] = "",
    is_json: AsJson = False,
) -> None:
    """Install Topaz in an environment of its own. Uses the network, as no other command does.

    Topaz is free software under the GPL-3 and stays a program of its own.
    """
    from cryopick.pipeline.topaz_setup import set_up_topaz

    program = set_up_topaz(
        out, python=python, torch_index=torch_index, report=None if is_json else warn
    )
    path = shlex.quote(str(program.path))
    lines = [
        f"Topaz {program.version}: {program.path}",
        f"Name it with --executable, or: export CRYOPICK_TOPAZ_EXECUTABLE={path}",
    ]
    result = {"executable": str(program.path), "version": program.version}
    print_result(result, lines, is_json=is_json)


def _tell_training(result: TopazTraining, *, is_estimated: bool, is_json: bool) -> None:
    """Say what came of a training, and what was taken for granted."""
    if result.n_outside:
        warn(f"{result.n_outside} labels outside their micrographs were left out.")
    if result.n_unlisted:
        warn(f"{result.n_unlisted} micrographs of the labels are not listed; they were left out.")
    warn_of_refused(result.failed, result.folder)
    how = "1.5 times the labelled ones" if is_estimated else "as given"
    area = "no test score" if result.auprc is None else f"average precision {result.auprc:.3f}"
    lines = [
        f"{result.n_labels} labels: {result.n_train} micrographs to train on, "
        f"{result.n_test} to test on.",
        f"Expected in a micrograph: {result.expected:.0f} particles, {how}; "
        f"Topaz {result.version} was told {result.told:.4g}.",
        f"Shrunk {result.downscale} times to {result.pixel_size:g} A/px.",
        f"Epoch {result.epoch} was taken ({area} per test pixel): {result.model}",
    ]
    print_result(result.to_dict(), lines, is_json=is_json)
    if result.failed:
        raise typer.Exit(EXIT_SOME_FAILED)
