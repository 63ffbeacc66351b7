"""How a project is served: where, to whom, and with what right."""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryopick.io.atomic import make_folder

__all__ = ["ServerSettings", "is_loopback", "project_token"]

_TOKEN_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What a server is started with."""

    project: Path
    token: str
    host: str = "127.0.0.1"
    port: int = 8642
    is_read_only: bool = False
    allowed_hosts: tuple[str, ...] = ()  # names beside those that are allowed anyway

    @property
    def cookie(self) -> str:
        """Name of the cookie; browsers do not tell ports apart."""
        return f"cryopick_{self.port}"

    def allows_host(self, header: str) -> bool:
        """Tell whether a ``Host`` header names this server.

        A page of another origin can make its own name lead here (DNS rebinding), but its name
        stays in the header. A number cannot be made to lead elsewhere.
        """
        name = _host_name(header)
        if name in ("localhost", *self.allowed_hosts, self.host.lower()):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host_name(header: str) -> str:
    text = header.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def project_token(uuid: str, *, is_new: bool = False) -> str:
    """Give the token of a project: the one of before, so that open pages outlive a restart.

    It is kept in the user's state folder, in a file that nobody else may read.

    Parameters
    ----------
    uuid
        Of the project.
    is_new
        Make another: links and cookies of before end.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    folder = make_folder(Path(state) / "cryopick" / "serve", option="XDG_STATE_HOME")
    folder.chmod(0o700)
    path = folder / f"{uuid}.json"
    if not is_new:
        try:
            token = str(json.loads(path.read_bytes())["token"])
            if len(token) >= _TOKEN_BYTES:
                return token
        except (OSError, ValueError, KeyError, TypeError):
            pass
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    aside = path.with_name(f".{uuid}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        json.dump({"token": token}, handle)
    aside.replace(path)
    return token
