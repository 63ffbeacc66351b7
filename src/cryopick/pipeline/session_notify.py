"""Messages to a URL about what happens in a session; nothing that happens to them stops it."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

__all__ = ["Notifier"]

_TIMEOUT = 10.0  # s for a message to be taken
_MOST = 50  # events in one message


class Notifier:
    """Sends what happens to a URL, several events together where they come close.

    A message is a POST of JSON: ``text``, a line for people, which services such as Slack and
    Mattermost show; ``project``; and ``events``, a list of ``kind``, ``sentence`` and ``when``.

    Parameters
    ----------
    url
        http or https; without one nothing is sent.
    project
        Name to send with each message.
    pause
        s between two messages at least.
    clock
        Monotonic, s.
    """

    def __init__(
        self,
        url: str,
        *,
        project: str,
        pause: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url, self._project, self._pause, self._clock = url, project, pause, clock
        self._events: list[dict[str, Any]] = []
        self._next = -1e18
        self._thread: threading.Thread | None = None
        self.sent = self.failed = 0
        self.error = ""

    def tell(self, kind: str, sentence: str) -> None:
        """Take an event to be sent."""
        if self._url:
            self._events.append({"kind": kind, "sentence": sentence, "when": time.time()})
            del self._events[:-_MOST]

    def look(self) -> None:
        """Send what has happened, if that is due; it is done beside."""
        is_busy = self._thread is not None and self._thread.is_alive()
        if not self._events or is_busy or self._clock() < self._next:
            return
        self._next = self._clock() + self._pause
        events, self._events = self._events, []
        self._thread = threading.Thread(target=self._send, args=(events,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Send the rest, and wait a little for it."""
        if self._thread is not None:
            self._thread.join(_TIMEOUT)
        self._next = -1e18
        self.look()
        if self._thread is not None:
            self._thread.join(_TIMEOUT)

    def to_dict(self) -> dict[str, Any] | None:
        """Say how it goes, for the status; None without a URL."""
        if not self._url:
            return None
        return {"sent": self.sent, "failed": self.failed, "error": self.error}

    def _send(self, events: list[dict[str, Any]]) -> None:
        lines = [str(event["sentence"]) for event in events]
        message = {
            "text": f"cryopick, {self._project}: " + " ".join(lines),
            "project": self._project,
            "events": events,
        }
        request = urllib.request.Request(
            self._url,
            data=json.dumps(message).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "cryopick"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                answer.read(1024)
        except Exception as error:  # whatever it is, the session goes on
            self.failed += 1
            self.error = str(error) or type(error).__name__
        else:
            self.sent += 1
            self.error = ""
