"""Pictures as answers: encoded once, kept for a while, named by what they were made from."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from cryopick.io.png import encode_jpeg, encode_png
from cryopick.server.answers import Call, Unavailable

__all__ = ["Cache", "Encoded", "answer_picture", "digest", "encode"]

_KEPT = 64 << 20  # bytes of encoded pictures
_AT_ONCE = 2  # pictures being made
_QUEUE = 40.0  # s to wait for a turn
_turns = threading.BoundedSemaphore(_AT_ONCE)


class Encoded(NamedTuple):
    """A picture as bytes."""

    content: bytes
    kind: str  # media type
    headers: Mapping[str, str] = {}


class Cache:
    """The things used last, up to a number of bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> Any:
        """Give what was kept under a name; None if nothing was."""
        with self._lock:
            found = self._kept.get(name)
            if found is None:
                return None
            self._kept.move_to_end(name)
            return found[0]

    def put(self, name: str, value: Any, size: int) -> None:
        """Keep something, and let go of what was used longest ago."""
        with self._lock:
            if name in self._kept:
                self._bytes -= self._kept.pop(name)[1]
            self._kept[name] = (value, size)
            self._bytes += size
            while self._bytes > self._most and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1][1]


_cache = Cache(_KEPT)


def digest(*parts: object) -> str:
    """Name something by all that it depends on."""
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:20]


def encode(call: Call, pixels: NDArray[np.uint8], *, is_exact: bool = False) -> tuple[bytes, str]:
    """Encode as JPEG, or as PNG for those who ask for it; `is_exact` loses nothing.

    JPEG takes a tenth of the time of WebP, and noise is no smaller in that.
    """
    if takes_jpeg(call) and not is_exact and pixels.ndim == 2:
        return encode_jpeg(pixels), "image/jpeg"
    return encode_png(pixels), "image/png"


def takes_jpeg(call: Call) -> bool:
    """Tell whether JPEG will do: for all but those who ask for PNG, and are no browser."""
    return "image/webp" in call.accept or "image/png" not in call.accept


def answer_picture(call: Call, name: str, make: Callable[[], Encoded]) -> Response:
    """Answer with a picture, from what is kept if it can be.

    Parameters
    ----------
    call
        The request; with ``v`` in its query the answer may be kept for ever.
    name
        From `digest`, of all that the picture depends on.
    make
        Makes it.

    Raises
    ------
    Unavailable
        If too many are being made.
    """
    tag = f'"{name}{"j" if takes_jpeg(call) else "p"}"'
    headers = {
        "ETag": tag,
        "Vary": "Accept",
        "Cache-Control": "private, max-age=31536000, immutable"
        if call.query.get("v")
        else "private, no-cache",
    }
    if tag in [part.strip().removeprefix("W/") for part in call.etag.split(",")]:
        return Response(status_code=304, headers=headers)
    found: Encoded | None = _cache.get(tag)
    if found is None:
        if not _turns.acquire(timeout=_QUEUE):
            raise Unavailable("Too many pictures are being made; try again.")
        try:
            found = _cache.get(tag) or make()
        finally:
            _turns.release()
        _cache.put(tag, found, len(found.content))
    return Response(found.content, media_type=found.kind, headers={**headers, **found.headers})
