"""One document that says where a session stands, replaced as a whole; see docs/sessions.md."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import OutputError
from cryopick.io.atomic import write_json
from cryopick.pipeline.session_layout import STATUS, read_status, session_folder

__all__ = ["Rates", "StatusFile"]

_SCHEMA = 1
_BEAT = 5.0  # s between two writes of the same
_WINDOW = 1800.0  # s over which rates are counted
_SHORT = 300.0
_RATED = ("listed", "measured", "picked", "extracted")


class Rates:
    """How fast counts grow."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, int]]] = deque()

    def count(self, counts: Mapping[str, int], *, now: float) -> None:
        """Take in the counts of this moment (s)."""
        self._samples.append((now, {name: counts[name] for name in _RATED}))
        while len(self._samples) > 2 and self._samples[1][0] < now - _WINDOW:
            self._samples.popleft()

    def per_hour(self, name: str, *, window: float = _WINDOW) -> float | None:
        """Growth per hour; None before there is a time to count over."""
        if not self._samples:
            return None
        now, last = self._samples[-1]
        first = next((s for s in self._samples if s[0] >= now - window), self._samples[-1])
        if now - first[0] < 1.0:
            return None
        return (last[name] - first[1][name]) / (now - first[0]) * 3600

    def to_dict(self) -> dict[str, Any]:
        """All of them, ready for JSON."""
        rates: dict[str, Any] = {"window": _WINDOW}
        for name in _RATED:
            rate = self.per_hour(name)
            rates[name] = None if rate is None else round(rate, 1)
        return rates

    def eta(self, waiting: int) -> dict[str, float | None]:
        """Seconds until so many micrographs are extracted, at the rates of late and of longer."""
        found = [self.per_hour("extracted", window=w) for w in (_SHORT, _WINDOW)]
        known = [rate for rate in found if rate]
        if not waiting:
            return {"seconds": 0.0, "low": 0.0, "high": 0.0}
        if not known:
            return {"seconds": None, "low": None, "high": None}
        times = [waiting / rate * 3600 for rate in known]
        values = {"seconds": times[0], "low": min(times), "high": max(times)}
        return {name: round(value, 1) for name, value in values.items()}


class StatusFile:
    """Writes the document when it has changed, and now and then when it has not."""

    def __init__(self, project: Path) -> None:
        self._path = session_folder(project) / STATUS
        before = read_status(project)
        self._revision = int(before.get("revision") or 0)
        self._last: str = ""
        self._written = -np.inf
        self.started = time.time()

    def write(self, values: Mapping[str, Any]) -> None:
        """Write what is known; a disk that does not take it is tried again the next time."""
        text = json.dumps(values, sort_keys=True, default=str)
        now = time.monotonic()
        if text == self._last and now - self._written < _BEAT:
            return
        self._revision += text != self._last
        document = {
            "schema": _SCHEMA,
            "revision": self._revision,
            "written": time.time(),
            "started": self.started,
            "manager": {
                "host": platform.node(),
                "pid": os.getpid(),
                "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            },
            **values,
        }
        try:
            write_json(self._path, document)
        except OutputError:
            return
        self._last, self._written = text, now
