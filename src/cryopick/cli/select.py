"""``cryopick select``: keep a part of a table, or the good classes of a classification."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cryopick.cli.console import print_result, warn
from cryopick.cli.options import expand_parameters
from cryopick.selection.score_words import show_score
from cryopick.selection.select_classes_parameters import SelectClassesParameters
from cryopick.selection.subset_parameters import SubsetParameters

__all__ = ["select_app"]

select_app = typer.Typer(
    help="Keep a part of a table, or good classes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@select_app.callback()
def _group() -> None:
    """Keep a part of a table, or good classes."""


@select_app.command("subset")
@expand_parameters
def select_subset_command(
    table: Annotated[
        Path,
        typer.Argument(help="STAR file of micrographs, particles or picks; a folder of picks."),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the result.")],
    parameters: SubsetParameters,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier selection in --out.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Select by value, remove duplicates, split: micrographs, particles or picks.

    Writes micrographs.star, particles.star or autopick.star; after a split
    micrographs_split1.star and so on. Picks are split by micrograph, into folders.
    """
    from cryopick.pipeline.select_subset import select_subset

    result = select_subset(table, out, parameters, overwrite=overwrite)
    lines = [f"Kept {result.n_kept:,} of {result.n_before:,} {result.kind}."]
    lines += [f"{path}: {count:,} {result.kind}" for path, count in result.files.items()]
    print_result(result.to_dict(), lines, is_json=is_json)


@select_app.command("rows")
def select_rows_command(
    table: Annotated[Path, typer.Argument(help="STAR file of particles.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for particles.star.")],
    rows: Annotated[str, typer.Option(help="Numbers from 0 and ranges, such as 0,3,7-12.")],
    drop: Annotated[bool, typer.Option("--drop", help="Keep the others.")] = False,
    xmd: Annotated[bool, typer.Option("--xmd", help="Write Xmipp's particles.xmd, too.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier selection in --out.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Keep particles by their rows in the table, as they were chosen by eye."""
    from cryopick.pipeline.select_rows import select_rows

    result = select_rows(table, out, rows, drop=drop, xmd=xmd, overwrite=overwrite)
    line = f"Kept {result.n_kept:,} of {result.n_before:,} particles in {out}."
    print_result(result.to_dict(), [line], is_json=is_json)


@select_app.command("classes")
@expand_parameters
def select_classes_command(
    classification: Annotated[
        Path,
        typer.Argument(
            help="Folder or a file of a 2D classification of RELION or cryopick, or a stack of "
            "averages."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the result.")],
    parameters: SelectClassesParameters,
    selection: Annotated[
        Path | None,
        typer.Option(
            help="Keep what was selected before: a backup_selection.star of RELION or cryopick, "
            "or the folder with it."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights of the score, or the folder of select learn, instead of those shipped."
        ),
    ] = None,
    mask_diameter: Annotated[
        float | None,
        typer.Option(
            help="Of the mask, instead of what the run says; found from the averages where neither "
            "says it. [A]"
        ),
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(help="Of a stack of averages, instead of what its header says. [A]"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier selection in --out.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score the classes of a 2D classification and keep the good ones with their particles.

    Writes particles.star, the averages that are kept (class_averages.mrcs, best first),
    class_scores.star with the score of every class and what it rests on, class_scores.png, a
    picture of that, and files that RELION's display opens (rank_optimiser.star,
    backup_selection.star). If no class is good enough, the scores are written and the exit code
    is 1.
    """
    from cryopick.pipeline.select_classes import select_classes

    result = select_classes(
        classification,
        out,
        parameters,
        selection=selection,
        weights=weights,
        mask_diameter=mask_diameter,
        pixel_size=pixel_size,
        overwrite=overwrite,
    ).values
    if not is_json:
        for sentence in result["warnings"]:
            warn(sentence)
    print_result(result, _class_lines(result), is_json=is_json)


_SHOWN = 50  # classes in the printed table


def _class_lines(result: dict[str, Any]) -> list[str]:
    """Tell what was kept, of which classes, and where it is."""
    occupied = [c for c in result["classes"] if c["why"] != "empty"]
    lines = ["class  score  particles  kept"]
    for one in occupied[:_SHOWN]:
        score = "-" if one["score"] is None else show_score(one["score"], result["threshold"])
        count = "-" if one["n_particles"] is None else f"{one['n_particles']}"
        kept = "yes" if one["is_selected"] else "no"
        lines.append(f"{one['number']:>5}  {score:>5}  {count:>9}  {kept:<4} {_why(one)}".rstrip())
    if len(occupied) > _SHOWN:
        lines.append(f"and {len(occupied) - _SHOWN} more in {result['scores']}")
    if result["n_particles"] is None:
        lines.append("Judged from the pictures alone: a stack says nothing of its particles.")
    kept = f"Kept {result['n_selected']} of {result['n_occupied']} classes"
    if result["n_particles"] is not None:
        kept += f" with {result['n_particles_selected']:,} of {result['n_particles']:,} particles"
        inside = result["n_particles_in_classes"]
        if outside := result["n_particles"] - inside:
            kept += f" ({inside:,} in classes, {outside:,} in none)"
    written = [result[k] for k in ("particles", "averages", "scores") if result[k]]
    lines += [f"{kept}.", f"{', '.join(written)}; look at {result['gallery']}."]
    return lines


def _why(one: dict[str, Any]) -> str:
    """Say what raised (+) or lowered (-) a score most; first why a class is kept if not for it."""
    words = [f"{'+' if r['effect'] > 0 else '-'} {r['text']}" for r in one["reasons"][:2]]
    if one["why"] not in ("score", "below the threshold"):
        words.insert(0, one["why"])
    return "; ".join(words)


@select_app.command("learn")
def select_learn_command(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER",
            help="Folders of cryopick select classes with --classes or --selection, one for each "
            "run.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the result.")],
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights to begin from, or the folder with them, instead of those shipped."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what was learned before in --out.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Learn from classes that you have chosen how you would score classes.

    Writes weights for select classes (class_scores.npz), and how well they agree with choices
    they were not learned from (agreement.png, result.json). Choices that are few, or that the
    score foretells already, change nothing.
    """
    from cryopick.pipeline.select_learn import learn_selection

    result = learn_selection(folders, out, weights=weights, overwrite=overwrite).values
    if not is_json:
        for sentence in result["warnings"]:
            warn(sentence)
    print_result(result, _learned_lines(result), is_json=is_json)


def _learned_lines(result: dict[str, Any]) -> list[str]:
    """Tell what was learned, how well it agrees, and how to use it."""
    lines = [
        f"{one['folder']}: {one['n_selected']} of {one['n_classes']} classes chosen; agrees for "
        f"{one['n_agree_after']} (before: {one['n_agree_before']})"
        for one in result["runs"]
    ]
    before, after = (f"{100 * result[k]['accuracy']:.0f} %" for k in ("before", "after"))
    if result["is_changed"]:
        lines.append(
            f"Agrees with your choices for {after} of the classes it has not seen (before: "
            f"{before}); see {result['chart']}."
        )
    else:
        lines.append(
            f"Your choices change nothing: the score agrees with them for {before} of the classes, "
            "and what is learned from some foretells the others no better."
        )
    same = "" if result["is_changed"] else ", for the same scores as without"
    return [*lines, f"Use: cryopick select classes RUN --weights {result['weights']}{same}."]
