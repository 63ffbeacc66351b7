"""Tomograms: slices along three axes, the segmentation of each, and picks with their kinds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from starlette.responses import Response

from cryopick.errors import CryopickError
from cryopick.io.png import encode_png
from cryopick.io.volumes import open_volume
from cryopick.pipeline.job import identity_of
from cryopick.pipeline.tomogram_list import ListedTomogram, list_tomograms
from cryopick.server.answers import Call, Missing
from cryopick.server.greys import shrink, to_grey
from cryopick.server.numbers import plain
from cryopick.server.pictures import Encoded, answer_picture, digest, encode
from cryopick.tables.tomogram_formats import read_tomogram_picks
from cryopick.tables.tomograms import tomogram_table

__all__ = ["one", "picks", "segmentation", "slice_image", "tomograms"]

_AXES = {"z": 0, "y": 1, "x": 2}
_SAMPLES = 5  # slices from which the grey scale is taken
_SIGMAS = 4.0
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")


def tomograms(call: Call) -> dict[str, Any]:
    """List all tomograms."""
    found = list_tomograms(call.served.folder).values()
    return {"tomograms": [_described(t) for t in found]}


def one(call: Call) -> dict[str, Any]:
    """Say how to look at a tomogram."""
    found = _find(call)
    root, version = f"api/tomograms/{found.id}", _version(found)
    low, high = _grey_range(call, found)
    has_labels = found.labels is not None
    return {
        **_described(found),
        "grey": [low, high],
        "clusters": found.clusters,
        "slice": f"{root}/slice/{{axis}}/{{index}}?v={version}",
        "segmentation": f"{root}/segmentation/{{axis}}/{{index}}?v={version}"
        if has_labels
        else None,
    }


def slice_image(call: Call) -> Response:
    """Show one slice."""
    found = _find(call)
    size = call.whole("size", 1024, low=32, high=4096)
    axis, index = _place(call, found)
    name = digest("slice", found.id, _version(found), axis, index, size)

    def make() -> Encoded:
        plane = _plane(found, axis, index)
        grey = to_grey(shrink(plane, longest_side=size), limits=_grey_range(call, found))
        return Encoded(*encode(call, grey.pixels))

    return answer_picture(call, name, make)


def segmentation(call: Call) -> Response:
    """Show the numbers of the clusters in one slice, as grey values."""
    found = _find(call)
    axis, index = _place(call, found)
    if found.labels is None:
        raise Missing("This tomogram has no segmentation.")
    labels = found.labels
    name = digest("labels", labels, identity_of(labels), axis, index)

    def make() -> Encoded:
        plane = _cut(open_volume(labels, voxel_size=found.voxel_size), axis, index)
        return Encoded(encode_png(plane.astype(np.uint8)), "image/png")

    return answer_picture(call, name, make)


def picks(call: Call) -> dict[str, Any]:
    """Give the picks in a tomogram, positions in voxels."""
    rows = _rows(_find(call))
    columns = {
        str(name): plain(rows[name].to_numpy(np.float64), digits=4)
        for name in rows.columns
        if pd.api.types.is_numeric_dtype(rows[name])
    }
    return {"n": len(rows), "columns": columns}


def _find(call: Call) -> ListedTomogram:
    found = list_tomograms(call.served.folder).get(call.path["tomogram"])
    if found is None:
        raise Missing("There is no such tomogram.")
    return found


def _described(found: ListedTomogram) -> dict[str, Any]:
    rows = _rows(found)
    kinds = rows["kind"].to_numpy(np.int64) if "kind" in rows else np.ones(len(rows), np.int64)
    return {
        "id": found.id,
        "name": found.name,
        "shape": list(found.shape),
        "voxel_size": found.voxel_size,
        "has_segmentation": found.labels is not None,
        "n_picks": len(rows),
        "kinds": [
            {
                "number": int(k),
                "name": f"Kind {k}",
                "colour": _COLOURS[(int(k) - 1) % len(_COLOURS)],
                "n": int(np.count_nonzero(kinds == k)),
            }
            for k in np.unique(kinds)
        ],
    }


def _rows(found: ListedTomogram) -> pd.DataFrame:
    """Read the picks of a tomogram; none where no file can be read."""
    if found.picks is None:
        return pd.DataFrame()
    known = tomogram_table([(found.name, found.shape, found.voxel_size)])
    for name in ("particles.csv", "particles.star"):
        path = found.picks / name
        if not path.is_file():
            continue
        try:
            read = read_tomogram_picks(path, tomograms=known, tomogram=found.name)
        except CryopickError:  # of several tomograms: only the table of all knows them
            read = read_tomogram_picks(path, tomograms=_all_of(found))
        mine = read.of(found.name)
        places = mine.in_voxels()
        rows = mine.rows.assign(z=places[:, 0], y=places[:, 1], x=places[:, 2])
        return rows.rename(columns={"class_number": "kind", "fom": "score"})
    return pd.DataFrame()


def _all_of(found: ListedTomogram) -> pd.DataFrame:
    assert found.picks is not None
    beside = list_tomograms(found.picks.parents[1]) | list_tomograms(found.picks.parent)
    mine = [t for t in beside.values() if t.picks == found.picks]
    return tomogram_table([(t.name, t.shape, t.voxel_size) for t in mine])


def _version(found: ListedTomogram) -> str:
    return digest(identity_of(found.path))[:8]


def _place(call: Call, found: ListedTomogram) -> tuple[int, int]:
    axis = _AXES.get(call.path["axis"])
    index = int(call.path["index"])
    if axis is None or not 0 <= index < found.shape[axis]:
        raise Missing("The tomogram has no such slice.")
    return axis, index


def _plane(found: ListedTomogram, axis: int, index: int) -> NDArray[np.float32]:
    return _cut(open_volume(found.path, voxel_size=found.voxel_size), axis, index)


def _cut(volume: Any, axis: int, index: int) -> NDArray[np.float32]:
    """Cut a slice: z has x to the right and y down, y has x and z, x has z and y."""
    lower, upper = [0, 0, 0], list(volume.shape)
    lower[axis], upper[axis] = index, index + 1
    plane = volume.read(tuple(lower), tuple(upper)).squeeze(axis)
    return np.ascontiguousarray(plane.T if axis == 2 else plane)


def _grey_range(call: Call, found: ListedTomogram) -> tuple[float, float]:
    """Give the values of black and white, from some slices."""
    name = f"{found.id}|{_version(found)}"
    with call.served.lock:
        known: dict[str, tuple[float, float]] = call.served.kept.setdefault("tomogram_greys", {})
        if name not in known:
            at = np.linspace(0, found.shape[0] - 1, _SAMPLES + 2)[1:-1].astype(int)
            values = np.concatenate([_plane(found, 0, int(k)).ravel()[::7] for k in at])
            middle = float(np.median(values))
            sigma = 1.4826 * float(np.median(np.abs(values - middle))) or float(values.std())
            known[name] = (middle - _SIGMAS * sigma, middle + _SIGMAS * sigma)
        return known[name]
