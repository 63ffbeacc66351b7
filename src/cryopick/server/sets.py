"""Sets of picks: positions in a field, counts and scores of all fields."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from starlette.responses import Response

from cryopick.pipeline.field_table import job_kind
from cryopick.pipeline.pick_edits import PickEdit, read_edits
from cryopick.pipeline.pick_sets import PickSet, is_picking, read_field_picks
from cryopick.pipeline.picks_by_hand import edited_picks
from cryopick.pipeline.project_places import edits_file
from cryopick.pipeline.run_story import TITLES
from cryopick.server.answers import Call, Missing, WrongCall
from cryopick.server.column_words import title_of_column, unit_of_column
from cryopick.server.field_source import find_source
from cryopick.server.forms import FORMS
from cryopick.server.names import all_folders, find_folder
from cryopick.server.numbers import plain
from cryopick.server.particle_places import field_particles, has_places, n_placed
from cryopick.server.served import Served, command_line
from cryopick.tables.paths import micrograph_key

__all__ = [
    "answer_rows",
    "count",
    "find_set",
    "histogram",
    "labels",
    "of_field",
    "sets",
    "sets_of_field",
    "title_of",
]

_FIRST = ("x", "y", "fom", "diameter", "class_number", "psi")
_CALLED = {"fom": "score"}
_NEAR = 0.1  # of the diameter: a particle this near to a pick is that pick


def sets(call: Call) -> dict[str, Any]:
    """List all sets."""
    found = []
    for identity, folder in all_folders(call.served).items():
        if is_picking(folder):
            found.append(_described(call.served, identity, folder))
        elif has_places(folder):
            found.append(_of_particles(call.served, identity, folder))
    return {"sets": found}


def sets_of_field(served: Served, name: str) -> list[dict[str, Any]]:
    """List the sets with their number of picks in one field."""
    found = []
    for identity, folder in all_folders(served).items():
        if is_picking(folder):
            known = find_set(served, identity, folder).counts.get(micrograph_key(name))
            if known is not None:
                said = _described(served, identity, folder)
                found.append(said | {"n_picks": known.n_picks, "n_peaks": known.n_peaks})
        elif has_places(folder):
            found.append(_of_particles(served, identity, folder) | {"n_picks": None})
    return found


def of_field(call: Call) -> Any:
    """Give the picks of one set in one field."""
    folder = find_folder(call.served, call.path["set"])
    source = find_source(call, call.path["field"])
    threshold = call.number("threshold")
    kind = call.query.get("source", "picks")
    if kind not in ("picks", "peaks", "edited"):
        raise WrongCall("source must be picks, peaks or edited.")
    origin: list[int] | None = None
    own: float | None = None
    if is_picking(folder):
        rows, origin, own = _rows_of_picking(call, folder, source.name, source.pixel_size, kind)
    elif has_places(folder):
        rows = field_particles(call.served, folder, source.name)
    else:
        raise Missing("This is no set of picks.")
    if threshold is not None and kind != "edited" and "fom" in rows:
        rows = rows[rows["fom"] >= threshold]
    said: dict[str, Any] = {
        "set": call.path["set"],
        "field": source.id,
        "source": kind,
        "n": len(rows),
        "threshold": own if threshold is None else threshold,
    }
    if origin is not None:
        said["origin"] = origin
    return answer_rows(call, said, rows)


def labels(call: Call) -> dict[str, Any]:
    """Give each pick the value that the nearest particle of another set has."""
    folder = find_folder(call.served, call.path["set"])
    other = find_folder(call.served, call.query.get("from", ""))
    source = find_source(call, call.path["field"])
    kind = call.query.get("source", "picks")
    rows, _, _ = _rows_of_picking(call, folder, source.name, source.pixel_size, kind)
    given = (
        field_particles(call.served, other, source.name)
        if has_places(other)
        else read_field_picks(other, source.name)
    )
    column = {"score": "fom"}.get(call.query.get("column", ""), call.query.get("column", ""))
    if column not in given or not pd.api.types.is_numeric_dtype(given[column]):
        raise Missing("That set has no such column of numbers.")
    diameter = float(rows["diameter"].median()) if "diameter" in rows and len(rows) else 0.0
    reach = max(2.0, _NEAR * diameter / source.pixel_size)
    values = np.full(len(rows), np.nan)
    if len(given) and len(rows):
        from scipy.spatial import cKDTree

        tree = cKDTree(given[["x", "y"]].to_numpy())
        distance, nearest = map(np.asarray, tree.query(rows[["x", "y"]].to_numpy()))
        is_near = distance <= reach
        values[is_near] = given[column].to_numpy(np.float64)[nearest[is_near]]
    return {"values": plain(values), "n_matched": int(np.count_nonzero(~np.isnan(values)))}


def count(call: Call) -> dict[str, Any]:
    """Count the peaks of all fields that a threshold keeps."""
    folder = find_folder(call.served, call.path["set"])
    threshold = call.number("threshold")
    if threshold is None:
        raise WrongCall("threshold must be given.")
    found = find_set(call.served, call.path["set"], folder)
    n = found.count(threshold)
    table = folder / "peaks" if found.has_peaks else folder
    out = Path(str(call.served.folder)) / "picks_above"
    words = ("--by", "fom", "--min-value", repr(threshold), "--out", out)
    return {
        "n": n,
        "n_fields": len(found.counts),
        "threshold": threshold,
        "command": command_line("select", "subset", table, *words),
    }


def histogram(call: Call) -> dict[str, Any]:
    """Count peaks and picks of all fields by their scores."""
    folder = find_folder(call.served, call.path["set"])
    bins = call.whole("bins", 120, low=2, high=1000)
    found = find_set(call.served, call.path["set"], folder)
    peaks, picks = found.scores(), found.pick_scores()
    if not len(peaks):
        return {"edges": [], "peaks": [], "picks": [], "n_peaks": 0, "n_picks": 0,
                "n_fields": len(found.counts)}  # fmt: skip
    high = float(peaks[-1]) if peaks[-1] > peaks[0] else float(peaks[0]) + 1.0
    n_peaks, edges = np.histogram(peaks, bins=bins, range=(float(peaks[0]), high))
    n_picks, _ = np.histogram(picks, bins=edges)
    return {
        "edges": edges.tolist(),
        "peaks": n_peaks.tolist(),
        "picks": n_picks.tolist(),
        "n_peaks": len(peaks),
        "n_picks": len(picks),
        "n_fields": len(found.counts),
    }


def find_set(served: Served, identity: str, folder: Path) -> PickSet:
    """Give a set of picks, up to date.

    Raises
    ------
    Missing
        If the folder holds none.
    """
    if not is_picking(folder):
        raise Missing("This is no set of picks.")
    with served.lock:
        known: dict[str, PickSet] = served.kept.setdefault("sets", {})
        if identity not in known or known[identity].folder != folder:
            known[identity] = PickSet(folder=folder)
        known[identity].refresh()
        return known[identity]


def edits_of(served: Served, identity: str) -> list[PickEdit]:
    """Read the edits of a set."""
    return read_edits(edits_file(served.folder, identity))


def _rows_of_picking(
    call: Call, folder: Path, name: str, pixel_size: float, kind: str
) -> tuple[pd.DataFrame, list[int] | None, float | None]:
    """Read picks, peaks or edited picks, and the threshold of the field."""
    threshold = call.number("threshold")
    known = find_set(call.served, call.path["set"], folder).counts.get(micrograph_key(name))
    own = None if known is None or np.isnan(known.threshold) else known.threshold
    if kind == "edited":
        edits = edits_of(call.served, call.path["set"])
        rows, origin = edited_picks(folder, name, edits, threshold=threshold, pixel_size=pixel_size)
        return rows, origin, own
    is_peaks = (kind == "peaks" or threshold is not None) and (folder / "peaks").is_dir()
    return read_field_picks(folder, name, peaks=is_peaks), None, own


def _described(served: Served, identity: str, folder: Path) -> dict[str, Any]:
    found = find_set(served, identity, folder)
    score, totals = found.score(), found.totals()
    names = _names_of(served, identity)
    edits = edits_of(served, identity)
    return {
        "id": identity,
        "job": identity if identity[0] in "0123456789t" else None,
        "name": title_of(identity, folder, names),
        "step": _step(folder),
        "kind": "saved" if identity.startswith("p:") else "picks",
        "aliases": names,
        "n_fields": len(found.counts),
        "n_picks": totals.n_picks,
        "n_peaks": totals.n_peaks,
        "has_peaks": found.has_peaks,
        "score": {
            "meaning": score.meaning,
            "lowest": None if score.limits is None else score.limits[0],
            "highest": None if score.limits is None else score.limits[1],
        },
        "threshold": totals.threshold,
        "n_edits": len(edits),
        "diameter": _diameter(folder),
    }


def _of_particles(served: Served, identity: str, folder: Path) -> dict[str, Any]:
    names = _names_of(served, identity)
    return {
        "id": identity,
        "job": identity if identity[0] in "0123456789t" else None,
        "name": title_of(identity, folder, names),
        "step": _step(folder),
        "kind": "particles",
        "aliases": names,
        "n_fields": None,
        "n_picks": n_placed(served, folder),
        "n_peaks": None,
        "has_peaks": False,
        "score": None,
        "threshold": None,
        "n_edits": 0,
        "diameter": _diameter(folder),
    }


def _names_of(served: Served, identity: str) -> list[str]:
    aliases = served.project.aliases()
    return [name for name, number in aliases.items() if str(number) == identity]


def title_of(identity: str, folder: Path, names: list[str]) -> str:
    """Name results as people call them."""
    if identity[0] in "ps" and ":" in identity:
        return folder.name
    step = _step(folder)
    kind = job_kind(folder)
    title = TITLES.get(step) or (FORMS[kind].title if kind in FORMS else kind or step)
    return title if step in names else f"{title} (job {identity})"


def _step(folder: Path) -> str:
    name = folder.name
    return name.split("_", 1)[1] if name[:4].isdigit() and "_" in name else name


def _diameter(folder: Path) -> float | None:
    try:
        said = json.loads((folder / "job.json").read_bytes()).get("parameters") or {}
    except (OSError, ValueError, AttributeError):
        return None
    for name in ("diameter", "max_diameter", "particle_diameter"):
        if isinstance(said.get(name), int | float) and said[name] > 0:
            return float(said[name])
    return None


def answer_rows(call: Call, said: Mapping[str, Any], rows: pd.DataFrame) -> Any:
    """Answer with all columns of numbers of some rows, as JSON or in binary."""
    numeric = [str(c) for c in rows.columns if pd.api.types.is_numeric_dtype(rows[c])]
    ordered = [c for c in _FIRST if c in numeric] + [c for c in numeric if c not in _FIRST]
    arrays = {_CALLED.get(c, c): rows[c].to_numpy(np.float64) for c in ordered}
    if "score" in arrays:
        arrays["score"] = np.where(arrays["score"] <= -999, np.nan, arrays["score"])
    described = {
        name: {
            "title": title_of_column(name),
            "unit": unit_of_column(name),
            "minimum": _end(values, np.nanmin),
            "maximum": _end(values, np.nanmax),
        }
        for name, values in arrays.items()
    }
    whole = {**said, "labels": described}
    if "application/octet-stream" in call.accept:
        return _binary({**whole, "columns": list(arrays)}, arrays)
    return {**whole, "columns": {name: plain(values) for name, values in arrays.items()}}


def _end(values: Any, find: Any) -> float | None:
    return float(find(values)) if len(values) and not np.isnan(values).all() else None


def _binary(said: Mapping[str, Any], arrays: Mapping[str, Any]) -> Response:
    header = json.dumps(said, allow_nan=False).encode()
    header += b" " * (-(len(header) + 4) % 8)
    parts = [struct.pack("<I", len(header)), header]
    parts += [np.asarray(values, "<f8").tobytes() for values in arrays.values()]
    return Response(b"".join(parts), media_type="application/octet-stream")
