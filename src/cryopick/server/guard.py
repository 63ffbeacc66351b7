"""What every request must pass: host, origin, token, right to write, size of the body."""

from __future__ import annotations

import html
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cryopick.server.answers import TooLarge
from cryopick.server.settings import ServerSettings
from cryopick.server.tickets import Ticket, is_token, read_ticket, write_ticket

__all__ = ["LARGEST_BODY", "Guard"]

LARGEST_BODY = 4 << 20  # bytes
_COOKIE_DAYS = 30
_READS = ("GET", "HEAD")
_OPEN = ("/static/", "/favicon.ico")  # without a token: the program, no data
_CHECKS_ONLY = frozenset({"/api/limits/preview", "/api/jobs/preview", "/api/plan"})
_POLICY = (
    "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_DOOR = """<!doctype html><html lang="en"><meta charset="utf-8"><title>cryopick</title>
<link rel="icon" href="static/icon.svg">
<meta name="viewport" content="width=device-width"><h1>cryopick</h1>
<p>{why}</p><form method="get" action="./"><label>Token <input name="token" type="password"
autocomplete="off"></label> <button>Open</button></form></html>"""
_GO_ON = """<!doctype html><html lang="en"><meta charset="utf-8"><title>cryopick</title>
<link rel="icon" href="static/icon.svg">
<meta http-equiv="refresh" content="0; url=./"><p><a href="./">Go on</a></p></html>"""


class _Refused(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class Guard:
    """The outermost application: lets through what may pass, and dresses what goes out."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = _dressed(send)
        headers = Headers(scope=scope)
        try:
            self._require_place(scope, headers)
            if scope["path"] == "/" and (answer := self._opened(scope)):
                await answer(scope, receive, send)
                return
            if not scope["path"].startswith(_OPEN):
                scope["ticket"] = self._require_ticket(scope, headers)
            receive = _require_small_body(scope, headers, receive)
            await self.app(scope, receive, send)
        except _Refused as refused:
            await self._refusal(scope, refused)(scope, receive, send)

    def _require_place(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self.settings.allows_host(host):
            raise _Refused(403, f"The server is not called {host[:100]!r}. Use --allow-host NAME.")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise _Refused(403, "The request comes from a page of another origin.")
        if headers.get("sec-fetch-site") == "cross-site" and scope["path"] != "/":
            raise _Refused(403, "The request comes from a page of another site.")
        if scope["method"] not in _READS and headers.get("x-cryopick") != "1":
            raise _Refused(403, "A request that changes something must have the header X-Cryopick.")

    def _opened(self, scope: Scope) -> Response | None:
        """Turn a token or a share link into a cookie."""
        query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=20)
        token, share = query.get("token", [""])[0], query.get("share", [""])[0]
        ticket: Ticket | None = None
        if token and is_token(token, self.settings.token):
            ticket = Ticket(role="owner", expires=int(time.time()) + _COOKIE_DAYS * 86400)
        elif share:
            ticket = read_ticket(f"viewer.{share}", self.settings.token)
        if ticket is None:
            if token or share:
                raise _Refused(401, "This link has expired, or was never valid.")
            return None
        answer = HTMLResponse(_GO_ON)
        answer.set_cookie(
            self.settings.cookie,
            write_ticket(ticket, self.settings.token),
            max_age=max(1, ticket.expires - int(time.time())),
            path=scope.get("root_path") or "/",
            httponly=True,
            samesite="strict",
            secure=scope.get("scheme") == "https",
        )
        return answer

    def _require_ticket(self, scope: Scope, headers: Headers) -> Ticket:
        ticket = self._ticket(headers)
        if ticket is None:
            raise _Refused(401, "The token is missing. Open the link that cryopick serve printed.")
        path = scope["path"]
        is_change = path not in _CHECKS_ONLY and not path.endswith("/average")
        writes = scope["method"] not in _READS and is_change
        if writes and (ticket.role != "owner" or self.settings.is_read_only):
            raise _Refused(403, "This link may only read.")
        return ticket

    def _ticket(self, headers: Headers) -> Ticket | None:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and is_token(given.strip(), self.settings.token):
            return Ticket(role="owner", expires=int(time.time()) + 86400)
        cookie = cookie_parser(headers.get("cookie", "")).get(self.settings.cookie, "")
        return read_ticket(cookie, self.settings.token)

    def _refusal(self, scope: Scope, refused: _Refused) -> Response:
        if scope["path"] == "/" and refused.status == 401:
            return HTMLResponse(_DOOR.format(why=html.escape(refused.sentence)), status_code=401)
        return JSONResponse({"error": refused.sentence}, status_code=refused.status)


def _dressed(send: Send) -> Send:
    """Add the headers that tell browsers what they must not do."""

    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return dressed


def _require_small_body(scope: Scope, headers: Headers, receive: Receive) -> Receive:
    """Refuse a body that is too large, or no JSON; also one that does not say how large it is."""
    if scope["method"] in _READS:
        return receive
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _Refused(415, "The body must be JSON.")
    length = headers.get("content-length", "0")
    sentence = f"The body must have at most {LARGEST_BODY >> 20} MiB."
    if not length.isdigit() or int(length) > LARGEST_BODY:
        raise _Refused(413, sentence)
    seen = 0

    async def counted() -> Any:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > LARGEST_BODY:
            raise TooLarge(sentence)
        return message

    return counted
