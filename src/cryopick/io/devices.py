"""Refuse what has the name of a file and would be read for ever: pipes, sockets, devices."""

from __future__ import annotations

import stat
from pathlib import Path

from cryopick.errors import FormatError

__all__ = ["require_no_device"]


def require_no_device(path: Path) -> None:
    """Refuse a pipe, a socket or a device; what cannot be looked at is left to its opening.

    Raises
    ------
    FormatError
        If it is one.
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "a socket or device"
        raise FormatError(str(path), must="be a file", got=kind, remedy="Copy the image to a file")
