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
    plot_scores: Annotated[
        Path | None,
        typer.Option(help="Draw the scores of right and wrong peaks into this PNG file."),
    ] = None,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare picks with true positions, one to one: precision, recall, F1, average precision.

    A pick is right if it lies within 0.3 diameters of a particle that no better pick has
    claimed. A pick that claims none but lies on a particle that the truth lists as ignored is
    left out. Average precision and best F1 are taken over all stored peaks of a picking job,
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
        plot_scores=plot_scores,
    ).to_dict()
    if result["unmatched_micrographs"]:
        warn(f"{result['unmatched_micrographs']} micrographs with picks have no truth; left out.")
    lines = _lines(result)
    lines += [f"Precision-recall curve: {plot}"] if plot is not None else []
    lines += [f"Scores of right and wrong peaks: {plot_scores}"] if plot_scores is not None else []
    print_result(result, lines, is_json=is_json)


_COUNTS = ("picks", "truth", "matched", "ignored")


def _lines(result: dict[str, Any]) -> list[str]:
    head = (*_COUNTS, "precision", "recall", "F1", "error (A)")
    rows = [*result["micrographs"].items(), ("all", result)]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'micrograph':<{width}}" + "".join(f"{h:>11}" for h in head)]
    for name, scores in rows:
        counts = [f"{scores[f'n_{k}']:>11d}" for k in _COUNTS]
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
    return lines


@evaluate_app.command("tomogram")
def evaluate_tomogram_command(
    picks: Annotated[
        Path,
        typer.Argument(help="Picks in tomograms: .star, .csv, .tbl, .mod, or a copick project."),
    ],
    *,
    truth: Annotated[
        Path, typer.Option(help="truth.json of `cryopick simulate tomogram`, or its folder.")
    ],
    distance: Annotated[float, typer.Option(help="Largest distance of a match. [A]")] = 100.0,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare picks in tomograms with true positions, one to one.

    A pick is right if it lies within --distance of a particle that no better pick has claimed.
    """
    from cryopick.pipeline.evaluate_tomograms import evaluate_tomogram_files

    result = evaluate_tomogram_files(picks, truth, distance=distance).to_dict()
    print_result(result, _tomogram_lines(result), is_json=is_json)


def _tomogram_lines(result: dict[str, Any]) -> list[str]:
    shares = ("precision", "recall", "f1", "f4", "best_f1", "average_precision")
    lines = [
        f"{result['n_picks']} picks, {result['n_truth']} particles, {result['n_matched']} matched",
        ", ".join(f"{name.replace('_', ' ')} {result[name]:.3f}" for name in shares),
        f"recall of as many picks at random {result['random_recall']:.3f}",
    ]
    if result["n_matched"]:
        bias = ", ".join(f"{value:+.1f}" for value in result["bias"])
        lines.append(
            f"localisation error {result['localisation_error']:.1f} A "
            f"({result['localisation_error_voxels']:.2f} voxels), mean along x, y, z {bias} A"
        )
    recall = [f"{name} {value:.3f}" for name, value in result["recall_of_species"].items()]
    lines += [f"recall of {', '.join(recall)}"] if recall else []
    if result["kind_accuracy"] is not None:
        lines.append(f"kinds right for {result['kind_accuracy']:.3f} of the matched picks")
    return lines


@evaluate_app.command("classes")
def evaluate_classes_command(
    particles: Annotated[
        Path,
        typer.Argument(
            help="STAR file of particles with classes, psi and offsets, or the folder of a run."
        ),
    ],
    *,
    truth: Annotated[
        Path, typer.Option(help="Folder of the simulated stack: truth.npz and clean.npy.")
    ],
    classes: Annotated[
        int | None, typer.Option(help="Classes asked for; the highest number if not given.")
    ] = None,
    min_size: Annotated[
        int, typer.Option(help="True members that a class needs to count as one of views.")
    ] = 5,
    averages: Annotated[
        Path | None, typer.Option(help="Stack of class averages to score, too.")
    ] = None,
    symmetry: Annotated[
        str, typer.Option(help="Point group of the particle, for the spread of views.")
    ] = "C1",
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the classes of simulated particles with what they are.

    Coherence is the mean correlation of a true member's noise-free projection, moved by its
    pose, with the mean of the other members of its class. Chance is what members and angles
    drawn at random would give. Class 0 is not accepted.
    """
    from cryopick.pipeline.evaluate_classes import evaluate_class_files

    result = evaluate_class_files(
        particles,
        truth,
        n_classes=classes,
        min_size=min_size,
        averages=averages,
        symmetry=symmetry,
    ).to_dict()
    print_result(result, _class_lines(result), is_json=is_json)


_CLASS_HEAD = ("members", "true", "junk", "coherence", "limit", "spread", "FRC", "views", "share")


def _class_lines(result: dict[str, Any]) -> list[str]:
    lines = ["class" + "".join(f"{h:>10}" for h in _CLASS_HEAD) + "  species"]
    for row in result["classes"]:
        cells = [
            f"{row['n_members']:d}",
            f"{row['n_true']:d}",
            _number(row["junk_share"]),
            _number(row["coherence"]),
            _number(row["chance_limit"]),
            _number(row["view_spread"], " deg", 0),
            _number(row["resolution"], " A", 1),
            "yes" if row["is_view"] else "no",
            _number(row["species_share"], digits=2),
        ]
        lines.append(
            f"{row['class_number']:>5}" + "".join(f"{c:>10}" for c in cells) + f"  {row['species']}"
        )
    lines += [
        f"Coherence {_number(result['coherence'])} (chance {_number(result['chance'])}), "
        f"over all true particles {result['coherence_all']:.3f}; "
        f"junk AUC {_number(result['junk_auc'])}; species purity {result['species_purity']:.3f}; "
        f"accounted {result['accounted']:.3f}.",
        f"Of {result['n_classes']} classes {result['n_occupied']} are occupied, "
        f"{result['n_view_classes']} ({result['occupied_by_views']:.0%}) by views, "
        f"{result['n_junk_classes']} by junk; median size {result['median_size']:g}.",
    ]
    if result["resolution"] is not None:
        lines.append(f"Averages of views agree with the truth to {result['resolution']:.1f} A.")
    lines += [
        f"Rare: {g['group']}, {g['n_true']} particles ({g['share']:.1%}), "
        f"recall {g['recall']:.3f} in classes of their own."
        for g in result["rare_groups"]
    ]
    return lines


def _number(value: float | None, unit: str = "", digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}{unit}"
