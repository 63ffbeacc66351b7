"""``cryopick class2d``: sort particle images into classes and average them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.cli.console import EXIT_SOME_FAILED, print_result, share_bar, warn
from cryopick.cli.options import expand_parameters
from cryopick.pipeline.class2d_parameters import ClassificationRunParameters

if TYPE_CHECKING:
    from cryopick.pipeline.class2d import ClassificationProgress

__all__ = ["class2d_app"]

class2d_app = typer.Typer(
    help="Sort particle images into classes.", no_args_is_help=True, pretty_exceptions_enable=False
)

_SHOWN = 50  # classes in the printed table


@class2d_app.callback()
def _group() -> None:
    """Sort particle images into classes."""


@class2d_app.command("em")
@expand_parameters
def class2d_em_command(
    particles: Annotated[Path, typer.Argument(help="STAR file of particles.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    parameters: ClassificationParameters,
    references: Annotated[
        Path | None,
        typer.Option(
            help="Averages to begin from: a stack, or a model or optimiser file of RELION or "
            "cryopick."
        ),
    ] = None,
    pixel_size: Annotated[
        float | None, typer.Option(help="Of the particles, if their table does not say it. [A]")
    ] = None,
    scratch: Annotated[
        Path | None,
        typer.Option(
            help="Folder on a fast disk; images are copied there first, and the copy is removed "
            "when the run is finished."
        ),
    ] = None,
    compute: ClassificationRunParameters,
    continues: Annotated[
        bool,
        typer.Option(
            "--continue", help="Go on with the run in --out, to another number of iterations."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what other parameters left in --out.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Classify particles as RELION's Class2D does, by expectation-maximisation.

    Writes run_itNNN_data.star and the other files of RELION 5 for the last iteration, the
    averages, and classes.png, a picture of them. Killed and started again with the same options,
    it goes on from its last checkpoint to the same result. Exit code 3 says that images were left
    out because they are constant or not numbers.
    """
    from cryopick.pipeline.class2d import classify_particles
    from cryopick.tables.relion import read_particles

    table = read_particles(particles, pixel_size=pixel_size)
    with share_bar(is_json=is_json) as report:
        result = classify_particles(
            table,
            out,
            parameters=parameters,
            compute=compute,
            references=references,
            scratch=scratch,
            continues=continues,
            overwrite=overwrite,
            inputs=[str(particles), *([str(references)] if references else [])],
            progress=_reporter(report),
            tell=_silent if is_json else warn,
        ).values
    print_result(result, _lines(result), is_json=is_json)
    if result["n_left_out"]:
        raise typer.Exit(EXIT_SOME_FAILED)


def _silent(_: str) -> None:
    pass


def _reporter(
    report: Callable[[str, float, str], None],
) -> Callable[[ClassificationProgress], None]:
    """Turn what is known of a run into the step, share and note of a bar."""

    def tell(now: ClassificationProgress) -> None:
        share = now.done / max(now.total, 1)
        if not now.n_iterations:
            report(now.step, share, "")
            return
        notes = [f"{now.iteration + 1}/{now.n_iterations}"]
        if now.resolution is not None and now.changed_class is not None:
            notes += [f"{now.resolution:.1f} A", f"{now.changed_class:.0%} changed class"]
        report(now.step, (now.iteration + share) / now.n_iterations, ", ".join(notes))

    return tell


_HEAD = ("particles", "soft", "A", "deg", "shift A", "entropy")
_KEYS = {"n_particles": 0, "soft_count": 1, "resolution": 1, "accuracy_rotations": 1,
         "accuracy_translations": 1, "entropy": 2}  # fmt: skip


def _lines(result: dict[str, Any]) -> list[str]:
    occupied = [c for c in result["classes"] if c["n_particles"]]
    lines = ["class" + "".join(f"{h:>11}" for h in _HEAD)]
    for one in occupied[:_SHOWN]:
        cells = [_cell(one[key], digits) for key, digits in _KEYS.items()]
        lines.append(f"{one['number']:>5}" + "".join(cells))
    if len(occupied) > _SHOWN:
        lines.append(f"and {len(occupied) - _SHOWN} smaller classes")
    lines.append(
        "Particles: best class; soft: sum of probabilities; A: resolution; deg, shift A: "
        "smallest turn and shift that the average tells; entropy: of the posterior over classes "
        "and poses, nats; -: fewer than 10 particles, or 1 %."
    )
    left_out = f", {result['n_left_out']} left out" if result["n_left_out"] else ""
    junk = f" ({result['n_junk']} in the class of junk, 0)" if result["n_junk"] else ""
    lines += [
        f"{result['n_particles']} particles{junk}{left_out}, in {result['n_occupied']} of "
        f"{result['n_classes']} classes after {result['iteration']} iterations, aligned to "
        f"{result['resolution']:.1f} A.",
        f"{result['particles']}, {result['averages']}; look at {result['gallery']}.",
    ]
    return lines


def _cell(value: float | None, digits: int) -> str:
    return f"{'-':>11}" if value is None else f"{value:>11.{digits}f}"
