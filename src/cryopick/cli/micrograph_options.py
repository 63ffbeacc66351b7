"""Arguments, options and last words that commands over micrographs share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryopick.cli.console import EXIT_SOME_FAILED, print_result, progress_bar, warn
from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.picking_ctf_parameters import PickingCtfParameters

if TYPE_CHECKING:
    from cryopick.pipeline.pickers import Picker
    from cryopick.pipeline.picking import PickingResult

__all__ = [
    "AsJson",
    "MicrographFiles",
    "Out",
    "Overwrite",
    "PixelSize",
    "pick_and_tell",
    "tell_picks",
    "warn_of_refused",
]

_SHOWN = 5  # failed micrographs named on the screen

MicrographFiles = Annotated[
    list[str], typer.Argument(help="A STAR file; or images, folders or globs of them.")
]
Out = Annotated[Path, typer.Option(help="Folder for the results.")]
PixelSize = Annotated[
    float | None,
    typer.Option(help="Of the micrographs, instead of what table or headers say. [A]"),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the results of other parameters in --out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def warn_of_refused(reasons: Mapping[str, str], folder: Path) -> None:
    """Name some of the micrographs that were refused, with the reason, and where all are listed."""
    for name, reason in list(reasons.items())[:_SHOWN]:
        warn(f"Refused {name}: {reason}")
    if reasons:
        warn(f"{len(reasons)} micrographs were refused; see {folder / 'failed.star'}.")


def pick_and_tell(
    micrographs: list[str],
    out: Path,
    picker: Picker,
    *,
    ctf: PickingCtfParameters | None = None,
    compute: ComputeParameters,
    pixel_size: float | None,
    overwrite: bool,
    is_json: bool,
    limits: tuple[float, float] | None = None,
) -> None:
    """Pick with a bar that shows progress, and tell the result.

    Parameters
    ----------
    micrographs, out, picker, ctf, compute, pixel_size, overwrite
        As `cryopick.pipeline.picking.pick_micrographs` takes them.
    is_json, limits
        As for `tell_picks`.
    """
    from cryopick.pipeline.picking import pick_micrographs

    with progress_bar("Picking", is_json=is_json) as progress:
        result = pick_micrographs(
            micrographs,
            out,
            picker=picker,
            ctf=ctf,
            compute=compute,
            pixel_size=pixel_size,
            overwrite=overwrite,
            progress=progress,
        )
    tell_picks(result, is_json=is_json, limits=limits)


def tell_picks(
    result: PickingResult,
    *,
    is_json: bool,
    limits: tuple[float, float] | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Say what was found and what was refused, and set the exit code.

    Parameters
    ----------
    result
        Of a picking job.
    is_json
        Print JSON.
    limits
        Diameters that were estimated, A.
    more
        Numbers that are printed beside those of the result, as JSON only.
    """
    counts = {**result.to_dict(), **(more or {})}
    done = len(result.picked)
    mean = f", {counts['n_picks'] / done:.0f} each on average" if done else ""
    lines = [f"{counts['n_picks']} picks in {done} micrographs{mean}: {counts['coordinates']}"]
    if limits is not None:
        counts["estimated_diameters"] = list(limits)
        chart = result.folder / "diameter.png"
        lines.insert(0, f"Diameters, estimated: {limits[0]:.0f} to {limits[1]:.0f} A; see {chart}")
    chart = result.folder / "scores.png"
    if chart.exists():
        lines.append(f"Scores of all peaks, with the threshold: {chart}")
    if counts["n_ctf_estimated"]:
        lines.append(
            f"The CTF of {counts['n_ctf_estimated']} micrographs was estimated for picking only; "
            "for particles with CTF values run: cryopick ctf estimate"
        )
    if counts["n_without_picks"]:
        lines.append(f"{counts['n_without_picks']} micrographs have no pick.")
    if counts["n_without_ctf"]:
        warn(
            f"{counts['n_without_ctf']} micrographs have no CTF that can be trusted; they were "
            "searched as if there were no lens."
        )
    warn_of_refused(counts["failed"], result.folder)
    print_result(counts, lines, is_json=is_json)
    if result.failed:
        raise typer.Exit(EXIT_SOME_FAILED)
