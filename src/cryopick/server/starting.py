"""Forms filled in: what a command works on, its command line, and its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryopick.errors import ParameterError
from cryopick.io.json_files import read_object
from cryopick.pipeline.class_tables import find_models
from cryopick.pipeline.field_choices import save_accepted
from cryopick.pipeline.field_table import job_kind
from cryopick.pipeline.pick_sets import is_picking
from cryopick.pipeline.project_places import SELECTIONS
from cryopick.server.answers import Call, Missing, WrongCall
from cryopick.server.forms import FORMS, Form, FormInput, check_values, flags_of, schema_of
from cryopick.server.names import all_folders, find_folder, require_name
from cryopick.server.particle_places import particle_table
from cryopick.server.served import Served, command_line
from cryopick.server.sets import title_of
from cryopick.server.tasks import new_folder, start_task

__all__ = ["form", "forms", "preview", "start", "use_selection"]


def forms(_: Call) -> dict[str, Any]:
    """List the commands that can be started."""
    return {
        "forms": [
            {"command": f.command, "title": f.title, "about": f.about, "starts": True}
            for f in FORMS.values()
        ]
    }


def form(call: Call) -> dict[str, Any]:
    """Give the form of a command."""
    found = _find(call.path["command"].replace("-", " "))
    return {
        "command": found.command,
        "title": found.title,
        "about": found.about,
        "schema": schema_of(found),
        "values": _last_values(call.served, found),
        "inputs": [
            {
                "name": one.name,
                "title": one.title,
                "required": one.is_required,
                "choices": _choices(call.served, one),
            }
            for one in found.inputs
        ],
    }


def preview(call: Call) -> dict[str, Any]:
    """Write the command line of a form, or say what is wrong with what was filled in so far."""
    found = _find(call.said("command", str))
    _, out = _destination(call.served, found, is_made=False)
    try:
        words = _words(call, found, out, saves=False)
    except (WrongCall, ParameterError) as error:
        return {"command": "", "error": str(error)}
    return {"command": command_line(*words), "error": ""}


def start(call: Call) -> dict[str, Any]:
    """Start the command of a filled form."""
    found = _find(call.said("command", str))
    with call.served.lock:
        number, out = _destination(call.served, found, is_made=True)
        words = _words(call, found, out, saves=True)
        identity = start_task(call.served, found.command, words, number=number, out=out)
    call.served.hub.add("jobs", {"jobs": [identity]})
    return {"job": identity, "command": command_line(*words)}


def use_selection(call: Call) -> dict[str, Any]:
    """Start what people do with selected classes."""
    name = require_name(call.path["name"])
    if not (call.served.folder / SELECTIONS / name).is_dir():
        raise Missing("There is no such selection.")
    commands = {
        "train": ("pick train", "labels"),
        "templates": ("pick template", "templates"),
        "extract": ("extract", "picks"),
    }
    purpose = call.said("as", str)
    if purpose not in commands:
        raise WrongCall(f"as must be one of {', '.join(commands)}.")
    command, where = commands[purpose]
    parameters = call.said("parameters", dict, {})
    body = {
        "command": command,
        "inputs": {where: f"s:{name}", "micrographs": call.said("micrographs", str, "accepted")},
        "parameters": {**_last_values(call.served, _find(command)), **parameters},
    }
    return start(Call(served=call.served, path={}, body=body))


def _find(command: str) -> Form:
    if command not in FORMS:
        raise Missing(f"There is no form for this command; known are {', '.join(FORMS)}.")
    return FORMS[command]


def _destination(served: Served, found: Form, *, is_made: bool) -> tuple[int, Path]:
    if not is_made:
        return 0, served.folder / "tasks" / f"NNNN_{found.command.replace(' ', '_')}"
    return new_folder(served, found.command)


def _words(call: Call, found: Form, out: Path, *, saves: bool) -> list[object]:
    """Write the command; its values are checked first."""
    filled = check_values(found, call.said("parameters", dict, {}))
    flags = [flag for group in filled for flag in flags_of(group)]
    given = call.said("inputs", dict, {})
    words: list[object] = [*found.command.split()]
    if found.command == "run":
        table = call.served.table().source
        if table is None:
            raise WrongCall("The project has no micrographs yet.")
        return [*words, table, "--out", call.served.folder, *flags, *_pixel_size(call.served)]
    named: list[object] = []
    for one in found.inputs:
        chosen = given.get(one.name)
        if not chosen:
            if one.is_required:
                raise WrongCall(f"{one.title} must be chosen.")
            continue
        path = _path(call.served, one, str(chosen), saves=saves)
        named += [one.flag, path] if one.flag else []
        words += [] if one.flag else [path]
    return [*words, *named, "--out", out, *flags]


def _pixel_size(served: Served) -> list[str]:
    """Give the pixel size of the last run, which its results depend on."""
    said = (served.project.run_parameters() or {}).get("pixel_size")
    return [] if said is None else [f"--pixel-size={said}"]


def _path(served: Served, one: FormInput, chosen: str, *, saves: bool) -> Path:
    """Find the file or folder that an id stands for."""
    if one.kind == "micrographs":
        return _fields(served, chosen, saves=saves)
    folder = find_folder(served, chosen)
    if not _fits(folder, chosen, one):
        raise WrongCall(f"{chosen} cannot be taken for {one.title.lower()}.")
    if one.kind in ("particles", "labels", "picks"):
        table = particle_table(folder)
        if table is not None and not is_picking(folder):
            return table
    return folder


def _fields(served: Served, chosen: str, *, saves: bool) -> Path:
    table = served.table()
    if chosen == "accepted":
        path = table.project / "micrographs_selected.star"
        if saves:
            path, _ = save_accepted(table)
        return path
    if chosen != "all" or table.source is None:
        raise WrongCall("micrographs must be accepted or all, and the project must have some.")
    job = find_folder(served, _ctf_job(served)) if _ctf_job(served) else None
    with_ctf = None if job is None else job / "micrographs_ctf.star"
    return with_ctf if with_ctf is not None and with_ctf.is_file() else table.source


def _ctf_job(served: Served) -> str:
    number = served.project.aliases().get("ctf")
    return "" if number is None else str(number)


def _choices(served: Served, one: FormInput) -> list[dict[str, str]]:
    if one.kind == "micrographs":
        return [
            {"value": "accepted", "title": "Accepted micrographs"},
            {"value": "all", "title": "All micrographs"},
        ]
    aliases = served.project.aliases()
    found = []
    for identity, folder in all_folders(served).items():
        if _fits(folder, identity, one):
            names = [n for n, k in aliases.items() if str(k) == identity]
            found.append({"value": identity, "title": title_of(identity, folder, names)})
    return found[::-1]


def _fits(folder: Path, identity: str, one: FormInput) -> bool:
    """Tell whether results can be what a command works on."""
    kind = job_kind(folder)
    has_particles = particle_table(folder) is not None
    if one.kind == "picks":
        return is_picking(folder) or has_particles
    if one.kind == "labels":
        return is_picking(folder) or has_particles
    if one.kind == "particles":
        return has_particles and not is_picking(folder)
    if one.kind == "templates":
        return bool(find_models(folder)) or (folder / "class_averages.star").is_file()
    if one.kind == "classes":
        return bool(find_models(folder)) and not identity.startswith("s:")
    return kind == "pick train" and (folder / "model.npz").is_file()


def _last_values(served: Served, found: Form) -> dict[str, Any]:
    """Give the values to begin from: those of the last run, the known diameter, the last box."""
    if found.command == "run":
        values = served.project.run_parameters() or {}
        return {name: value for name, value in values.items() if name != "pixel_size"}
    offered = schema_of(found)["properties"]
    known = {"diameter": _diameter(served), **_last_box(served)}
    return {n: v for n, v in known.items() if n in offered and v is not None}


def _diameter(served: Served) -> float | None:
    said = (served.project.run_parameters() or {}).get("diameter")
    if said:
        return float(said)
    number = served.project.aliases().get("diameter")
    record = served.project.jobs().get(number or 0)
    facts = ((record.result if record else None) or {}).get("facts") or {}
    return float(facts["diameter"]) if "diameter" in facts else None


def _last_box(served: Served) -> dict[str, Any]:
    """Give the size of the last particles that were cut, for the next to be like them."""
    for folder in reversed(all_folders(served).values()):
        if job_kind(folder) == "extract":
            said = (read_object(folder / "job.json") or {}).get("parameters") or {}
            if said.get("box_size"):
                return {n: said[n] for n in ("box_size", "rescale") if said.get(n)}
    return {}
