"""``cryopick show``: a picture of any file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.console import print_result
from cryopick.cli.options import expand_parameters
from cryopick.report.show_parameters import ShowParameters

__all__ = ["show_command"]


@expand_parameters
def show_command(
    file: Annotated[
        Path,
        typer.Argument(
            help="Micrograph, stack of images, volume, STAR file, or folder of class2d or of "
            "select classes (those kept)."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    picks: Annotated[
        Path | None,
        typer.Option(help="Draw these picks over the micrograph: STAR file or folder."),
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(help="Pixel size of the images, instead of what the file says. [A]", min=1e-3),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Draw a histogram of this column of a table; may be repeated."),
    ] = None,
    parameters: ShowParameters,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw a micrograph with its picks, a gallery of images or classes, or a table's histograms."""
    from cryopick.pipeline.show import show

    sentence = show(
        file,
        out=out,
        parameters=parameters,
        picks=picks,
        pixel_size=pixel_size,
        columns=tuple(column or ()),
    )
    print_result({"picture": str(out)}, [f"{sentence} Picture: {out}"], is_json=is_json)
