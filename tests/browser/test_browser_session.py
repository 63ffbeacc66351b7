"""A session is told from the page to rest, to go on, to end and to begin again."""

from __future__ import annotations

import json
import time
from pathlib import Path

from browser_world import SLOW, Served, serving, watched_page
from playwright.sync_api import Browser, expect

from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.project import Project
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.session_parameters import SessionParameters
from cryopick.pipeline.session_settings import KeptSettings, SessionRequest, write_settings

pytest_plugins = ["browser_world"]


def write_session(folder: Path) -> None:
    """Say that the project in a folder is one of a session, which is not at work."""
    values = Project.open(folder / "project", writes=False).run_parameters() or {}
    values.pop("pixel_size", None)
    request = SessionRequest(
        inputs=("data/micrographs_ctf.star",),
        parameters=RunParameters.from_dict(values),
        session=SessionParameters(poll=0.2, settle=0.2, live_classes=False, report=0),
        compute=ComputeParameters(workers=1, threads=1),
    )
    write_settings(folder / "project", request, KeptSettings())


def state_of(served: Served) -> str:
    """State of the session, as its own file says."""
    path = served.project / "session" / "status.json"
    return str(json.loads(path.read_bytes())["state"]) if path.exists() else ""


def test_a_session_is_paused_ended_and_begun_again_with_buttons(
    chromium: Browser, own_project: Path
) -> None:
    write_session(own_project)
    with serving(own_project) as served:
        served.ask("api/session", {"do": "start"})
        until = time.monotonic() + SLOW / 1000
        while state_of(served) != "watching":
            assert time.monotonic() < until
            time.sleep(0.1)
        with watched_page(chromium, served) as (page, _):
            panel = page.get_by_role("region", name="Session")
            state, command = page.get_by_test_id("session-state"), page.get_by_test_id("command")
            acts = [
                ("Pause", "session pause", "paused"),
                ("Resume", "session resume", "watching"),
                ("Stop", "session stop", "stopped"),
                ("Start again", "session start", "watching"),
                ("Finish", "--finish", "finished"),
            ]
            for button, words, after in acts:
                panel.get_by_role("button", name=button).click()
                expect(command).to_contain_text(words)
                expect(state).to_have_text(after, timeout=SLOW)
                assert state_of(served) == {"finished": "stopped"}.get(after, after)
            expect(panel).to_contain_text("data/micrographs_ctf.star")
