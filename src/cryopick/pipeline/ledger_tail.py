"""Follow the ledger of a job as it grows, reading only what is new."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["LedgerItem", "LedgerTail"]


@dataclass(frozen=True, kw_only=True)
class LedgerItem:
    """What one line says of an item."""

    key: str
    identity: str
    summary: dict[str, Any]
    error: str  # empty where it is done


@dataclass(kw_only=True)
class LedgerTail:
    """The state of the items of a job, kept up to date.

    Attributes
    ----------
    path
        Of the ledger, which need not be there yet.
    is_failed
        Of each item by its key: whether it was refused.
    """

    path: Path
    is_failed: dict[str, bool] = field(default_factory=dict)
    was_replaced: bool = False  # the last look found another file than before
    _inode: int = 0
    _offset: int = 0

    @property
    def n_done(self) -> int:
        """Items that are whole."""
        return len(self.is_failed) - self.n_failed

    @property
    def n_failed(self) -> int:
        """Items that were refused."""
        return sum(self.is_failed.values())

    def read_new(self) -> list[LedgerItem]:
        """Read the whole lines that have come since the last look; all, of another file."""
        self.was_replaced = False
        try:
            status = self.path.stat()
        except OSError:
            status = None
        inode, size = (0, 0) if status is None else (status.st_ino, status.st_size)
        if inode != self._inode or size < self._offset:
            self.was_replaced = bool(self._inode)
            self._inode, self._offset = inode, 0
            self.is_failed.clear()
        if size == self._offset:
            return []
        with self.path.open("rb") as handle:
            handle.seek(self._offset)
            text = handle.read(size - self._offset)
        text = text[: text.rfind(b"\n") + 1]
        self._offset += len(text)
        items = []
        for line in text.splitlines():
            with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
                items.append(_item(json.loads(line)))
        self.is_failed.update((item.key, bool(item.error)) for item in items)
        return items


def _item(values: dict[str, Any]) -> LedgerItem:
    return LedgerItem(
        key=str(values["key"]),
        identity=str(values.get("identity") or ""),
        summary=dict(values.get("summary") or {}),
        error=str(values.get("error") or ""),
    )
