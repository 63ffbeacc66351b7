"""``cryopick evaluate``: how good a result is where the truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cryopick.cli.console import print_result, warn

__all__ = ["evaluate_app"]

evaluate_app = typer.Typer(
    help="Score a result against known truth.", no_args_is_help=True, pretty_exceptions_enable=False
)


@evaluate_app.callback()
def _group() -> None:
    """Score a result against known truth."""


@evaluate_app.command("picks")
def evaluate_picks_command(
    picks: Annotated[
        Path, typer.Argument(help="STAR file of picks, or the folder of a picking job.")
    ],
    *,
    truth: Annotated[
        Path,
        typer.Option(help="STAR file or folder of true positions, or a simulation's truth.json."),
    ],
    diameter: Annotated[
        float | None, typer.Option(help="Diameter of the particle, if truth has none. [A]")
    ] = None,
    pixel_size: Annotated[
        float | None, typer.Option(help="Of the micrographs, if no table says it. [A]")
    ] = None,
    micrographs: Annotated[
        Path | None, typer.Option(help="STAR file with the pixel sizes of the micrographs.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest distance of a match, as a part of the diameter.")
    ] = 0.3,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the precision-recall curve into this PNG file.")
    ] = None,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare picks with true positions, one to one: precision, recall, F1, average precision.

    A pick is right if it lies within 0.3 diameters of a particle that no better pick has
    claimed. Average precision and best F1 are taken over all stored peaks of a picking job,
    the other numbers over its picks.
    """
    from cryopick.pipeline.evaluate import evaluate_pick_files

    result = evaluate_pick_files(
        picks,
        truth,
        diameter=diameter,
        pixel_size=pixel_size,
        micrographs=micrographs,
        tolerance=tolerance,
        plot=plot,
    ).to_dict()
    if result["unmatched_micrographs"]:
        warn(f"{result['unmatched_micrographs']} micrographs with picks have no truth; left out.")
    print_result(result, _lines(result, plot), is_json=is_json)


def _lines(result: dict[str, Any], plot: Path | None) -> list[str]:
    head = ("picks", "truth", "matched", "precision", "recall", "F1", "error (A)")
    rows = [*result["micrographs"].items(), ("all", result)]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'micrograph':<{width}}" + "".join(f"{h:>11}" for h in head)]
    for name, scores in rows:
        counts = [f"{scores[k]:>11d}" for k in ("n_picks", "n_truth", "n_matched")]
        shares = [f"{scores[k]:>11.3f}" for k in ("precision", "recall", "f1")]
        error = scores["centring_error"]
        shown = f"{'-':>11}" if error is None else f"{error:>11.1f}"
        lines.append(f"{name:<{width}}" + "".join([*counts, *shares, shown]))
    best = result["best_threshold"]
    at = "" if best is None else f" at score {best:.4g}"
    lines.append(
        f"Over {result['n_peaks']} peaks: average precision {result['average_precision']:.3f}, "
        f"best F1 {result['best_f1']:.3f}{at}."
    )
    if plot is not None:
        lines.append(f"Precision-recall curve: {plot}")
    return lines
