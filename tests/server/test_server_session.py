"""A session beside the page: it is paused, goes on, ends and begins again as the page says."""

from __future__ import annotations

import json
import os
import shlex
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from served_project import ALONE
from server_world import PATIENCE, run_command_line

from cryopick.pipeline.project import Project
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.session_parameters import SessionParameters
from cryopick.pipeline.session_settings import KeptSettings, SessionRequest, write_settings

pytest_plugins = ("server_world",)

WATCHING = SessionParameters(poll=0.2, settle=0.2, live_classes=False, report=0)


@pytest.fixture
def with_session(page):
    """Says that the finished project is one of a session, which is not at work."""
    project = page.folder
    values = Project.open(project, writes=False).run_parameters()
    values.pop("pixel_size", None)
    request = SessionRequest(
        inputs=("data/micrographs_ctf.star",),
        parameters=RunParameters.from_dict(values),
        session=WATCHING,
        compute=ALONE,
    )
    write_settings(project, request, KeptSettings())
    return project


def wait_for(project, holds, *, seconds=PATIENCE):
    path, said = project / "session" / "status.json", {}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        said = json.loads(path.read_bytes()) if path.exists() else {}
        if said and holds(said):
            return said
        time.sleep(0.1)
    raise AssertionError(said)


def is_in(state):
    return lambda said: said["state"] == state


def test_a_session_begins_rests_goes_on_and_ends_as_the_page_says(with_session, page):
    before = page.get("overview")["counts"]
    page.change("POST", "session", {"do": "pause"}, status=409)  # none is at work
    started = page.change("POST", "session", {"do": "start"})
    first = wait_for(with_session, is_in("watching"))
    assert "--diameter=180.0" in shlex.split(started["command"])
    page.change("POST", "session", {"do": "start"}, status=409)  # one is at work

    page.change("POST", "session", {"do": "pause"})
    wait_for(with_session, is_in("paused"))
    shown = page.change("POST", "session", {"do": "resume"})["command"]
    wait_for(with_session, is_in("watching"))
    run_command_line("session", "pause", with_session)
    wait_for(with_session, is_in("paused"))
    run_command_line(*shlex.split(shown)[1:])
    wait_for(with_session, is_in("watching"))

    page.change("POST", "session", {"do": "finish"})
    ended = wait_for(with_session, is_in("stopped"))
    assert ended["is_finished"]
    assert ended["manager"]["pid"] == first["manager"]["pid"]
    assert wait_for_end(page, started["job"]) == "done"
    assert page.get("overview")["counts"] == before  # all of it was there before
    page.change("POST", "session", {"do": "dance"}, status=400)


def wait_for_end(page, job):
    """Wait for the process of a session that was told to end."""
    until = time.monotonic() + PATIENCE
    while (state := page.get(f"jobs/{job}")["state"]) == "running":
        assert time.monotonic() < until
        time.sleep(0.2)
    return state


def test_a_session_that_has_just_stopped_is_waited_for_when_it_is_begun_again(with_session, page):
    """It says so a little before it lets go of the project."""
    status = {"state": "stopped", "manager": {"pid": os.getpid()}}
    with ThreadPoolExecutor(1) as pool:
        with Project.open(with_session):
            page.change("POST", "session", {"do": "start"}, status=409)  # a run, for all it knows
            (with_session / "session" / "status.json").write_text(json.dumps(status))
            answer = pool.submit(page.change, "POST", "session", {"do": "start"})
            time.sleep(1)
            assert not answer.done()
        started = answer.result()
    wait_for(with_session, is_in("watching"))

    page.change("POST", "session", {"do": "stop"})
    assert wait_for_end(page, started["job"]) in ("done", "stopped")


def test_without_a_session_nothing_is_asked_of_one(page):
    page.change("POST", "session", {"do": "pause"}, status=409)
    page.change("POST", "session", {"do": "start"}, status=409)

    assert not (page.folder / "session").exists()


def test_a_session_of_another_folder_is_not_begun_in_this_one(with_session, page):
    path = with_session / "session" / "session.json"
    path.write_text(path.read_text().replace("data/micrographs_ctf.star", "elsewhere/*.mrc"))

    said = page.change("POST", "session", {"do": "start"}, status=409)

    assert "elsewhere" in said["error"]
    assert page.get("jobs")["jobs"][-1]["id"] != "t1"
