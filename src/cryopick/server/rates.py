"""How fast each job goes, from how many items were done when."""

from __future__ import annotations

import time
from collections import deque

__all__ = ["Rates"]

_WINDOW = 900.0  # s
_APART = 10.0  # s between notes of an unchanged number


class Rates:
    """Numbers of items over time, by job."""

    def __init__(self) -> None:
        self._seen: dict[int, deque[tuple[float, int]]] = {}

    def note(self, job: int, n_done: int) -> None:
        """Note how many items are done now."""
        seen = self._seen.setdefault(job, deque(maxlen=1000))
        now = time.monotonic()
        if not seen or seen[-1][1] != n_done or now - seen[-1][0] > _APART:
            seen.append((now, n_done))
        while len(seen) > 2 and now - seen[0][0] > _WINDOW:
            seen.popleft()

    def of(self, job: int) -> tuple[float, float] | None:
        """Give items per second, and the time over which they were counted, s.

        Returns
        -------
        tuple or None
            None where too little was seen.
        """
        seen = self._seen.get(job)
        if not seen or len(seen) < 2:
            return None
        seconds = time.monotonic() - seen[0][0]
        done = seen[-1][1] - seen[0][1]
        return (done / seconds, seconds) if seconds > 1 and done > 0 else None
