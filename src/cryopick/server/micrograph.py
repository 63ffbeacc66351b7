"""One field: what is known of it, its image in several views, its spectrum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from cryopick.errors import CryopickError
from cryopick.io.micrograph import read_micrograph, read_micrograph_size
from cryopick.io.mrc import read_mrc
from cryopick.pipeline.field_columns import COLUMNS
from cryopick.server.answers import Call, Missing, WrongCall
from cryopick.server.field_source import FieldSource, find_source
from cryopick.server.greys import Grey, low_pass, shrink, to_grey
from cryopick.server.heavy import elsewhere, warm_up
from cryopick.server.numbers import plain
from cryopick.server.pictures import Cache, Encoded, answer_picture, digest, encode

__all__ = ["image", "one", "spectrum", "spectrum_image", "tile"]

_TILE = 512
_VIEWS = ("raw", "low_pass", "denoised")
_SIDE, _THUMB, _MOST = 1024, 256, 4096
_LOW_PASS = 20.0  # A
_levels = Cache(160 << 20)  # bytes of fields as grey levels
_small = Cache(48 << 20)  # bytes of shrunken fields


def one(call: Call) -> dict[str, Any]:
    """Say all that is known of a field."""
    from cryopick.server.sets import sets_of_field

    source = find_source(call, call.path["field"])
    warm_up()
    table, _, states = call.served.states()
    place = source.place
    values: dict[str, Any] = {}
    for name, column in COLUMNS.items():
        if column.kind == "number" and name in table.numbers:
            (values[name],) = plain(table.numbers[name][place : place + 1])
    try:
        size: tuple[int, int] | None = read_micrograph_size(source.path)
        error = ""
    except CryopickError as broken:
        size, error = None, str(broken)
    root = f"api/fields/{source.id}"
    view = f"{root}/image?v={source.version}"
    return {
        "id": source.id,
        "number": place + 1,
        "name": source.name,
        "width": size and size[1],
        "height": size and size[0],
        "error": error,
        "pixel_size": source.pixel_size,
        "values": values,
        "state": states.name_of(place),
        "reason": states.reasons[place],
        "tick": states.ticks[place],
        "previous": table.ids[place - 1] if place else None,
        "next": table.ids[place + 1] if place + 1 < len(table) else None,
        "image": {
            **{name: f"{view}&view={name}&size={_SIDE}" for name in _VIEWS},
            "thumb": f"{view}&view=low_pass&size={_THUMB}",
            "tiles": f"{root}/tiles/{{level}}/{{x}}/{{y}}?v={source.version}",
            "tile_size": _TILE,
            "levels": _n_levels(*size) if size else 1,
        },
        "has_ctf": source.ctf is not None,
        "sets": sets_of_field(call.served, source.name),
    }


def image(call: Call) -> Response:
    """Make a picture of a field."""
    source = find_source(call, call.path["field"])
    view = call.query.get("view", "raw")
    if view not in _VIEWS:
        raise WrongCall(f"view must be one of {', '.join(_VIEWS)}.")
    size = call.whole("size", _SIDE, low=64, high=_MOST)
    percentile = call.number("percentile")
    if percentile is not None and not 0 <= percentile < 50:
        raise WrongCall("percentile must be from 0 to below 50.")
    resolution = call.number("low_pass", _LOW_PASS) or 0.0
    ctf = sorted((source.ctf or {}).items()) if view == "denoised" else ""
    name = digest("image", source.id, source.version, view, size, percentile, resolution, ctf)

    def make() -> Encoded:
        small, pixel_size = _shrunken(source, size)
        if view == "low_pass":
            small = low_pass(small, pixel_size=pixel_size, resolution=resolution)
        elif view == "denoised":
            small = _denoised(source, small, pixel_size)
        grey = to_grey(small, percentile=percentile)
        return _encoded(call, grey)

    return answer_picture(call, name, make)


def tile(call: Call) -> Response:
    """Make a tile of a level of a field."""
    source = find_source(call, call.path["field"])
    level, x, y = (int(call.path[n]) for n in ("level", "x", "y"))
    name = digest("tile", source.id, source.version, level, x, y)

    def make() -> Encoded:
        pixels = _level(source, level)
        part = pixels[y * _TILE : (y + 1) * _TILE, x * _TILE : (x + 1) * _TILE]
        if not part.size:
            raise Missing("The field has no such tile.")
        return Encoded(*encode(call, np.ascontiguousarray(part)))

    return answer_picture(call, name, make)


def spectrum(call: Call) -> dict[str, Any]:
    """Give the spectrum along the rings of the CTF, and its fit."""
    source = find_source(call, call.path["field"])
    lens = _lens(source)
    name = digest("curves", source.id, source.version, sorted(lens.items()))
    found = _small.get(name)
    if found is None:
        found = elsewhere("heavy_fields.ctf_curves", source.path, source.pixel_size, lens)
        _small.put(name, found, 20_000)
    said = {k: round(float(v), 4) for k, v in (source.ctf or {}).items()}
    curves = {
        k: plain(found[k], digits=6) for k in ("frequency", "measured", "fitted", "agreement")
    }
    return {
        **curves,
        "max_resolution": float(found["max_resolution"]),
        "fom": float(found["fom"]),
        "is_trusted": bool(found["is_trusted"]),
        **{k: float(found[k]) for k in ("defocus_u", "defocus_v", "defocus_angle", "phase_shift")},
        **{k: v for k, v in said.items() if k.startswith(("defocus", "phase"))},
        "image": f"api/fields/{source.id}/spectrum/image?v={source.version}",
    }


def spectrum_image(call: Call) -> Response:
    """Make a picture of the spectrum beside the fitted CTF."""
    source = find_source(call, call.path["field"])
    size = call.whole("size", 512, low=64, high=1024)
    of_job = source.ctf_image.stat().st_mtime_ns if source.ctf_image is not None else ""
    name = digest("spectrum", source.id, source.version, size, of_job)

    def make() -> Encoded:
        if source.ctf_image is not None:
            halves = np.asarray(read_mrc(source.ctf_image, dtype=np.float32), np.float32)
        else:
            halves = elsewhere(
                "heavy_fields.ctf_halves", source.path, source.pixel_size, _lens(source)
            )
        halves = halves.reshape(halves.shape[-2:])
        grey = to_grey(shrink(halves, longest_side=size), limits=(-0.3, 1.4))
        return _encoded(call, grey)

    return answer_picture(call, name, make)


def _lens(source: FieldSource) -> dict[str, float]:
    if source.lens is None or source.ctf is None:
        raise Missing("The CTF of this field is not known.")
    return source.lens


def _shrunken(source: FieldSource, size: int) -> tuple[NDArray[np.float32], float]:
    """Shrink a field, and say how large its pixels are then, A."""
    name = digest("small", source.id, source.version, size)
    kept = _small.get(name)
    if kept is None:
        pixels = read_micrograph(source.path)
        small = shrink(pixels, longest_side=size)
        kept = (small, source.pixel_size * max(pixels.shape) / max(small.shape))
        _small.put(name, kept, small.nbytes)
    return kept[0], kept[1]


def _denoised(
    source: FieldSource, small: NDArray[np.float32], pixel_size: float
) -> NDArray[np.float32]:

    found: NDArray[np.float32] = elsewhere("heavy_fields.denoise", small, pixel_size, source.ctf)
    return found


def _level(source: FieldSource, level: int) -> NDArray[np.uint8]:
    """Give a level of a field as grey, the finest at its own pixels."""
    if not 0 <= level < 16:
        raise Missing("The field has no such level.")
    name = digest("level", source.id, source.version, level)
    kept: NDArray[np.uint8] | None = _levels.get(name)
    if kept is None:
        small, _ = _shrunken(source, _SIDE)
        _, low, high = to_grey(small)
        pixels = read_micrograph(source.path)
        side = math.ceil(max(pixels.shape) / 2**level)
        kept = to_grey(shrink(pixels, longest_side=side), limits=(low, high)).pixels
        _levels.put(name, kept, kept.nbytes)
    return kept


def _n_levels(height: int, width: int) -> int:
    return 1 + max(0, math.ceil(math.log2(max(height, width) / _TILE)))


def _encoded(call: Call, grey: Grey) -> Encoded:
    content, kind = encode(call, grey.pixels)
    return Encoded(
        content, kind, {"X-Grey-Low": f"{grey.low:.8g}", "X-Grey-High": f"{grey.high:.8g}"}
    )
