"""``cryopick class2d order``: put class averages in an order in which neighbours look alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cryopick.class2d.ordering_parameters import OrderingParameters
from cryopick.cli.class2d import class2d_app
from cryopick.cli.console import print_result, share_bar
from cryopick.cli.options import expand_parameters
from cryopick.pipeline.class2d_parameters import MachineParameters

__all__ = ["class2d_app", "class2d_order_command"]


@class2d_app.command("order")
@expand_parameters
def class2d_order_command(
    averages: Annotated[
        Path,
        typer.Argument(
            help="A stack (MRC, or HDF of EMAN2), a table of averages (STAR, or Xmipp's), a run or "
            "a selection of classes."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    parameters: OrderingParameters,
    pixel_size: Annotated[
        float | None,
        typer.Option(help="Of the averages, instead of what their file says. [A]", min=1e-3),
    ] = None,
    compute: MachineParameters,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what other parameters left in --out.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Put class averages in an order in which neighbours look alike, as SPHIRE's sp_chains does.

    Each average is turned, moved and, if need be, mirrored onto the one before, so that the stack
    can be watched as a film. Writes ordered_class_averages as .hdf for EMAN2, .mrcs with a .star
    table, and a picture, .png; numbers and attributes of the averages go with them.
    """
    from cryopick.pipeline.class2d_order import order_class_averages

    with share_bar(is_json=is_json) as report:
        values = order_class_averages(
            averages,
            out,
            parameters=parameters,
            compute=compute,
            pixel_size=pixel_size,
            overwrite=overwrite,
            progress=lambda share: report("Comparing", share, ""),
        ).values
    print_result(values, _lines(values), is_json=is_json)


def _lines(values: dict[str, Any]) -> list[str]:
    empty = f"; {values['n_empty']:,} empty ones left out" if values["n_empty"] else ""
    lines = [f"{values['n_averages']:,} averages in order{empty}."]
    if values["mean_similarity"] is not None:
        lines.append(
            f"Correlation with the one before: {values['mean_similarity']:.3f} on average, "
            f"{values['least_similarity']:.3f} at least; {values['n_mirrored']:,} mirrored."
        )
    lines.append(f"{values['stack']}; look at {values['gallery']}.")
    return lines
