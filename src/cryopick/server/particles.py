"""Galleries of particles: pages of a table with their images, averages, what is set aside."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from starlette.responses import Response

from cryopick.errors import CryopickError
from cryopick.io.stack_images import read_stack_images
from cryopick.pipeline.disabled_rows import read_disabled, set_disabled
from cryopick.pipeline.project_places import EDITS, SELECTIONS
from cryopick.pipeline.select_rows import parse_rows, write_rows
from cryopick.server.answers import Call, Conflict, Missing, WrongCall
from cryopick.server.column_words import title_of_column, unit_of_column
from cryopick.server.commands import run_command
from cryopick.server.greys import atlas as make_atlas
from cryopick.server.greys import low_pass, to_grey
from cryopick.server.heavy import elsewhere
from cryopick.server.names import all_folders, find_folder, require_name
from cryopick.server.numbers import plain
from cryopick.server.particle_places import KeptParticles, kept_particles, particle_table
from cryopick.server.pictures import Cache, Encoded, answer_picture, digest, encode
from cryopick.server.served import command_line, stamp_of
from cryopick.server.sets import title_of
from cryopick.tables.paths import resolve_path

__all__ = ["atlas", "average", "disable", "page", "picture", "save", "tables"]

_MOST_AVERAGED = 20_000
_MOST_SHOWN = 1000
_SHOWN = ("class_number", "max_probability", "junk_probability", "fom", "log_likelihood", "margin")
_LONGEST = 100_000  # characters of rows that a command line takes
_pictures = Cache(32 << 20)


def tables(call: Call) -> dict[str, Any]:
    """List all tables of particles."""
    found = []
    for identity, folder in all_folders(call.served).items():
        path = particle_table(folder)
        if path is None or identity.startswith("p:"):
            continue
        try:
            kept = kept_particles(call.served, path)
        except (CryopickError, OSError):  # one broken table must not take the list with it
            continue
        optics = kept.particles.optics
        names = [n for n, k in call.served.project.aliases().items() if str(k) == identity]
        found.append(
            {
                "id": identity,
                "name": title_of(identity, folder, names),
                "step": folder.name.split("_", 1)[-1],
                "kind": _kind(identity, folder),
                "n": len(kept.particles),
                "box_size": int(optics["box_size"].iloc[0]),
                "pixel_size": float(optics["pixel_size"].iloc[0]),
                "columns": _columns(kept),
                "n_disabled": int(_disabled(call, identity, kept).sum()),
            }
        )
    return {"tables": found}


def page(call: Call) -> dict[str, Any]:
    """Give a page of a table of particles."""
    kept, disabled = _opened(call)
    order = _ordered(call, kept, disabled)
    rows = _page_of(call, order)
    numeric = [str(c["name"]) for c in _columns(kept)]
    asked = [n for n in call.query.get("columns", "").split(",") if n]
    if unknown := [n for n in asked if n not in numeric]:
        raise WrongCall(f"This table has no column of numbers {unknown[0][:50]}.")
    names = asked or [n for n in _SHOWN if n in numeric]
    columns = [plain(_values(kept, n)[rows], digits=5) for n in names]
    table = call.served.table()
    fields = _fields(kept, rows, table)
    tile, across = call.whole("tile", 64, low=16, high=256), 20
    query = {k: v for k, v in call.query.items() if k not in ("columns", "v")}
    stamp = digest(kept.stamp, stamp_of(_records(call, call.path["particles"])))[:8]
    root = f"api/particles/{call.path['particles']}/atlas"
    words = urlencode({**query, "v": stamp})
    return {
        "n_all": len(kept.particles),
        "n": len(order),
        "offset": call.whole("offset", 0),
        "columns": ["row", "field", *names],
        "rows": [list(row) for row in zip(rows.tolist(), fields, *columns, strict=True)],
        "atlas": {
            "url": f"{root}?{words}",
            "tile": tile,
            "columns": across,
            "rows": math.ceil(len(rows) / across),
            "n": len(rows),
        },
        "disabled": [int(d) for d in disabled[rows]],
    }


def atlas(call: Call) -> Response:
    """Make one picture of the images of a page."""
    kept, disabled = _opened(call)
    rows = _page_of(call, _ordered(call, kept, disabled))
    if not len(rows):
        raise Missing("There are no particles on this page.")
    tile = call.whole("tile", 64, low=16, high=256)
    resolution = call.number("low_pass", 0.0) or 0.0
    name = digest("particles", kept.path, kept.stamp, rows.tobytes().hex()[:2000],
                  len(rows), int(rows.sum()), tile, resolution)  # fmt: skip

    def make() -> Encoded:
        images = _images(kept, rows)
        size = float(kept.particles.optics["pixel_size"].iloc[0])
        if resolution:
            images = [low_pass(i, pixel_size=size, resolution=resolution) for i in images]
        return Encoded(*encode(call, make_atlas(images, tile=tile, columns=20)))

    return answer_picture(call, name, make)


def average(call: Call) -> dict[str, Any]:
    """Average particles, and say how much they differ."""
    kept, disabled = _opened(call)
    chosen = _chosen_rows(call, kept, disabled)
    n = len(chosen)
    if not n:
        raise WrongCall("There is no such particle.")
    used = chosen[np.linspace(0, n - 1, min(n, _MOST_AVERAGED)).astype(np.int64)]
    is_aligned = call.wants("aligned", default=True)
    rows = kept.particles.rows.iloc[used]
    is_aligned = is_aligned and {"psi", "shift_x", "shift_y"} <= set(rows.columns)
    name = digest("average", kept.path, kept.stamp, used.tobytes().hex(), is_aligned)
    if _pictures.get(f"{name}-mean") is None:
        stacks, order = _stacks(kept, used)
        poses = _poses(kept, used[order]) if is_aligned else None
        mean, deviation = elsewhere("heavy_particles.mean_and_deviation", stacks, poses)
        for kind, image in (("mean", mean), ("deviation", deviation)):
            _pictures.put(f"{name}-{kind}", np.asarray(image, np.float32), image.nbytes)
    root = f"api/particles/{call.path['particles']}/pictures/{name}"
    return {"n": n, "n_used": len(used), "is_aligned": is_aligned,
            "mean": f"{root}-mean?v=1", "deviation": f"{root}-deviation?v=1"}  # fmt: skip


def picture(call: Call) -> Response:
    """Show an average that was made."""
    image = _pictures.get(call.path["name"])
    if image is None:
        raise Missing("This average is not kept any more; make it again.")
    tile = call.whole("tile", 256, low=16, high=512)

    def make() -> Encoded:
        low, high = np.quantile(image, [0.003, 0.997])
        grey = to_grey(image, limits=(float(low), float(high))).pixels
        sheet = make_atlas([grey.astype(np.float32)], tile=tile, columns=1)
        return Encoded(*encode(call, sheet))

    return answer_picture(call, digest(call.path["name"], tile), make)


def disable(call: Call) -> dict[str, Any]:
    """Set particles aside, or take them back."""
    kept, disabled = _opened(call)
    identity = call.path["particles"]
    images, path = _image_names(kept), _records(call, identity)
    n = len(kept.particles)
    if call.wants("invert"):
        before = disabled.copy()
        set_disabled(path, images, ~before, is_disabled=True)
        set_disabled(path, images, before, is_disabled=False)
    else:
        rows = parse_rows(call.said("rows", str), n)
        set_disabled(path, images, rows, is_disabled=call.wants("disabled", default=True))
    now = read_disabled(path, images)
    shown = write_rows(now)
    words = ("select", "rows", kept.path, "--drop", "--rows", shown, "--out", "FOLDER")
    return {"n_disabled": int(now.sum()), "command": command_line(*words)}


def save(call: Call) -> dict[str, Any]:
    """Write particles as a table of their own."""
    kept, disabled = _opened(call)
    name = require_name(call.said("name", str))
    out = call.served.folder / SELECTIONS / name
    overwrite = call.wants("overwrite")
    if out.exists() and not overwrite:
        raise Conflict(f"There is a selection of the name {name} already.")
    chosen = np.zeros(len(kept.particles), bool)
    chosen[_chosen_rows(call, kept, disabled)] = True
    is_less = int(chosen.sum()) * 2 > len(chosen)
    text = write_rows(~chosen if is_less else chosen)
    if len(text) > _LONGEST:
        raise WrongCall("This choice is too ragged; sort it out by class or by value instead.")
    words: list[object] = ["select", "rows", kept.path, "--rows", text]
    words += ["--drop"] if is_less else []
    words += ["--xmd"] if call.wants("xmd") else []
    words += ["--out", out]
    words += ["--overwrite"] if overwrite else []
    result = run_command(words)
    call.served.hub.add("selections", {"names": [name]})
    return {
        "path": str(out),
        "particles": f"s:{name}",
        "files": result["files"],
        "n": result["n_kept"],
        "command": command_line(*words),
    }


def _opened(call: Call) -> tuple[KeptParticles, NDArray[np.bool_]]:
    identity = call.path["particles"]
    path = particle_table(find_folder(call.served, identity))
    if path is None:
        raise Missing("This job has no particles.")
    kept = kept_particles(call.served, path)
    return kept, _disabled(call, identity, kept)


def _disabled(call: Call, identity: str, kept: KeptParticles) -> NDArray[np.bool_]:
    path = _records(call, identity)
    stamp = (kept.stamp, stamp_of(path))
    with call.served.lock:
        known: dict[str, Any] = call.served.kept.setdefault("disabled", {})
        if known.get(identity, (None,))[0] != stamp:
            found = (
                read_disabled(path, _image_names(kept))
                if path.exists()
                else np.zeros(len(kept.particles), bool)
            )
            known[identity] = (stamp, found)
        found_now: NDArray[np.bool_] = known[identity][1]
        return found_now


def _records(call: Call, identity: str) -> Path:
    return call.served.folder / EDITS / f"{identity.replace(':', '_')}_disabled.jsonl"


def _image_names(kept: KeptParticles) -> pd.Series:
    rows = kept.particles.rows
    return rows["image_index"].astype(str) + "@" + rows["image"].astype(str)


def _columns(kept: KeptParticles) -> list[dict[str, Any]]:
    rows = kept.particles.rows
    found = []
    for name in rows.columns:
        if not pd.api.types.is_numeric_dtype(rows[name]) or name == "image_index":
            continue
        values = rows[name].to_numpy(np.float64)
        finite = values[np.isfinite(values)]
        if len(finite):
            found.append(
                {
                    "name": str(name),
                    "title": title_of_column(str(name)),
                    "unit": unit_of_column(str(name)),
                    "minimum": float(finite.min()),
                    "maximum": float(finite.max()),
                }
            )
    return found


def _values(kept: KeptParticles, name: str) -> NDArray[np.float64]:
    return kept.particles.rows[name].to_numpy(np.float64)


def _ordered(call: Call, kept: KeptParticles, disabled: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Rows that are asked for, in the order that is asked for."""
    rows = kept.particles.rows
    is_in = np.ones(len(rows), bool)
    if call.query.get("class"):
        if "class_number" not in rows:
            raise WrongCall("These particles have no classes.")
        is_in &= _values(kept, "class_number") == call.whole("class", 0)
    if field := call.query.get("field"):
        table = call.served.table()
        is_of_field = np.zeros(len(rows), bool)
        if field in table.index:
            is_of_field[kept.rows_of(table.names[table.index[field]])] = True
        is_in &= is_of_field
    if call.query.get("disabled"):
        is_in &= disabled == call.flag("disabled")
    places = np.flatnonzero(is_in)
    by = call.query.get("sort", "")
    if not by or by == "row":
        return places[::-1] if call.flag("descending") else places
    if by not in rows or not pd.api.types.is_numeric_dtype(rows[by]):
        raise WrongCall(f"This table has no column of numbers {by[:50]}.")
    values = _values(kept, by)[places]
    order = np.argsort(values, kind="stable")
    if call.flag("descending"):
        n = int(np.count_nonzero(~np.isnan(values)))
        order = np.concatenate([order[:n][::-1], order[n:]])
    return places[order]


def _page_of(call: Call, order: NDArray[np.intp]) -> NDArray[np.intp]:
    offset = call.whole("offset", 0)
    return order[offset : offset + call.whole("limit", 200, low=1, high=_MOST_SHOWN)]


def _chosen_rows(call: Call, kept: KeptParticles, disabled: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Rows that a body names."""
    text = call.said("rows", str, "all")
    words = {"all": np.ones(len(disabled), bool), "enabled": ~disabled, "disabled": disabled}
    chosen = words[text] if text in words else parse_rows(text, len(disabled))
    number = call.said("class", (int, type(None)), None)
    if number is not None:
        if "class_number" not in kept.particles.rows:
            raise WrongCall("These particles have no classes.")
        chosen = chosen & (_values(kept, "class_number") == number)
    return np.flatnonzero(chosen)


def _fields(kept: KeptParticles, rows: NDArray[np.intp], table: Any) -> list[str | None]:
    if "micrograph" not in kept.particles.rows:
        return [None] * len(rows)
    names = kept.particles.rows["micrograph"].iloc[rows]
    places = [table.place_of(str(name)) for name in names]
    return [None if place is None else table.ids[place] for place in places]


def _stacks(
    kept: KeptParticles, rows: NDArray[np.intp]
) -> tuple[list[tuple[Path, NDArray[np.int64]]], NDArray[np.intp]]:
    """Group rows by stack; the order in which they come then."""
    names = kept.particles.rows["image"].iloc[rows].astype(str).to_numpy()
    at = kept.particles.rows["image_index"].to_numpy(np.int64)[rows]
    codes, unique = pd.factorize(names)
    order = np.argsort(codes, kind="stable")
    found = []
    for code, name in enumerate(unique):
        found.append((resolve_path(str(name), kept.particles.source), at[codes == code]))
    return found, order


def _images(kept: KeptParticles, rows: NDArray[np.intp]) -> list[NDArray[np.float32]]:
    stacks, order = _stacks(kept, rows)
    read = [np.asarray(i, np.float32) for path, at in stacks for i in read_stack_images(path, at)]
    images: list[NDArray[np.float32]] = [np.zeros((1, 1), np.float32)] * len(rows)
    for place, image in zip(order.tolist(), read, strict=True):
        images[place] = image
    return images


def _poses(kept: KeptParticles, rows: NDArray[np.intp]) -> tuple[NDArray[np.float32], ...]:
    """Angles and shifts of rows, degrees and px."""
    table = kept.particles
    sizes = table.optics.set_index("optics_group")["pixel_size"]
    pixels = table.rows["optics_group"].iloc[rows].map(sizes).to_numpy(np.float64)
    psi, x, y = (_values(kept, n)[rows] for n in ("psi", "shift_x", "shift_y"))
    return tuple(np.asarray(v, np.float32) for v in (psi, x / pixels, y / pixels))


def _kind(identity: str, folder: Path) -> str:
    if identity.startswith("s:"):
        return "saved"
    if (folder / "class_scores.star").is_file():
        return "selection"
    return "extract" if (folder / "particles.star").is_file() else "classes"
