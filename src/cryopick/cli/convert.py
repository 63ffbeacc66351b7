"""``cryopick convert``: tables of one program for another."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.console import print_result
from cryopick.cli.options import expand_parameters
from cryopick.pipeline.convert_parameters import ConvertParameters

__all__ = ["convert"]

_FORMATS = (
    "relion, xmipp, eman-box, eman-json, topaz, cryolo-cbox, cryolo-box, gautomatch, "
    "cryosparc, scipion"
)


@expand_parameters
def convert(
    source: Annotated[Path, typer.Argument(help="A file, or a folder of coordinate files.")],
    target: Annotated[Path, typer.Argument(help="The file to write, or a folder for many.")],
    *,
    from_format: Annotated[
        str | None, typer.Option("--from", help=f"Format of the input: {_FORMATS}.")
    ] = None,
    to_format: Annotated[
        str | None, typer.Option("--to", help="Format of the output, as for --from.")
    ] = None,
    micrographs: Annotated[
        str | None,
        typer.Option(help="Table, folder or quoted pattern of the micrographs: names and sizes."),
    ] = None,
    passthrough: Annotated[
        list[Path] | None,
        typer.Option(help="Passthrough .cs file of the same cryoSPARC job; may be repeated."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
    parameters: ConvertParameters,
) -> None:
    """Convert picks, particles or micrographs between RELION and other programs."""
    from cryopick.pipeline import convert as conversion

    result = conversion.convert(
        source,
        target,
        parameters=parameters,
        from_format=from_format,
        to_format=to_format,
        micrographs=micrographs,
        passthrough=passthrough or (),
        overwrite=overwrite,
    )
    left_out = [f"{result.n_disabled} disabled"] if result.n_disabled else []
    left_out += [f"{result.n_below_fom} below the threshold"] if result.n_below_fom else []
    folder = target if target.is_dir() else target.parent
    n_files = len(result.files)
    where = result.files[0] if n_files == 1 else f"{n_files} files in {folder}"
    counts = f"Read {result.n_read} {result.kind} ({result.source_format}), "
    counts += f"skipped {', '.join(left_out)}, " if left_out else ""
    lines = [f"{counts}wrote {result.n_written} ({result.target_format}) to {where}."]
    lines += [f"Note: {note}." for note in result.notes]
    print_result(asdict(result), lines, is_json=is_json)
