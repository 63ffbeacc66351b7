"""Messages are sent together, not too often, and nothing that happens to them matters."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cryopick.pipeline.session_notify import Notifier


class Listener(BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    messages: list[dict]
    status = 200

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).messages.append(json.loads(body))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def listener(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):  # where others are reached through a proxy, this is not
        monkeypatch.setenv(name, "127.0.0.1")
    handler = type("Handler", (Listener,), {"messages": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        handler.url = f"http://127.0.0.1:{server.server_port}/hook"
        yield handler
        server.shutdown()
        thread.join()


def wait_until(holds):
    until = time.monotonic() + 120
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    assert holds()


def test_the_first_is_sent_at_once_and_the_others_together_after_a_pause(listener):
    now = [0.0]
    notifier = Notifier(listener.url, project="p", pause=300, clock=lambda: now[0])
    notifier.tell("started", "It began.")
    notifier.look()
    wait_until(lambda: notifier.sent == 1)
    for number in range(3):
        notifier.tell("broke", f"Step {number} broke.")
        notifier.look()
    now[0] = 299
    notifier.look()
    time.sleep(0.2)
    assert len(listener.messages) == 1
    now[0] = 301
    notifier.look()
    wait_until(lambda: notifier.sent == 2)

    assert [e["kind"] for e in listener.messages[1]["events"]] == ["broke"] * 3
    assert listener.messages[0]["text"] == "cryopick, p: It began."
    assert notifier.to_dict() == {"sent": 2, "failed": 0, "error": ""}


def test_the_rest_is_sent_at_the_end(listener):
    notifier = Notifier(listener.url, project="p", pause=300)
    notifier.tell("started", "It began.")
    notifier.look()
    notifier.tell("stopped", "It ended.")

    notifier.end()

    assert [m["events"][0]["kind"] for m in listener.messages] == ["started", "stopped"]


def test_a_listener_that_refuses_or_is_not_there_is_told_of_and_nothing_else(listener):
    listener.status = 500
    refused = Notifier(listener.url, project="p", pause=0)
    refused.tell("started", "It began.")
    refused.end()
    absent = Notifier("http://127.0.0.1:9/", project="p", pause=0)
    absent.tell("started", "It began.")
    absent.end()

    assert (refused.sent, refused.failed) == (0, 1)
    assert "500" in refused.error
    assert (absent.sent, absent.failed) == (0, 1)
    assert absent.error


def test_without_a_url_nothing_is_kept():
    notifier = Notifier("", project="p", pause=0)
    notifier.tell("started", "It began.")
    notifier.end()

    assert notifier.to_dict() is None
