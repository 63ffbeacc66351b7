"""A served project and a browser for tests of the page, and what each of them must never do.

A plugin of pytest: a test module takes its fixtures with ``pytest_plugins``, and imports the
rest before pytest could rewrite it (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
from served_project import copy_project, find_made_project, port_of_ours, put_back

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page
    from playwright.sync_api import Request as PageRequest

TOKEN = "a-token-for-tests-of-the-page"
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
CHROMIUM_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000  # ms; CI has two cores for several of these
SLOW = 300_000  # ms; a process of its own, which loads torch, on such a machine
_DIRECT = build_opener(ProxyHandler({}))  # a proxy of this machine has no part in it


def find_chromium() -> str:
    """Path of Debian's Chromium; the test is skipped where it or Playwright is absent."""
    pytest.importorskip("playwright", reason="needs playwright (pip install '.[dev]')")
    found = shutil.which("chromium")
    if not found:
        pytest.skip("needs chromium (Debian package chromium)")
    return found


@dataclass
class Served:
    """A project, and the process that serves it."""

    folder: Path  # that holds `project` and the micrographs
    port: int
    process: subprocess.Popen[bytes] | None = None
    options: tuple[str, ...] = ()

    @property
    def project(self) -> Path:
        """Folder of the project."""
        return self.folder / "project"

    @property
    def address(self) -> str:
        """Where the page is, without the token."""
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start the server and wait until it says that it listens."""
        command = [sys.executable, "-c", "from cryopick.cli.app import main; main()"]
        command += ["serve", "project", "--port", str(self.port), "--token", TOKEN, *self.options]
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline().decode()
        assert "http://" in said, said

    def kill(self) -> None:
        """End the server as a crash would."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None

    def ask(self, path: str, body: Any = None, method: str = "") -> Any:
        """Ask the server as a script does."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        data = None
        if body is not None:
            headers |= {"X-Cryopick": "1", "Content-Type": "application/json"}
            data = json.dumps(body).encode()
        request = Request(self.address + path, data=data, headers=headers)
        request.method = method or ("POST" if data else "GET")
        with _DIRECT.open(request, timeout=SLOW / 1000) as answer:
            return json.load(answer)


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Served]:
    """Serve `folder/project` until the end of the block."""
    with port_of_ours() as port:
        served = Served(folder, port, options=options)
        served.start()
        try:
            yield served
        finally:
            served.kill()


@dataclass
class Watch:
    """What a page did that it must not do."""

    address: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    may_lose_server: bool = False
    may_be_refused: bool = False

    def hear(self, message: ConsoleMessage) -> None:
        """Take down errors and warnings of the console."""
        if message.type not in ("error", "warning"):
            return
        is_lost = self.may_lose_server and "net::ERR_" in message.text
        is_refused = self.may_be_refused and "409" in message.text
        if not (is_lost or is_refused):
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def see(self, request: PageRequest) -> None:
        """Take down requests that leave the origin."""
        parts = urlsplit(request.url)
        is_ours = f"{parts.scheme}://{parts.netloc}/" == self.address
        if not is_ours and parts.scheme not in ("data", "blob"):
            self.foreign.append(request.url)


@contextmanager
def watched_page(browser: Browser, served: Served, **options: Any) -> Iterator[tuple[Page, Watch]]:
    """Open the page in a browser of its own; at the end, look what it did."""
    given = {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light"} | options
    context = browser.new_context(**given)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    watch = Watch(served.address)
    page.on("console", watch.hear)
    page.on("pageerror", lambda error: watch.errors.append(str(error)))
    page.on("request", watch.see)
    page.goto(f"{served.address}?token={TOKEN}")
    page.get_by_test_id("connection").get_by_text("live").wait_for()
    page.locator(".project:not([title=''])").wait_for(state="attached")  # knows who may change
    try:
        yield page, watch
    finally:
        context.close()
    assert not watch.errors, "\n".join(watch.errors)
    assert not watch.foreign, "\n".join(watch.foreign)


def go(page: Page, place: str) -> None:
    """Go to a page of the application by its address after `#`, and wait until it is drawn."""
    page.evaluate(
        "place => location.hash === place || new Promise(done => {"
        " addEventListener('hashchange',"
        " () => requestAnimationFrame(() => requestAnimationFrame(done)), { once: true });"
        " location.hash = place; })",
        place,
    )


def settle(page: Page) -> None:
    """Wait until all that a page shows is there and nothing of it moves."""
    from playwright.sync_api import expect

    page.wait_for_timeout(250)
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    page.evaluate(
        "() => Promise.allSettled(document.getAnimations()"
        " .filter(one => Number.isFinite(one.effect?.getComputedTiming().endTime))"
        " .map(one => one.finished))"
    )


def serious_findings(page: Page, *, only: str = "") -> list[str]:
    """Serious and critical findings of axe-core, with the elements; `only` names one rule."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text())
    options: dict[str, Any] = {"resultTypes": ["violations"], "iframes": False}
    options |= {"runOnly": {"type": "rule", "values": [only]}} if only else {}
    found = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{rule['id']}: {node['html'][:160]} {node['any'][0]['message'] if node['any'] else ''}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"][:4]
    ]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A running Chromium, with a new profile.

    Playwright has an event loop in this thread while it runs: no longer than a file needs it.
    """
    path = find_chromium()
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=list(CHROMIUM_ARGUMENTS), timeout=SLOW
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def made_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with simulated fields and the project that a run made of them."""
    find_chromium()
    return find_made_project(tmp_path_factory)


@pytest.fixture
def own_project(made_project: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to change."""
    return copy_project(made_project, tmp_path)


@pytest.fixture(scope="module")
def server_of_module(
    made_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A served copy for the tests of a module."""
    with serving(copy_project(made_project, tmp_path_factory.mktemp("served"))) as server:
        yield server


@pytest.fixture
def served(server_of_module: Served) -> Iterator[Served]:
    """That copy; what a test did to it is taken back."""
    yield server_of_module
    put_back(server_of_module.project)


@pytest.fixture
def shared(server_of_module: Served) -> Served:
    """The same, for tests that only look."""
    return server_of_module
