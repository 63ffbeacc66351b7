"""``cryopick project limits, tick, fields``: which fields of a project are accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.console import print_result
from cryopick.cli.project import project_app
from cryopick.errors import ParameterError

__all__ = ["fields", "limits", "tick"]

Folder = Annotated[Path, typer.Argument(help="Folder of the project.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@project_app.command("limits")
def limits(
    project: Folder,
    *,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="COLUMN=LOW:HIGH, either bound may be missing; ctf_resolution=:6 accepts fields "
            "with rings to 6 A or better."
        ),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Take all limits back.")] = False,
    use: Annotated[str, typer.Option(help="Set the limits that were saved under a name.")] = "",
    name: Annotated[
        str, typer.Option(help="Save the limits under a name: letters, digits, _ and -.")
    ] = "",
    is_json: Json = False,
) -> None:
    """Set the limits within which fields are accepted, instead of those before; or say them.

    Columns are those of `cryopick serve`: defocus, astigmatism, ctf_resolution, ctf_fom, picks,
    mean_score, background and others. Nothing is computed again. Works during a run.
    """
    from cryopick.pipeline.field_choices import find_limits, judge_fields, read_choices, set_limits
    from cryopick.pipeline.field_table import FieldTable

    folder = _opened(project)
    known = {"--limit": limit, "--use": use, "--none": none}
    given = [flag for flag, value in known.items() if value]
    if len(given) > 1:
        raise ParameterError(
            "limits",
            must="come from one of --limit, --use and --none",
            got=" and ".join(given),
            remedy="Leave out the others",
        )
    if given or name:
        before = read_choices(folder)
        wanted = dict(_parse_limit(text) for text in limit or ()) if given else before.limits
        set_limits(folder, find_limits(before, use) if use else wanted, name=name)
    table = FieldTable(project=folder)
    table.refresh()
    choices = read_choices(folder)
    states = judge_fields(table, choices)
    n = int(states.is_accepted.sum())
    lines = [
        f"{name}: {'' if low is None else f'{low:g}'}:{'' if high is None else f'{high:g}'}, "
        f"beyond it {states.by_column[name]:,}"
        for name, (low, high) in choices.limits.items()
    ]
    lines.append(f"Accepted {n:,} of {len(table):,} fields.")
    if choices.named:
        lines.append(f"Saved limits: {', '.join(choices.named)}.")
    values = {
        "limits": {name: list(bounds) for name, bounds in choices.limits.items()},
        "n_accepted": n,
        "n_rejected": len(table) - n,
        "by_column": states.by_column,
        "named": {name: dict(d.values["limits"]) for name, d in choices.named.items()},
    }
    print_result(values, lines, is_json=is_json)


@project_app.command("tick")
def tick(
    project: Folder,
    *,
    accept: Annotated[list[str] | None, typer.Option(help="Name of a micrograph.")] = None,
    reject: Annotated[list[str] | None, typer.Option(help="Name of a micrograph.")] = None,
    clear: Annotated[
        list[str] | None, typer.Option(help="Name of one to be left to the limits again.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, in your words.")] = "",
    is_json: Json = False,
) -> None:
    """Accept or reject fields by hand, whatever the limits. Works during a run."""
    from cryopick.pipeline.field_choices import set_ticks
    from cryopick.pipeline.field_table import FieldTable

    folder = _opened(project)
    table = FieldTable(project=folder)
    table.refresh()
    given = {"accepted": accept or [], "rejected": reject or [], "": clear or []}
    for word, names in given.items():
        unknown = [name for name in names if table.place_of(name) is None]
        if unknown:
            raise ParameterError(
                unknown[0],
                must="be a micrograph of the project",
                got="an unknown name",
                remedy=f"Names are those of {table.source}",
            )
        if names:
            set_ticks(folder, names, word, reason=reason)  # type: ignore[arg-type]
    n = sum(map(len, given.values()))
    print_result({"n_changed": n}, [f"Ticked {n:,} fields."], is_json=is_json)


@project_app.command("fields")
def fields(
    project: Folder,
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Table to write, instead of micrographs_selected.star in the project."),
    ] = None,
    is_json: Json = False,
) -> None:
    """Write the accepted fields as a table of micrographs, which every command takes."""
    from cryopick.pipeline.field_choices import save_accepted
    from cryopick.pipeline.field_table import FieldTable

    table = FieldTable(project=_opened(project))
    table.refresh()
    path, n = save_accepted(table, out)
    print_result({"path": str(path), "n": n}, [f"{path}: {n:,} fields."], is_json=is_json)


def _opened(project: Path) -> Path:
    """Refuse a folder that is no project."""
    from cryopick.pipeline.project import Project

    with Project.open(project, writes=False) as opened:
        return opened.folder


def _parse_limit(text: str) -> tuple[str, tuple[float | None, float | None]]:
    name, _, bounds = text.partition("=")
    low, colon, high = bounds.partition(":")
    try:
        found = (float(low) if low else None, float(high) if high else None)
    except ValueError:
        colon = ""
    if not colon:
        raise ParameterError(
            "--limit", must="be COLUMN=LOW:HIGH", got=text, remedy="Write ctf_resolution=:6"
        )
    return name, found


@project_app.command("edit")
def edit(
    project: Folder,
    picks: Annotated[
        str, typer.Argument(help="The set: number of a picking job, or p:NAME of saved picks.")
    ],
    *,
    micrograph: Annotated[str, typer.Option(help="Name of the field.")],
    add: Annotated[list[str] | None, typer.Option(help="X,Y in px: add a pick.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option(help="X,Y in px: take the nearest pick away.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the last edit back.")] = False,
    redo: Annotated[bool, typer.Option("--redo", help="Take the last undo back.")] = False,
    is_json: Json = False,
) -> None:
    """Add picks to a field, or take some away. The job stays as it is: edits are kept beside it.

    `cryopick project picks` writes the picks after all edits.
    """
    from cryopick.pipeline import pick_edits

    path = _edits_file(_opened(project), picks)
    if undo or redo:
        made = (pick_edits.undo if undo else pick_edits.redo)(path, micrograph)
    else:
        made = pick_edits.add_edit(
            path,
            micrograph,
            add=[_parse_point("--add", text) for text in add or ()],
            remove=[_parse_point("--remove", text) for text in remove or ()],
        )
    values = {"edit": made.number, "add": made.add, "remove": made.remove, "undoes": made.undoes}
    print_result(values, [f"Edit {made.number} of {path}."], is_json=is_json)


@project_app.command("picks")
def picks_command(
    project: Folder,
    picks: Annotated[
        str, typer.Argument(help="The set: number of a picking job, or p:NAME of saved picks.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the picks.")],
    threshold: Annotated[
        float | None,
        typer.Option(help="All peaks of at least this score, instead of the picks of the job."),
    ] = None,
    only_edited: Annotated[
        bool, typer.Option("--only-edited", help="Leave out fields that nobody has edited.")
    ] = False,
    all_fields: Annotated[
        bool, typer.Option("--all-fields", help="Take fields that are not accepted, too.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what was saved in --out.")
    ] = False,
    is_json: Json = False,
) -> None:
    """Write the picks of a job after what people have edited, as every command takes them."""
    from cryopick.pipeline.pick_edits import read_edits
    from cryopick.pipeline.picks_by_hand import save_project_picks
    from cryopick.pipeline.project_places import find_results

    folder = _opened(project)
    found = save_project_picks(
        folder,
        find_results(folder, picks),
        read_edits(_edits_file(folder, picks)),
        out,
        threshold=threshold,
        only_edited=only_edited,
        all_fields=all_fields,
        overwrite=overwrite,
    )
    values = {
        "folder": str(found.folder),
        "n_picks": found.n_picks,
        "n_fields": found.n_fields,
        "n_added": found.n_added,
    }
    line = f"{found.n_picks:,} picks in {found.n_fields:,} fields, {found.n_added:,} of them added"
    print_result(values, [f"{line} by hand, in {found.folder}."], is_json=is_json)


def _edits_file(project: Path, picks: str) -> Path:
    from cryopick.pipeline.project_places import edits_file, find_results

    find_results(project, picks)
    return edits_file(project, picks)


def _parse_point(option: str, text: str) -> tuple[float, float]:
    x, _, y = text.partition(",")
    try:
        return float(x), float(y)
    except ValueError as error:
        raise ParameterError(
            option, must="be X,Y in px", got=text, remedy="Write 512.5,300"
        ) from error
