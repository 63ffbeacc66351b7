"""``cryopick pick consensus``: one set of picks out of those of several pickers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryopick.cli.console import EXIT_SOME_FAILED, share_bar, warn
from cryopick.cli.extract import extraction_lines
from cryopick.cli.micrograph_options import AsJson, Out, Overwrite, PixelSize, tell_picks
from cryopick.cli.options import expand_parameters
from cryopick.execution.parameters import ComputeParameters
from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.picking.consensus_training_parameters import ConsensusTraining
from cryopick.pipeline.consensus_output_parameters import ConsensusOutputParameters
from cryopick.pipeline.consensus_stream_parameters import ConsensusStreamParameters

if TYPE_CHECKING:
    from cryopick.pipeline.consensus import ConsensusResult

__all__ = ["add_consensus_command"]


def add_consensus_command(app: typer.Typer) -> None:
    """Add the command to ``cryopick pick``."""
    app.command("consensus")(pick_consensus_command)


_Sets = Annotated[
    list[Path],
    typer.Argument(
        help="Picks of any program, two or more: files, or folders of files. One is enough "
        "with --skip-training."
    ),
]
_Micrographs = Annotated[
    list[str],
    typer.Option(
        help="STAR file of the micrographs, or a folder or glob of them; may be repeated."
    ),
]
_SetPixelSize = Annotated[
    list[float] | None,
    typer.Option(
        help="Of the positions in each set, in the order of SETS; that of the micrographs if "
        "not given. [A]"
    ),
]
_CtfTable = Annotated[
    Path | None,
    typer.Option(help="Table of the micrographs with their CTF, instead of MICROGRAPHS."),
]
_Positives = Annotated[
    Path | None,
    typer.Option(
        help="Particles to learn from besides: picks on these micrographs, or a table of boxed "
        "particles of others, white, in boxes of 1.2 diameters at least."
    ),
]
_Negatives = Annotated[Path | None, typer.Option(help="The same of what is no particle.")]
_TestPositives = Annotated[
    Path | None,
    typer.Option(
        help="Particles to test the networks on, as --positives; needs --test-negatives. "
        "testing.json and roc.png say what came of it."
    ),
]


@expand_parameters
def pick_consensus_command(
    sets: _Sets,
    *,
    micrographs: _Micrographs,
    out: Out,
    set_pixel_size: _SetPixelSize = None,
    ctf: _CtfTable = None,
    positives: _Positives = None,
    negatives: _Negatives = None,
    test_positives: _TestPositives = None,
    test_negatives: _Negatives = None,
    parameters: ConsensusParameters,
    training: ConsensusTraining,
    output: ConsensusOutputParameters,
    stream: ConsensusStreamParameters,
    pixel_size: PixelSize = None,
    compute: ComputeParameters,
    overwrite: Overwrite = False,
    is_json: AsJson = False,
) -> None:
    """Join the picks of several pickers into one set, each with the probability of a particle.

    How far a picker can be trusted is found from how it agrees with the others; copies of one
    count once. All candidates lie in peaks/, and consensus.json says what became of each set.
    The particles kept are extracted into particles/, and report.html shows it all. Files,
    resuming and exit codes are those of pick log. With --stream it waits for more micrographs
    and picks, and stream.json says where it stands; it ends with --close, after --idle minutes,
    or when a file named close is put into --out.
    """
    from cryopick.pipeline.consensus import join_request
    from cryopick.pipeline.consensus_plan import TrainingFiles
    from cryopick.pipeline.consensus_request import ConsensusRequest
    from cryopick.pipeline.consensus_stream import join_stream

    request = ConsensusRequest(
        sets=tuple(sets),
        micrographs=tuple(micrographs),
        parameters=parameters,
        training=training,
        files=TrainingFiles(
            positives=positives,
            negatives=negatives,
            test_positives=test_positives,
            test_negatives=test_negatives,
            ctf=ctf,
        ),
        output=output,
        compute=compute,
        set_pixel_sizes=tuple(set_pixel_size or ()),
        pixel_size=pixel_size,
        overwrite=overwrite,
    )
    with share_bar(is_json=is_json) as bar:

        def tell(step: str, share: float) -> None:
            bar(step, share, "")

        if stream.stream:
            result = join_stream(request, out, stream=stream, progress=tell)
        else:
            result = join_request(request, out, progress=tell)
    _tell_pickers(result, is_json=is_json)
    _tell_networks(result, is_json=is_json)
    _tell_particles(result, is_json=is_json)
    tell_picks(result.picks, is_json=is_json, more=result.to_dict())
    if result.particles is not None and result.particles.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def _tell_pickers(result: ConsensusResult, *, is_json: bool) -> None:
    """Say how far each picker can be trusted, and what was left out."""
    first_of: dict[int, str] = {}
    for one in result.pickers:
        if not is_json:
            finds = f"finds {one.sensitivity:.0%} of the particles, and "
            is_alone = len(result.pickers) == 1 and round(one.sensitivity, 6) == 1
            finds = "" if is_alone else finds  # it would be its own measure
            typer.echo(
                f"{one.path}: {one.n_picks} picks; {finds}{one.false_share:.0%} of its picks "
                "are none."
            )
        if one.counted_as in first_of:
            warn(f"{one.path} is no more than {first_of[one.counted_as]}; they have one vote.")
        first_of.setdefault(one.counted_as, one.path)
        if one.n_outside:
            warn(
                f"Picks of {one.path} lie outside of their micrographs, {one.n_outside} on those "
                "looked into, 20 at most; check --set-pixel-size."
            )
        if one.n_unlisted:
            warn(f"{one.n_unlisted} micrographs of {one.path} are not listed; they were left out.")
    if result.n_unseen_micrographs:
        warn(f"{result.n_unseen_micrographs} micrographs are in no set; they were left out.")


def _tell_networks(result: ConsensusResult, *, is_json: bool) -> None:
    """Say what training was worth, and where nothing could be learned."""
    if result.untrained_folds:
        warn(
            f"Too little is marked in {result.untrained_folds} of 2 parts of the micrographs to "
            "learn from, which needs 30 likely candidates on 2 micrographs; the model to begin "
            "from scores the other part, and without one the votes alone."
        )
    if is_json:
        return
    for one in result.networks:
        before = one.first_average_precision
        words = "" if before is None else f", {before:.3f} before"
        typer.echo(
            f"models/{one.file}: average precision {one.average_precision:.3f} on micrographs "
            f"held out{words}; {one.steps} steps."
        )
    if result.n_crowded:
        typer.echo(
            f"{result.n_crowded} micrographs are crowded: what they hold beside particles was "
            "learned half a box from the candidates, not a whole one."
        )
    if result.testing is not None:
        told = result.testing
        typer.echo(
            f"Tested on {told['n_positives']:,} particles and {told['n_negatives']:,} "
            f"non-particles: ROC AUC {told['roc_auc']:.3f}, accuracy at 0.5 "
            f"{told['accuracy']:.3f}, best Matthews correlation {told['best_mcc']:.3f} at "
            f"{told['best_threshold']:.2f}."
        )


def _tell_particles(result: ConsensusResult, *, is_json: bool) -> None:
    """Say what was extracted, and what is wrong with micrographs."""
    made = result.particles
    if made is None:
        return
    for sentence in made.failures.values():
        warn(f"Failed: {sentence}")
    if not is_json:
        for line in extraction_lines(made):
            typer.echo(line)
