"""``cryopick pick network`` and ``cryopick pick train``: a network that finds particles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryopick.cli.console import EXIT_SOME_FAILED, print_result, share_bar, warn
from cryopick.cli.micrograph_options import (
    AsJson,
    MicrographFiles,
    Out,
    Overwrite,
    PixelSize,
    pick_and_tell,
    warn_of_refused,
)
from cryopick.cli.options import expand_parameters
from cryopick.execution.parameters import ComputeParameters
from cryopick.picking.network_parameters import NetworkParameters, NetworkTrainingParameters

if TYPE_CHECKING:
    from cryopick.pipeline.pick_train_result import PickTraining

__all__ = ["add_network_commands"]

_POOR = 0.3  # average precision over the best possible: with less, nothing was learned
_FEW = 20  # labels to validate on: with fewer, precision and calibration are vague


def add_network_commands(app: typer.Typer) -> None:
    """Add both commands to ``cryopick pick``."""
    app.command("network")(pick_network_command)
    app.command("train")(train_command)


@expand_parameters
def pick_network_command(
    micrographs: MicrographFiles,
    *,
    out: Out,
    model: Annotated[
        Path | None,
        typer.Option(help="Model of pick train, or its folder; the general model if not given."),
    ] = None,
    parameters: NetworkParameters,
    pixel_size: PixelSize = None,
    compute: ComputeParameters,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Find particles with a network: the general one, or one trained on particles of your own.

    The score of a pick is the probability of a particle; all peaks to which the network alone
    gives 0.01 or more lie in peaks/. Files, resuming and exit codes are those of pick log.
    """
    from cryopick.pipeline.network_picker import make_network_picker

    picker = make_network_picker(model, parameters=parameters)
    if picker.is_other_size:
        warn(
            f"The model was trained with --diameter {picker.trained_diameter:g}, and knows "
            f"particles at that scale; --diameter is {parameters.diameter:g} now."
        )
    if picker.is_other_sign:
        warn("The model was trained on particles of the other contrast; check --white-particles.")
    pick_and_tell(
        micrographs,
        out,
        picker,
        compute=compute,
        pixel_size=pixel_size,
        overwrite=overwrite,
        is_json=is_json,
    )


@expand_parameters
def train_command(
    labels: Annotated[
        Path,
        typer.Argument(
            help="Particles that were kept, or picks of any program: a file, or a folder of files."
        ),
    ],
    *,
    out: Out,
    micrographs: Annotated[
        list[str] | None,
        typer.Option(
            help="STAR file of the micrographs, or a folder or glob of them; may be repeated. The "
            "names in LABELS if not given."
        ),
    ] = None,
    rejected: Annotated[
        Path | None,
        typer.Option(
            help="Particles or picks that were looked at and not kept, such as all those of the "
            "classification; those within half a diameter of a label are taken out."
        ),
    ] = None,
    unsure: Annotated[
        Path | None,
        typer.Option(
            help="Particles or picks that may or may not be particles, such as those of middling "
            "classes; nothing is learned there."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Model to begin from; the general model if not given."),
    ] = None,
    parameters: NetworkTrainingParameters,
    pixel_size: PixelSize = None,
    compute: ComputeParameters,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Train a network on particles of your own, for cryopick pick network --model.

    Not all particles need to be labelled. Micrographs without a label are not used. The same
    command again goes on where it was stopped, to the same model. Exit code 3 says that some
    micrographs were refused; they are listed in failed.star.
    """
    from cryopick.pipeline.pick_train import train_picker

    with share_bar(is_json=is_json) as progress:
        result = train_picker(
            labels,
            out,
            micrographs=tuple(micrographs or ()),
            rejected=rejected,
            unsure=unsure,
            model=model,
            parameters=parameters,
            compute=compute,
            pixel_size=pixel_size,
            overwrite=overwrite,
            progress=progress,
        )
    _tell_training(result, is_estimated=not parameters.particles_per_micrograph, is_json=is_json)


def _tell_training(result: PickTraining, *, is_estimated: bool, is_json: bool) -> None:
    """Say what came of a training, and what was left out."""
    for sentence in _left_out(result):
        warn(sentence)
    warn_of_refused(result.failed, result.folder)
    before = result.first_average_precision
    since = "" if before is None else f", and {before:.3f} before"
    how = "estimated" if is_estimated else "as given"
    lines = [
        f"{result.n_train_labels} labels in {result.n_train} micrographs to learn from, "
        f"{result.n_held_out_labels} in {result.n_held_out} held out.",
        f"Particles in a micrograph: {result.n_expected:.0f}, {how}.",
        f"Average precision on what was held out, where what is not labelled counts as wrong: "
        f"{result.average_precision:.3f} after {result.steps} steps{since}; see {result.chart}",
        f"Picks from probability {result.threshold:.2f} on: {result.model}",
    ]
    print_result(result.to_dict(), lines, is_json=is_json)
    if result.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _left_out(result: PickTraining) -> list[str]:
    found = []
    if result.n_outside:
        found.append(f"{result.n_outside} labels outside their micrographs were left out.")
    if result.n_repeated:
        found.append(
            f"{result.n_repeated} labels within a fifth of a diameter of another were left out."
        )
    if result.n_masked:
        found.append(
            f"{result.n_masked} labels on ice, carbon or damaged borders were left out; "
            "--no-mask keeps those on ice and carbon."
        )
    if result.n_unlisted:
        found.append(
            f"{result.n_unlisted} micrographs of the labels are not listed; they were left out."
        )
    if result.n_unlabelled:
        found.append(f"{result.n_unlabelled} micrographs without a label are not used.")
    if result.edge_band:
        found.append(
            f"No label lies within {result.edge_band:.0f} A of the edges, as of particles cut out "
            "in boxes; nothing is learned there."
        )
    if result.n_unused:
        found.append(f"{result.n_unused} labelled micrographs are beyond --max-micrographs.")
    if result.n_held_out_labels < _FEW:
        found.append(
            f"Only {result.n_held_out_labels} labels are held out: precision and probabilities "
            "are vague."
        )
    labelled = result.n_held_out_labels / max(result.n_held_out * result.n_expected, 1e-6)
    if result.average_precision < _POOR * min(labelled, 1.0):
        found.append(
            "The model hardly finds the labelled particles; check --diameter, --pixel-size and "
            "--white-particles."
        )
    if result.steps == 0:
        found.append(
            "Training made nothing better of the model that it began from; its network is kept, "
            "with probabilities for these micrographs."
        )
    return found
