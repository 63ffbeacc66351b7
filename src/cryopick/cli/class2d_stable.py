"""``cryopick class2d stable``: only classes that are stable and reproducible."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cryopick.class2d.stable_parameters import StableOptions
from cryopick.cli.class2d import class2d_app
from cryopick.cli.console import EXIT_SOME_FAILED, print_result, share_bar, warn
from cryopick.cli.options import expand_parameters
from cryopick.pipeline.class2d_stable_parameters import StableRunParameters

__all__ = ["class2d_app", "class2d_stable_command"]

_SHOWN = 50  # classes in the printed table


def _print_gpus(value: bool) -> None:  # noqa: FBT001 (typer passes it by place)
    if value:
        from cryopick.pipeline.gpu_info import gpu_lines

        typer.echo("\n".join(gpu_lines()))
        raise typer.Exit


_Scratch = Annotated[
    Path | None,
    typer.Option(
        help="Folder on a fast disk; images are copied there first, and the copy is removed "
        "when the run is finished."
    ),
]

_GpuInfo = Annotated[
    bool,
    typer.Option(
        "--gpu-info", help="Tell which GPUs there are, and end.", is_eager=True,
        callback=_print_gpus,
    ),
]  # fmt: skip


@class2d_app.command("stable")
@expand_parameters
def class2d_stable_command(
    particles: Annotated[
        Path,
        typer.Argument(help="STAR file of particles, or an HDF stack of EMAN2 or SPHIRE."),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    diameter: Annotated[
        float | None, typer.Option(help="Of the particle; or give --radius. [A]", min=1e-3)
    ] = None,
    radius: Annotated[
        float | None,
        typer.Option(help="Of the particle, in pixels of the input. [px]", min=1e-3),
    ] = None,
    parameters: StableOptions,
    pixel_size: Annotated[
        float | None,
        typer.Option(help="Of the particles, if their file does not say it. [A]", min=1e-3),
    ] = None,
    scratch: _Scratch = None,
    compute: StableRunParameters,
    gpu_info: _GpuInfo = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what other parameters left in --out.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Make classes that are stable and reproducible, as SPHIRE's ISAC does, and no others.

    Images are divided several times independently; what the divisions agree upon is a class if
    its members keep their poses in repeated alignments. Writes class_averages.hdf for SPHIRE and
    EMAN2, run_data.star and the averages for RELION, and report.html. Started again after a kill,
    it goes on to the same result. Exit code 3: images that are constant or no numbers were left.
    """
    from cryopick.pipeline.class2d_stable import classify_stably
    from cryopick.pipeline.class2d_stable_source import read_stable_particles

    del gpu_info
    with share_bar(is_json=is_json) as report:
        values = classify_stably(
            read_stable_particles(particles, pixel_size=pixel_size),
            out,
            options=parameters,
            compute=compute,
            diameter=diameter,
            radius=radius,
            scratch=scratch,
            overwrite=overwrite,
            inputs=[str(particles)],
            report=report,
            tell=_silent if is_json else warn,
        ).values
    print_result(values, _lines(values), is_json=is_json)
    if values["n_left_out"]:
        raise typer.Exit(EXIT_SOME_FAILED)


def _silent(_: str) -> None:
    pass


def _number(value: float | None, width: int, digits: int) -> str:
    """Put a number into a column; what is not known is a dash."""
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.{digits}f}"


def _lines(values: dict[str, Any]) -> list[str]:
    lines = []
    if values["classes"]:
        lines.append(f"{'class':>5}{'images':>9}{'reproducibility':>17}{'error px':>10}{'A':>8}")
    for one in values["classes"][:_SHOWN]:
        lines.append(
            f"{one['number']:>5}{one['n_particles']:>9,}{_number(one['reproducibility'], 17, 2)}"
            f"{_number(one['pixel_error'], 10, 2)}{_number(one['resolution'], 8, 1)}"
        )
    if len(values["classes"]) > _SHOWN:
        lines.append(f"and {len(values['classes']) - _SHOWN} more classes")
    left_out = f", {values['n_left_out']} left out" if values["n_left_out"] else ""
    lines.append(
        f"{values['n_classes']} classes hold {values['n_accounted']:,} of "
        f"{values['n_particles']:,} particles ({values['accounted']:.0%}){left_out}, after "
        f"{len(values['accounted_by_generation'])} generations."
    )
    files = [values["averages"], values["particles"]]
    lines.append(f"{', '.join(f for f in files if f)}; look at {values['report']}.")
    return lines
