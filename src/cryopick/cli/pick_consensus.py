"""``cryopick pick consensus``: one set of picks out of those of several pickers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryopick.cli.console import share_bar, warn
from cryopick.cli.micrograph_options import AsJson, Out, Overwrite, PixelSize, tell_picks
from cryopick.cli.options import expand_parameters
from cryopick.execution.parameters import ComputeParameters
from cryopick.picking.consensus_parameters import ConsensusParameters

if TYPE_CHECKING:
    from cryopick.pipeline.consensus import ConsensusResult

__all__ = ["add_consensus_command"]


def add_consensus_command(app: typer.Typer) -> None:
    """Add the command to ``cryopick pick``."""
    app.command("consensus")(pick_consensus_command)


@expand_parameters
def pick_consensus_command(
    sets: Annotated[
        list[Path],
        typer.Argument(help="Picks of any program, two or more: files, or folders of files."),
    ],
    *,
    micrographs: Annotated[
        list[str],
        typer.Option(
            help="STAR file of the micrographs, or a folder or glob of them; may be repeated."
        ),
    ],
    out: Out,
    set_pixel_size: Annotated[
        list[float] | None,
        typer.Option(
            help="Of the positions in each set, in the order of SETS; that of the micrographs if "
            "not given. [A]"
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Model that networks begin from; the general model if not given."),
    ] = None,
    parameters: ConsensusParameters,
    pixel_size: PixelSize = None,
    compute: ComputeParameters,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Join the picks of several pickers into one set, each with the probability of a particle.

    How far a picker can be trusted is found from how it agrees with the others; copies of one
    count once. All candidates lie in peaks/, and consensus.json says what became of each set.
    Files, resuming and exit codes are those of pick log.
    """
    from cryopick.pipeline.consensus import join_sets

    with share_bar(is_json=is_json) as progress:
        result = join_sets(
            sets,
            micrographs,
            out,
            parameters=parameters,
            set_pixel_sizes=tuple(set_pixel_size or ()),
            model=model,
            compute=compute,
            pixel_size=pixel_size,
            overwrite=overwrite,
            progress=lambda step, share: progress(step, share, ""),
        )
    _tell_pickers(result, is_json=is_json)
    tell_picks(result.picks, is_json=is_json, more=result.to_dict())


def _tell_pickers(result: ConsensusResult, *, is_json: bool) -> None:
    """Say how far each picker can be trusted, and what was left out."""
    first_of: dict[int, str] = {}
    for one in result.pickers:
        if not is_json:
            typer.echo(
                f"{one.path}: {one.n_picks} picks; finds {one.sensitivity:.0%} of the particles, "
                f"and {one.false_share:.0%} of its picks are none."
            )
        if one.counted_as in first_of:
            warn(f"{one.path} is no more than {first_of[one.counted_as]}; they have one vote.")
        first_of.setdefault(one.counted_as, one.path)
        if one.n_unlisted:
            warn(f"{one.n_unlisted} micrographs of {one.path} are not listed; they were left out.")
    if result.n_unseen_micrographs:
        warn(f"{result.n_unseen_micrographs} micrographs are in no set; they were left out.")
