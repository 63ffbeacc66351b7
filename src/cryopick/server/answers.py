"""From a request to a function of this program, and from what it returns to an answer."""

from __future__ import annotations

import gzip
import importlib
import json
import logging
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from cryopick.errors import CryopickError, ProjectError

if TYPE_CHECKING:
    from cryopick.server.served import Served

__all__ = [
    "Call",
    "Conflict",
    "Missing",
    "TooLarge",
    "Unavailable",
    "WrongCall",
    "calls",
    "json_answer",
]

_WORTH_PACKING = 8192  # bytes
_LOG = logging.getLogger("cryopick.server")


class WrongCall(Exception):
    """The request cannot be done as it is."""

    status = 400


class Missing(WrongCall):
    """There is no such thing."""

    status = 404


class Conflict(WrongCall):
    """Something stands in the way that may go away."""

    status = 409


class TooLarge(WrongCall):
    """The body is larger than anything that is asked for here."""

    status = 413


class Unavailable(WrongCall):
    """There is too much to do at the moment."""

    status = 503


@dataclass(frozen=True, kw_only=True)
class Call:
    """What was asked for.

    Attributes
    ----------
    served
        The project.
    path
        Parts of the path that the route names.
    query
        After the question mark.
    body
        Of a request that changes something; empty for others.
    accept
        Types that the client takes.
    etag
        Version that the client has, from ``If-None-Match``.
    role
        ``owner`` or ``viewer``, and when that ends, s since 1970.
    """

    served: Served
    path: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    accept: str = ""
    etag: str = ""
    role: str = "viewer"
    expires: int = 0

    def number(self, name: str, default: float | None = None) -> float | None:
        """Read a number of the query.

        Raises
        ------
        WrongCall
            If it is none.
        """
        text = self.query.get(name, "")
        if not text:
            return default
        try:
            value = float(text)
        except ValueError as error:
            raise WrongCall(f"{name} must be a number; got {text[:50]!r}.") from error
        if value != value or value in (float("inf"), float("-inf")):
            raise WrongCall(f"{name} must be a finite number; got {text[:50]!r}.")
        return value

    def whole(self, name: str, default: int, *, low: int = 0, high: int = 1 << 31) -> int:
        """Read a whole number of the query, within its limits.

        Raises
        ------
        WrongCall
            If it is none, or beyond them.
        """
        text = self.query.get(name, "")
        if not text:
            return default
        if not text.isdecimal() or not low <= int(text) <= high:
            raise WrongCall(f"{name} must be from {low} to {high}; got {text[:50]!r}.")
        return int(text)

    def flag(self, name: str) -> bool:
        """Read yes or no of the query."""
        return self.query.get(name, "") in ("1", "true", "yes")

    def wants(self, name: str, *, default: bool = False) -> bool:
        """Take yes or no of the body.

        Raises
        ------
        WrongCall
            If it is neither.
        """
        return bool(self.said(name, bool, default))

    def said(self, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """Take a value of the body.

        Raises
        ------
        WrongCall
            If it is of another kind, or missing and there is no default.
        """
        value = self.body.get(name, default)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        is_wrong_bool = isinstance(value, bool) and bool not in kinds
        if (value is None and default is None and type(None) not in kinds) or (
            value is not default and (is_wrong_bool or not isinstance(value, kinds))
        ):
            words = " or ".join(k.__name__ for k in kinds)
            raise WrongCall(f"{name} must be given as {words} in the body.")
        return value


Handler = Callable[[Call], Any]


def calls(name: str) -> Callable[[Request], Awaitable[Response]]:
    """Make an endpoint of a function that is imported when it is first asked for.

    So a server answers before numerical libraries are loaded.

    Parameters
    ----------
    name
        Module in this package and function, ``fields.page``. The function takes a `Call`, works
        in a thread of its own, and returns what JSON takes, or a response.
    """

    async def endpoint(request: Request) -> Response:
        try:
            call = await _call_of(request)
            found = await run_in_threadpool(_run, name, call)
        except WrongCall as wrong:
            return json_answer(request, {"error": str(wrong)}, status=wrong.status)
        except ProjectError as error:
            return json_answer(request, {"error": str(error)}, status=409)
        except CryopickError as error:
            return json_answer(request, {"error": str(error)}, status=400)
        except (TimeoutError, subprocess.TimeoutExpired):
            sentence = "This takes longer than the server waits; try again."
            return json_answer(request, {"error": sentence}, status=503)
        except OSError as error:
            sentence = f"A file cannot be read: {error.strerror or error}."
            return json_answer(request, {"error": sentence}, status=503)
        except Exception:
            _LOG.exception("%s failed", name)
            sentence = "The server made a mistake; its log says more."
            return json_answer(request, {"error": sentence}, status=500)
        return found if isinstance(found, Response) else json_answer(request, found)

    return endpoint


def _run(name: str, call: Call) -> Any:
    module, _, function = name.partition(".")
    handler: Handler = getattr(importlib.import_module(f"cryopick.server.{module}"), function)
    return handler(call)


async def _call_of(request: Request) -> Call:
    body: Any = {}
    if request.method not in ("GET", "HEAD"):
        text = await request.body()
        try:
            body = json.loads(text or b"{}", parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise WrongCall("The body must be JSON.") from error
        if not isinstance(body, dict):
            raise WrongCall("The body must be a JSON object.")
    ticket = request.scope["ticket"]
    return Call(
        served=request.app.state.served,
        path={k: str(v) for k, v in request.path_params.items()},
        query=dict(request.query_params),
        body=body,
        accept=request.headers.get("accept", ""),
        etag=request.headers.get("if-none-match", ""),
        role=ticket.role,
        expires=ticket.expires,
    )


def _no_number(word: str) -> Any:
    """Refuse NaN and Infinity, which JSON does not know."""
    raise ValueError(word)


def json_answer(request: Request, value: Any, *, status: int = 200) -> Response:
    """Answer with JSON, packed where that is worth it."""
    body = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    headers = {"Vary": "Accept-Encoding"}
    if len(body) > _WORTH_PACKING and "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, compresslevel=1)
        headers["Content-Encoding"] = "gzip"
    return Response(body, status_code=status, headers=headers, media_type="application/json")
