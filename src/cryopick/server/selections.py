"""Classes that people chose, saved as tables of just their particles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import CryopickError
from cryopick.io.json_files import read_object
from cryopick.io.star import read_star
from cryopick.pipeline.class_tables import classes_of
from cryopick.pipeline.field_table import job_kind
from cryopick.pipeline.project_decisions import add_decision, read_decisions
from cryopick.pipeline.project_places import SELECTIONS
from cryopick.server.answers import Call, Conflict, WrongCall
from cryopick.server.classifications import find_classes
from cryopick.server.commands import run_command
from cryopick.server.names import all_folders, require_name
from cryopick.server.served import Served, command_line
from cryopick.server.sets import title_of

__all__ = ["put", "selections"]

_SAVED = "selection"  # kind of decision
_MOST = 2000


def selections(call: Call) -> dict[str, Any]:
    """List what was selected, by people and in jobs."""
    return {"selections": list(_all(call.served).values())}


def put(call: Call) -> dict[str, Any]:
    """Save the particles of some classes."""
    name = require_name(call.path["name"])
    numbers = _numbers(call)
    asked = Call(
        served=call.served,
        path={"classes": call.said("classification", str)},
        query={"iteration": str(call.body["iteration"])} if "iteration" in call.body else {},
    )
    folder, table, _ = find_classes(asked)
    out = call.served.folder / SELECTIONS / name
    overwrite = call.wants("overwrite")
    if out.exists() and not overwrite:
        raise Conflict(f"There is a selection of the name {name} already.")
    is_of_folder = table.model.parent == folder and "iteration" not in call.body
    source = folder if is_of_folder else table.model
    words: list[object] = ["select", "classes", source, "--classes", _ranges(numbers)]
    words += ["--out", out]
    words += ["--recenter"] if call.wants("recenter") else []
    words += ["--overwrite"] if overwrite else []
    result = run_command(words)
    said = {"name": name, "classification": asked.path["classes"], "classes": numbers}
    add_decision(call.served.folder, _SAVED, said)
    call.served.hub.add("selections", {"names": [name]})
    return {
        "selection": _all(call.served).get(f"s:{name}"),
        "n_particles": result.get("n_particles_selected"),
        "n_classes": result.get("n_selected"),
        "path": str(out),
        "command": command_line(*words),
    }


def _all(served: Served) -> dict[str, dict[str, Any]]:
    folders = all_folders(served)
    by_name = {folder.name: identity for identity, folder in folders.items()}
    authors = {
        str(d.values.get("name")): d for d in read_decisions(served.folder) if d.what == _SAVED
    }
    found = {}
    for identity, folder in folders.items():
        if job_kind(folder) != "select classes" or not (folder / "result.json").is_file():
            continue
        is_saved = identity.startswith("s:")
        names = [n for n, k in served.project.aliases().items() if str(k) == identity]
        author = authors.get(folder.name) if is_saved else None
        found[identity] = {
            "id": identity,
            "name": folder.name if is_saved else title_of(identity, folder, names),
            "classification": by_name.get(classes_of(folder)),
            "classes": _selected(folder),
            "n_particles": _result(folder).get("n_particles_selected"),
            "when": author.when if author else None,
            "who": author.who if author else None,
            "path": str(folder),
            "kind": "saved" if is_saved else "job",
            "particles": identity if (folder / "particles.star").is_file() else None,
        }
    return found


def _selected(folder: Path) -> list[int]:
    try:
        rows = next(iter(read_star(folder / "backup_selection.star").values()))
        return [int(k) + 1 for k in np.flatnonzero(rows["rlnSelected"].to_numpy(np.int64) > 0)]
    except (CryopickError, OSError, KeyError, StopIteration):
        return []


def _result(folder: Path) -> dict[str, Any]:
    return read_object(folder / "result.json") or {}


def _numbers(call: Call) -> list[int]:
    given = call.said("classes", list)
    is_right = all(isinstance(k, int) and not isinstance(k, bool) and k > 0 for k in given)
    if not given or not is_right or len(given) > _MOST:
        raise WrongCall("classes must be a list of class numbers, one at least.")
    return sorted(set(given))


def _ranges(numbers: list[int]) -> str:
    """Write numbers as a person would: 1-3,7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
