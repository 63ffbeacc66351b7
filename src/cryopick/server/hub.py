"""What has happened, for all who listen: events with numbers, of which the last are kept."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Event", "Hub"]

_KEPT = 2000  # events
_HEARTBEAT = 15.0  # s
_SHORTEST = 0.25  # s between two messages


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that has happened."""

    number: int
    name: str
    data: Any

    def text(self, boot: str) -> str:
        """Write it as a server-sent event."""
        data = json.dumps(self.data, allow_nan=False, separators=(",", ":"))
        return f"id: {boot}-{self.number}\nevent: {self.name}\ndata: {data}\n\n"


class Hub:
    """Counts and keeps events, and wakes those who wait for them.

    Events may be added from any thread; listeners live in one event loop.
    """

    def __init__(self) -> None:
        self.boot = secrets.token_hex(4)
        self.n_listeners = 0
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._number = 0
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: asyncio.Event | None = None
        self._is_closed = False

    @property
    def revision(self) -> str:
        """Id of the last event."""
        return f"{self.boot}-{self._number}"

    def open(self) -> None:
        """Bind the hub to the running event loop."""
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()

    def close(self) -> None:
        """End all streams."""
        self._is_closed = True
        self._wake()

    def add(self, name: str, data: Any) -> None:
        """Tell everybody of something, from any thread."""
        with self._lock:
            self._number += 1
            self._events.append(Event(number=self._number, name=name, data=data))
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        """Wake all who wait; those who come later wait for the next."""
        if self._news is not None:
            self._news.set()
            self._news = asyncio.Event()

    def since(self, revision: str) -> list[Event] | None:
        """Give the events after one; None where they are no longer known."""
        boot, _, number = revision.partition("-")
        if boot != self.boot or not number.isdecimal():
            return None
        with self._lock:
            seen = int(number)
            first = self._events[0].number if self._events else self._number + 1
            if seen > self._number or seen < first - 1:
                return None
            return [event for event in self._events if event.number > seen]

    async def listen(self, last: str) -> AsyncIterator[str]:
        """Write the stream of one listener.

        Parameters
        ----------
        last
            Id of the last event that it has seen; empty for none.
        """
        self.n_listeners += 1
        try:
            is_known = self.since(last) is not None
            seen = int(last.partition("-")[2]) if is_known else self._number
            hello = Event(number=seen, name="hello", data={"revision": self.revision})
            yield f"retry: 2000\n{hello.text(self.boot)}"
            if last and not is_known:
                yield self._reset(seen)
            while not self._is_closed:
                waited = self._news
                news = self.since(f"{self.boot}-{seen}")
                if news is None:  # it could not keep up
                    seen = self._number
                    yield self._reset(seen)
                elif news:
                    seen = news[-1].number
                    yield "".join(event.text(self.boot) for event in news)
                    await asyncio.sleep(_SHORTEST)
                elif waited is not None and not await _happens(waited):
                    yield ": still here\n\n"
        finally:
            self.n_listeners -= 1

    def _reset(self, seen: int) -> str:
        data = {"revision": f"{self.boot}-{seen}"}
        return Event(number=seen, name="reset", data=data).text(self.boot)


async def _happens(event: asyncio.Event) -> bool:
    """Wait for an event, but not longer than a heart may stand still."""
    try:
        await asyncio.wait_for(event.wait(), _HEARTBEAT)
    except TimeoutError:
        return False
    return True
