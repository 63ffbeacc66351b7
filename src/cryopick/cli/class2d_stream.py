"""``cryopick class2d stream``: sort particles into classes while they arrive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryopick.class2d.stream_parameters import StreamParameters
from cryopick.cli.class2d import class2d_app
from cryopick.cli.console import EXIT_SOME_FAILED, print_result, share_bar, warn
from cryopick.cli.options import expand_parameters
from cryopick.pipeline.class2d_parameters import MachineParameters
from cryopick.pipeline.stream_run_parameters import StreamRunParameters

if TYPE_CHECKING:
    from cryopick.pipeline.class2d_run import ClassificationProgress

__all__ = ["class2d_app", "class2d_stream_command", "class2d_subdivide_command"]


@class2d_app.command("stream")
@expand_parameters
def class2d_stream_command(
    particles: Annotated[
        list[str],
        typer.Argument(
            help="STAR files of particles, which may grow or come later, and folders of them."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    parameters: StreamParameters,
    references: Annotated[
        Path | None,
        typer.Option(
            help="Averages to assign particles to, which keep their numbers: a stack (MRC, or HDF "
            "of EMAN2), a table of averages (STAR, or Xmipp's), or a run or selection of classes. "
            "Without them classes are made."
        ),
    ] = None,
    pixel_size: Annotated[
        float | None, typer.Option(help="Of the particles, if their tables do not say it. [A]")
    ] = None,
    compute: StreamRunParameters,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what other parameters left in --out.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Classify particles round by round while they arrive, as Xmipp's alignPCA-2D does.

    current in --out is the last round, a whole set at any moment: averages, RELION's files,
    classes.png, and stream_classes.star with what has become of each class. The stream ends with
    --close, after --idle minutes, or when a file named close is put into --out; what is left is
    taken first. Killed and started again, it goes on after the last round. Exit code 3 says that
    tables were refused.
    """
    from cryopick.pipeline.stream import classify_stream

    with share_bar(is_json=is_json) as report:
        values = classify_stream(
            particles,
            out,
            parameters=parameters,
            compute=compute,
            references=references,
            pixel_size=pixel_size,
            overwrite=overwrite,
            progress=_reporter(report),
            tell=_silent if is_json else warn,
        ).values
    print_result(values, _lines(values), is_json=is_json)
    if values["refused"]:
        raise typer.Exit(EXIT_SOME_FAILED)


@class2d_app.command("subdivide")
@expand_parameters
def class2d_subdivide_command(
    folder: Annotated[Path, typer.Argument(help="--out of a stream that is not at work.")],
    *,
    class_number: Annotated[int, typer.Option("--class", help="Number of the class.", min=1)],
    parts: Annotated[int, typer.Option(help="How many to make of it.", min=2)] = 2,
    compute: MachineParameters,
    is_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Part a class of a stream into several, as a round of its own.

    The largest part keeps the number, the others get new ones; all other classes stay as they
    are. Started again, the stream goes on with the parts.
    """
    from cryopick.pipeline.stream_subdivide import subdivide_class

    with share_bar(is_json=is_json) as report:
        values = subdivide_class(
            folder,
            class_number,
            parts,
            compute=compute,
            progress=_reporter(report),
            tell=_silent if is_json else warn,
        ).values
    print_result(values, _lines(values), is_json=is_json)


def _reporter(
    report: Callable[[str, float, str], None],
) -> Callable[[ClassificationProgress], None]:
    """Turn what is known of a round into the step, share and note of a bar."""

    def tell(now: ClassificationProgress) -> None:
        note = f"{now.done:,} of {now.total:,}"
        report(now.step, min(now.done / max(now.total, 1), 1.0), note)

    return tell


def _silent(_: str) -> None:
    pass


def _lines(values: dict[str, Any]) -> list[str]:
    """Say what the stream has come to."""
    lines = [
        f"{values['n_particles']:,} particles in {values['n_occupied']} classes after "
        f"{values['round']} rounds; {values['resolution']:.1f} A; {values['n_junk']:,} junk.",
        f"Written: {values['folder']}",
    ]
    if values["kind"] == "full pass" and values["changed"] is not None:
        changed = values["changed"]
        lines.insert(
            1,
            f"The full pass moved {changed['class']:.1%} of the particles to another class and "
            f"turned the others by {changed['psi']:.1f} deg on average.",
        )
    if values["n_twice"]:
        lines.append(f"{values['n_twice']:,} particles were named twice and taken once.")
    lines += [f"Refused: {sentence}" for sentence in values["refused"].values()]
    return lines
