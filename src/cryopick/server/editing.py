"""Edits of picks by people, and sets that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryopick.pipeline.pick_edits import PickEdit, add_edit, read_edits, redo, standing, undo
from cryopick.pipeline.picks_by_hand import edited_picks, save_project_picks
from cryopick.pipeline.project_places import HAND_PICKS, edits_file
from cryopick.server.answers import Call, Conflict
from cryopick.server.field_source import find_source
from cryopick.server.names import find_folder, require_name
from cryopick.server.served import command_line
from cryopick.server.sets import find_set
from cryopick.tables.paths import micrograph_key

__all__ = ["edit", "edits", "redo_edit", "save", "undo_edit"]

_SHOWN = 40  # positions on a shown command line


def edit(call: Call) -> dict[str, Any]:
    """Add picks to a field, and take some away."""
    path, name = _place(call)
    added, removed = call.said("add", list, []), call.said("remove", list, [])
    base = call.body.get("base")
    made = add_edit(
        path, name, add=added, remove=removed, base=int(base) if isinstance(base, int) else None
    )
    words: list[str] = []
    for flag, points in (("--add", made.add), ("--remove", made.remove)):
        words += [w for x, y in points[:_SHOWN] for w in (flag, f"{x:g},{y:g}")]
    return _answer(call, made, words)


def undo_edit(call: Call) -> dict[str, Any]:
    """Take the last edit of a field back."""
    path, name = _place(call)
    return _answer(call, undo(path, name), ["--undo"])


def redo_edit(call: Call) -> dict[str, Any]:
    """Take the last undo of a field back."""
    path, name = _place(call)
    return _answer(call, redo(path, name), ["--redo"])


def edits(call: Call) -> dict[str, Any]:
    """List the edits of a set, or those of one field."""
    find_set(call.served, call.path["set"], find_folder(call.served, call.path["set"]))
    table = call.served.table()
    found = read_edits(edits_file(call.served.folder, call.path["set"]))
    names = {micrograph_key(e.micrograph): e.micrograph for e in found}
    alive = {e.number for name in names.values() for e in standing(found, name)}
    asked = call.query.get("field", "")
    shown, per_field = [], dict[str, int]()
    for one in found:
        place = table.place_of(one.micrograph)
        identity = None if place is None else table.ids[place]
        if identity is not None:
            per_field[identity] = per_field.get(identity, 0) + 1
        if asked and identity != asked:
            continue
        shown.append(
            {
                "number": one.number,
                "field": identity,
                "when": one.when,
                "who": one.who,
                "add": [list(p) for p in one.add],
                "remove": [list(p) for p in one.remove],
                "undoes": one.undoes,
                "stands": one.number in alive,
            }
        )
    return {"edits": shown, "fields": per_field}


def save(call: Call) -> dict[str, Any]:
    """Write the picks of a set, with all edits, as a set of its own."""
    identity = call.path["set"]
    folder = find_folder(call.served, identity)
    find_set(call.served, identity, folder)
    name = require_name(call.said("name", str))
    out = call.served.folder / HAND_PICKS / name
    overwrite = call.wants("overwrite")
    if out.exists() and not overwrite:
        raise Conflict(f"There are picks of the name {name} already.")
    threshold = call.said("threshold", (int, float, type(None)), None)
    only_edited = call.wants("only_edited")
    only_accepted = call.wants("only_accepted", default=True)
    found = save_project_picks(
        call.served.folder,
        folder,
        read_edits(edits_file(call.served.folder, identity)),
        out,
        threshold=None if threshold is None else float(threshold),
        only_edited=only_edited,
        all_fields=not only_accepted,
        overwrite=overwrite,
    )
    words: list[object] = ["project", "picks", call.served.folder, identity, "--out", out]
    words += [] if threshold is None else ["--threshold", repr(threshold)]
    words += ["--only-edited"] if only_edited else []
    words += [] if only_accepted else ["--all-fields"]
    words += ["--overwrite"] if overwrite else []
    return {
        "set": f"p:{name}",
        "path": str(found.folder),
        "n_picks": found.n_picks,
        "n_fields": found.n_fields,
        "n_added": found.n_added,
        "command": command_line(*words),
    }


def _place(call: Call) -> tuple[Path, str]:
    """Tell where the edits of the set go, and the name of the field."""
    identity = call.path["set"]
    find_set(call.served, identity, find_folder(call.served, identity))
    source = find_source(call, call.path["field"])
    return edits_file(call.served.folder, identity), source.name


def _answer(call: Call, made: PickEdit, words: list[str]) -> dict[str, Any]:
    identity, field = call.path["set"], call.path["field"]
    source = find_source(call, field)
    found = read_edits(edits_file(call.served.folder, identity))
    n_edits = sum(micrograph_key(e.micrograph) == micrograph_key(made.micrograph) for e in found)
    rows, _ = edited_picks(
        find_folder(call.served, identity),
        made.micrograph,
        found,
        threshold=None,
        pixel_size=source.pixel_size,
    )
    call.served.hub.add("edits", {"set": identity, "field": field, "n_edits": n_edits})
    begin = ("project", "edit", call.served.folder, identity, "--micrograph", made.micrograph)
    return {
        "n_edits": n_edits,
        "n": len(rows),
        "edit": made.number,
        "command": command_line(*begin, *words),
    }
