"""The retry ledger: which items have lost their worker, and where.

A worker that dies takes down the item it was at work on, through the item's fault (it needs more
memory than there is, it crashes a library) or the host's (preempted, worn out, without the disks).
Only a second attempt tells. So an item is tried again; one that fails on two hosts, or three times
on one, is put in quarantine; and a host on which many items fail that go through elsewhere is
drained: it gets no more work. Errors that an item reports itself are no business of this ledger.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from cryopick.errors import DataError

__all__ = ["Attempt", "RetryBook", "killed_error"]

_HOSTS = 2  # on which an item fails before it is put in quarantine
_ON_ONE_HOST = 3  # attempts, where there is no second host
_ITEMS_OF_HOST = 5  # that fail on a host before it is drained


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at an item that ended without a result."""

    host: str
    reason: str


class RetryBook:
    """Attempts of the items of one run that ended with the death of a worker.

    Examples
    --------
    >>> book = RetryBook()
    >>> book.note(7, Attempt(host="n1", reason="its worker died"))
    >>> book.is_quarantined(7)
    False
    >>> book.note(7, Attempt(host="n2", reason="its worker died"))
    >>> book.is_quarantined(7)
    True
    """

    def __init__(self) -> None:
        self._attempts: dict[int, list[Attempt]] = {}

    def note(self, item: int, attempt: Attempt) -> None:
        """Add an attempt that failed."""
        self._attempts.setdefault(item, []).append(attempt)

    def attempts(self, item: int) -> tuple[Attempt, ...]:
        """All failed attempts at an item, oldest first."""
        return tuple(self._attempts.get(item, ()))

    def is_quarantined(self, item: int) -> bool:
        """Whether an item has failed often enough to be given up."""
        hosts = [a.host for a in self._attempts.get(item, ())]
        return len(set(hosts)) >= _HOSTS or len(hosts) >= _ON_ONE_HOST

    def failing_hosts(self) -> tuple[str, ...]:
        """Hosts to be drained: many items failed there that did not fail elsewhere."""
        items: dict[str, set[int]] = defaultdict(set)
        for item, attempts in self._attempts.items():
            if len({a.host for a in attempts}) == 1 and not self.is_quarantined(item):
                items[attempts[0].host].add(item)
        return tuple(sorted(h for h, failed in items.items() if len(failed) >= _ITEMS_OF_HOST))


def killed_error(attempts: tuple[Attempt, ...]) -> DataError:
    """Say why an item is in quarantine."""
    told = ", ".join(dict.fromkeys(f"{a.reason} on {a.host}" for a in attempts))
    return DataError(
        "this item",
        must="be worked on without the death of a worker",
        got=f"{len(attempts)} attempts that failed: {told}",
        remedy="Look at the file, or give each worker more memory, and run the same command again",
    )
