"""Classes: their table, their averages in one picture, who belongs to them and where it lies."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from cryopick.errors import CryopickError
from cryopick.io.stack_images import read_stack_images
from cryopick.pipeline.class_tables import (
    ClassTable,
    class_kind,
    find_models,
    read_class_table,
    scores_of,
)
from cryopick.server.answers import Call, Missing, WrongCall
from cryopick.server.field_source import find_source
from cryopick.server.greys import atlas as make_atlas
from cryopick.server.names import all_folders, find_folder
from cryopick.server.numbers import plain
from cryopick.server.particle_places import KeptParticles, kept_particles
from cryopick.server.pictures import Encoded, answer_picture, digest, encode
from cryopick.server.served import Served, stamp_of
from cryopick.server.sets import answer_rows, title_of

__all__ = ["atlas", "classifications", "find_classes", "members", "one", "places"]

_TILE = 128
_MOST_FIELDS = 200
_COLUMNS = {  # title, unit, digits, what it is
    "number": ("Class", "", 0, ""),
    "count": ("Particles", "", 0, "That belong to this class more than to any other."),
    "share": ("Share", "", 3, "Of all particles, by their probabilities."),
    "resolution": ("Resolution", "Å", 1, "Finest detail of the average, as its noise allows."),
    "score": ("Score", "", 2, "From 0, rubbish, to 1; made of purity and quality."),
    "purity": (
        "Purity",
        "",
        2,
        "From the share of particles among the members: 0 is a fifth, 1 four fifths.",
    ),
    "quality": ("Quality", "", 2, "How alike the views of the members are expected to be, 0 to 1."),
    "accuracy_rotations": ("Accuracy of rotations", "°", 1, "To which the angles can be told."),
    "accuracy_translations": ("Accuracy of shifts", "Å", 1, "To which the shifts can be told."),
    "stability": ("Reproducibility", "", 2, "Share of the members that come out again."),
    "error": ("Pixel error", "px", 2, "Of repeated alignments, root mean square."),
    "is_selected": ("Selected", "", 0, ""),
}


def classifications(call: Call) -> dict[str, Any]:
    """List all runs with classes."""
    found = []
    for identity, folder in all_folders(call.served).items():
        models = {} if identity.startswith(("s:", "p:")) else find_models(folder)
        if not models:
            continue
        last = max(models)
        try:
            table = _table(call.served, models[last], None)
        except (CryopickError, OSError):
            continue
        names = [n for n, k in call.served.project.aliases().items() if str(k) == identity]
        found.append(
            {
                "id": identity,
                "job": identity,
                "name": title_of(identity, folder, names),
                "step": folder.name.split("_", 1)[-1],
                "kind": class_kind(folder),
                "aliases": names,
                "n_classes": len(table.images),
                "n_particles": int(np.nansum(table.columns["count"])),
                "iteration": last,
                "iterations": list(models),
            }
        )
    return {"classifications": found}


def one(call: Call) -> dict[str, Any]:
    """Give the classes of a run."""
    folder, table, scored_by = find_classes(call)
    n = len(table.images)
    columns = _grid(n)
    names = [name for name in _COLUMNS if name in table.columns]
    iteration = f"iteration={table.iteration}"
    version = digest(stamp_of(table.model))[:8]
    url = f"api/classifications/{call.path['classes']}/atlas?{iteration}&tile={_TILE}&v={version}"
    shown: dict[str, Any] = {name: plain(table.columns[name], digits=4) for name in names}
    return {
        "id": call.path["classes"],
        "iteration": table.iteration,
        "iterations": list(find_models(folder)),
        "n_particles": int(np.nansum(table.columns["count"])),
        "box_size": table.box_size,
        "pixel_size": table.pixel_size,
        "atlas": {
            "url": url,
            "tile": _TILE,
            "columns": columns,
            "rows": math.ceil(n / columns),
            "n": n,
        },
        "columns": [
            dict(zip(("name", "title", "unit", "digits", "about"), (k, *_COLUMNS[k]), strict=True))
            for k in names
        ],
        "classes": {**shown, **table.texts},
        "scored_by": scored_by,
    }


def atlas(call: Call) -> Response:
    """Make one picture of all averages."""
    _, table, _ = find_classes(call)
    tile = call.whole("tile", _TILE, low=16, high=512)
    name = digest("atlas", table.model, stamp_of(table.model), tile)

    def make() -> Encoded:
        images = _averages(table)
        return Encoded(*encode(call, make_atlas(images, tile=tile, columns=_grid(len(images)))))

    return answer_picture(call, name, make)


def members(call: Call) -> dict[str, Any]:
    """Say how many particles of a class lie in which field, as far as their table says it."""
    kept = _particles(call)
    number = _number(call.path["number"])
    is_member = kept.particles.rows["class_number"].to_numpy(np.int64) == number
    table = call.served.table()
    found = []
    has_places = "micrograph" in kept.particles.rows
    for name in kept.particles.rows["micrograph"].cat.categories if has_places else ():
        count = int(np.count_nonzero(is_member[kept.rows_of(str(name))]))
        place = table.place_of(str(name))
        if count and place is not None:
            found.append({"field": table.ids[place], "name": table.names[place], "n": count})
    found.sort(key=lambda one: -int(str(one["n"])))
    return {
        "number": number,
        "count": int(is_member.sum()),
        "n_fields": len(found),
        "fields": found[:_MOST_FIELDS],
    }


def places(call: Call) -> Any:
    """Give the members of classes in one field."""
    kept = _particles(call)
    if "micrograph" not in kept.particles.rows:
        raise Missing("The table of these classes does not say where its particles lie.")
    source = find_source(call, call.path["field"])
    rows = kept.particles.rows.iloc[kept.rows_of(source.name)]
    rows = rows.assign(row=kept.rows_of(source.name))
    if wanted := call.query.get("classes", ""):
        numbers = {_number(text) for text in wanted.split(",")}
        rows = rows[rows["class_number"].isin(numbers)]
    said = {"classification": call.path["classes"], "field": source.id, "n": len(rows)}
    return answer_rows(call, said, rows)


def find_classes(call: Call) -> tuple[Path, ClassTable, str | None]:
    """Read the classes that a request names.

    Raises
    ------
    Missing
        If there are none.
    """
    folder = find_folder(call.served, call.path["classes"])
    model = _model(call, folder)
    others = all_folders(call.served)
    of_jobs = {k: f for k, f in others.items() if not k.startswith("s:")}
    scored_by = scores_of(folder, of_jobs) or scores_of(folder, others)
    scores = None if scored_by is None else others[scored_by]
    return folder, _table(call.served, model, scores), scored_by


def _model(call: Call, folder: Path) -> Path:
    models = find_models(folder)
    if not models:
        raise Missing("This job has no classes.")
    iteration = call.whole("iteration", max(models))
    if iteration not in models:
        raise Missing("This run has no such iteration.")
    return models[iteration]


def _table(served: Served, model: Path, scores: Path | None) -> ClassTable:
    """Read a table, unless it is kept."""
    stamp = stamp_of(model) + ("" if scores is None else stamp_of(scores / "class_scores.star"))
    with served.lock:
        known: dict[str, tuple[str, ClassTable]] = served.kept.setdefault("classes", {})
        name = f"{model}|{scores}"
        if name not in known or known[name][0] != stamp:
            known[name] = (stamp, read_class_table(model, scores=scores))
        return known[name][1]


def _particles(call: Call) -> KeptParticles:
    model = _model(call, find_folder(call.served, call.path["classes"]))
    data = model.with_name(model.name.replace("_model.star", "_data.star"))
    if not data.is_file():
        raise Missing("The particles of this round are no longer there; take the last one.")
    kept = kept_particles(call.served, data)
    if "class_number" not in kept.particles.rows:
        raise Missing("The table of these classes does not say who belongs to them.")
    return kept


def _averages(table: ClassTable) -> list[NDArray[np.float32]]:
    stacks: dict[Path, list[int]] = {}
    for path, index in table.images:
        stacks.setdefault(path, []).append(index)
    read = {
        path: dict(zip(at, read_stack_images(path, np.asarray(at, np.int64)), strict=True))
        for path, at in stacks.items()
    }
    return [np.asarray(read[path][index], np.float32) for path, index in table.images]


def _grid(n: int) -> int:
    return max(1, math.ceil(math.sqrt(n)))


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 7:
        raise WrongCall("A class is a number from 1; 0 is none.")
    return int(text)
