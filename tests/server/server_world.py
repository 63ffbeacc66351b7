"""A project that `cryopick run` made from simulated fields, and a server that runs beside the test.

A plugin of pytest: a test module takes its fixtures with ``pytest_plugins``, and imports the
rest before pytest could rewrite it (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from served_project import copy_project, find_made_project, put_back
from typer.testing import CliRunner

from cryopick.cli.app import app

TOKEN = "a-token-of-the-tests-only"
WRITES = {"X-Cryopick": "1"}
PATIENCE = 300.0  # s; CI has few cores for many processes, each of which loads torch
PROGRAM = [sys.executable, "-c", "from cryopick.cli.app import main; main()"]


class Page:
    """What a browser does with a server: it asks, with the token."""

    def __init__(self, root: str, process: subprocess.Popen[str], folder: Path) -> None:
        self.root, self.process, self.folder = root, process, folder
        self.http = httpx.Client(
            base_url=root,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=PATIENCE,
            trust_env=False,  # a proxy of this machine has no part in it
        )

    def get(self, path: str, **query: Any) -> Any:
        """Answer of a route, which must be JSON and no error."""
        answer = self.http.get(f"/api/{path}", params=query)
        assert answer.status_code == 200, (path, answer.text)
        return answer.json()

    def change(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        """Answer of a route that changes something."""
        answer = self.http.request(method, f"/api/{path}", json=body or {}, headers=WRITES)
        assert answer.status_code == status, (path, answer.text)
        return answer.json()

    def picture(self, path: str, **query: Any) -> httpx.Response:
        """Answer of a route that makes a picture."""
        more = urlencode(query)
        url = path if not more else f"{path}{'&' if '?' in path else '?'}{more}"
        return self.http.get(f"/{url}", headers={"Accept": "image/png"})

    @property
    def fields(self) -> dict[str, str]:
        """Ids of the fields, by name."""
        rows = self.get("fields", columns="name", limit=1000)["rows"]
        return {name: identity for identity, name in rows}


@contextlib.contextmanager
def served(project: Path, *options: str) -> Iterator[Page]:
    """Serve a project in a process of its own."""
    words = ["serve", str(project), "--port", "0", "--token", TOKEN, "--json", *options]
    process = subprocess.Popen(
        [*PROGRAM, *words], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        page = Page(f"http://127.0.0.1:{json.loads(line)['port']}", process, project)
        with page.http:
            yield page
    finally:
        process.terminate()
        with process:  # closes its pipe
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def run_cli(*words: object) -> dict[str, Any]:
    """Run a command in this process, and take what it prints as JSON."""
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def run_command_line(*words: object) -> str:
    """Run a command that prints no JSON in this process, and take what it prints."""
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="session")
def made_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with fields in data/ and the project of a whole run; not to be changed."""
    return find_made_project(tmp_path_factory)


@pytest.fixture
def project(made_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project beside its fields, in the working folder."""
    copy_project(made_project, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Path("project")


@pytest.fixture(scope="module")
def server_of_module(
    made_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Page, Path]]:
    """A server of a copy for the tests of a module, and the folder of the copy."""
    folder = copy_project(made_project, tmp_path_factory.mktemp("served"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "1")
        with served(Path("project")) as opened:
            yield opened, folder


@pytest.fixture
def page(server_of_module: tuple[Page, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """That server, beside its project; what a test did to the project is taken back."""
    opened, folder = server_of_module
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield opened
    put_back(opened.folder)


@pytest.fixture
def own_page(project: Path) -> Iterator[Page]:
    """A server of a copy of its own, for what cannot be taken back."""
    with served(project) as opened:
        yield opened
