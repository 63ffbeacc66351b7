"""Who may come in: a token that is shown once, and signed tickets that browsers keep as cookies."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Literal

__all__ = ["Ticket", "is_token", "read_ticket", "write_ticket"]

Role = Literal["owner", "viewer"]
_MARK_BYTES = 24


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A right, until it expires."""

    role: Role
    expires: int  # s since 1970

    @property
    def is_valid(self) -> bool:
        """Whether it has not expired."""
        return time.time() < self.expires


def is_token(given: str, token: str) -> bool:
    """Compare a token in a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode(), token.encode())


def write_ticket(ticket: Ticket, token: str) -> str:
    """Write a ticket that only the holder of the token can have made."""
    said = f"{ticket.role}.{ticket.expires}"
    return f"{said}.{_sign(said, token)}"


def read_ticket(text: str, token: str) -> Ticket | None:
    """Read a ticket; None if it is forged, broken or has expired."""
    role, _, rest = text.partition(".")
    expires, _, mark = rest.partition(".")
    expected = _sign(f"{role}.{expires}", token)
    if not hmac.compare_digest(mark.encode(), expected.encode()):
        return None
    if role not in ("owner", "viewer") or not expires.isdigit():
        return None
    ticket = Ticket(role="owner" if role == "owner" else "viewer", expires=int(expires))
    return ticket if ticket.is_valid else None


def _sign(said: str, token: str) -> str:
    key = hmac.new(token.encode(), b"cryopick ticket", hashlib.sha256).digest()
    mark = hmac.new(key, said.encode(), hashlib.sha256).digest()[:_MARK_BYTES]
    return base64.urlsafe_b64encode(mark).decode()
