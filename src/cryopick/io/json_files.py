"""Small records in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["read_object"]


def read_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where the file is not there, is torn or holds something else.

    Examples
    --------
    >>> read_object(Path("no such file")) is None
    True
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
