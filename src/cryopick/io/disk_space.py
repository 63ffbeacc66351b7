"""Room on a disk, asked for before something is begun that would not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

from cryopick.errors import OutputError
from cryopick.io.atomic import output_errors

__all__ = ["require_space", "show_bytes"]

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def require_space(folder: Path, n_bytes: int) -> None:
    """Refuse to begin what would not fit on the disk of a folder.

    Parameters
    ----------
    folder
        That is to be written to; it must be there.
    n_bytes
        Room that is needed.

    Raises
    ------
    OutputError
        If the disk has less room, or its room cannot be asked for.
    """
    with output_errors(folder):
        free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise OutputError(
            str(folder),
            must=f"have {show_bytes(n_bytes)} free on its disk",
            got=show_bytes(free),
            remedy="Free some space; the same command then goes on",
        )


def show_bytes(n_bytes: float) -> str:
    """Write a size for people, in powers of 1000.

    Examples
    --------
    >>> show_bytes(65536), show_bytes(512)
    ('65.5 kB', '512 bytes')
    """
    unit = 0
    while n_bytes >= 999.5 and unit < len(_UNITS) - 1:
        n_bytes /= 1000
        unit += 1
    return f"{n_bytes:.3g} {_UNITS[unit]}"
