"""A served project and a browser that looks at it, for measurements and pictures."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

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


@dataclass(frozen=True)
class Served:
    """A project that is served."""

    address: str  # with the token
    pid: int


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Serve `folder/project` from that folder, on a free port."""
    token = secrets.token_urlsafe(24)
    program = "from cryopick.cli.app import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", "project", "--port", "0", "--token", token],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        address = next(word for word in process.stdout.readline().split() if "http" in word)
        yield Served(address, process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def opened(served: Served, **options: Any) -> Iterator[Page]:
    """Open the page in Debian's Chromium, with a new profile."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium must be installed (Debian package chromium).")
    given = {"viewport": {"width": 1440, "height": 900}} | options
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=list(CHROMIUM_ARGUMENTS)
        )
        page = browser.new_context(**given).new_page()
        page.set_default_timeout(120_000)
        page.goto(served.address)
        page.get_by_test_id("connection").get_by_text("live").wait_for()
        yield page
        browser.close()
