"""What people ask of a session that is at work, with the commands they have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from session_world import (
    LENS,
    OPEN,
    bring,
    meanwhile,
    session,
    status_of,
    until,
    wait_for,
)
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.tables.relion import read_micrographs

pytest_plugins = ("run_world",)

PARTICLES = RunParameters(diameter=180.0, picker="general", rescale=32, until="particles", **LENS)


def ask(*words):
    """Give a command, and return what it says."""
    result = CliRunner().invoke(app, ["session", *words])
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.output


def asking(*words):
    return lambda: ask(*words)


def test_a_pause_begins_nothing_and_takes_micrographs_until_it_ends(run_folder):
    bring(1)
    seen = []

    def look():
        seen.append(wait_for(lambda s: s["counts"]["listed"] == 2 and s["state"] == "paused"))

    with meanwhile(
        until(extracted=1),
        asking("pause", "project"),
        lambda: wait_for(lambda s: s["state"] == "paused"),
        lambda: bring(2),
        look,
        asking("resume", "project"),
        until(extracted=2),
    ):
        session("incoming", parameters=PARTICLES, watching=OPEN)

    assert seen[0]["counts"]["picked"] == 1
    assert seen[0]["counts"]["waiting"] == 1


def test_stop_ends_it_and_start_without_names_goes_on(run_folder):
    bring(1)
    with meanwhile(until(extracted=1), asking("stop", "project", "--no-wait")):
        ended = session("incoming", parameters=PARTICLES, watching=OPEN)
    assert ended.result is None
    assert status_of("project")["state"] == "stopped"
    assert not status_of("project")["is_finished"]
    for path in Path("project/session/requests").glob("*.json"):
        path.unlink()  # that of `meanwhile`
    bring(2)

    words = ["session", "start", "--project", "project", "--idle", "0.03", "--poll", "0.1"]
    words += ["--settle", "0.1", "--diameter", "180", "--picker", "general", "--rescale", "32"]
    words += ["--until", "particles", "--voltage", "300", "--spherical-aberration", "2.7"]
    words += ["--no-live-classes", "--workers", "1", "--threads", "1", "--json"]
    result = CliRunner().invoke(app, words)

    assert result.exit_code == 0, result.output
    assert json.loads(result.output.splitlines()[-1])["counts"]["extracted"] == 2


def test_what_was_refused_is_tried_again_when_somebody_asks(run_folder):
    bring(1, 2)
    shutil.copy("data/micrographs/sim_00003.mrc", "incoming/last.mrc")
    broken = Path("incoming/last.mrc")
    good = broken.read_bytes()
    broken.write_bytes(good[:1024] + b"\xff" * (len(good) - 1024))
    stamp = broken.stat()
    tries = []

    def mend():
        tries.append(status_of("project")["counts"]["failed"])
        broken.write_bytes(good)
        import os

        os.utime(broken, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # nothing tells of the change

    with meanwhile(
        until(failed=1, extracted=2),
        mend,
        asking("retry", "project"),
        lambda: wait_for(lambda s: s["counts"]["failed"] == 0),
        until(extracted=3),
    ):
        session("incoming", parameters=PARTICLES, watching=OPEN)

    assert tries == [1]
    assert status_of("project")["failures"] == []


def test_added_files_are_taken_from_anywhere_and_remembered(run_folder):
    bring(1)
    bring(2, into="elsewhere")

    with meanwhile(
        until(extracted=1), asking("add", "project", "elsewhere/sim_00002.mrc"), until(extracted=2)
    ):
        session("incoming", parameters=PARTICLES, watching=OPEN)
    session("incoming", parameters=PARTICLES)

    rows = read_micrographs(Path("project/micrographs.star")).rows
    assert [str(n) for n in rows["micrograph"]] == [
        "incoming/sim_00001.mrc",
        "elsewhere/sim_00002.mrc",
    ]


def test_limits_count_at_once_and_are_taken_back(run_folder):
    bring(1, 2, 3)
    rejected = []

    def of_status(count):
        return lambda: rejected.append(
            wait_for(lambda s: s["counts"]["rejected"] == count)["counts"]["rejected"]
        )

    with meanwhile(
        until(extracted=3),
        asking("reject", "project", "defocus", "--above", "1"),
        of_status(3),
        asking("accept", "project", "defocus"),
        of_status(0),
        asking("reject", "project", "--micrograph", "incoming/sim_00001.mrc"),
        of_status(1),
    ):
        session("incoming", parameters=PARTICLES, watching=OPEN)

    assert rejected == [3, 0, 1]
    said = ask("accept", "project", "--micrograph", "incoming/sim_00001.mrc")
    assert said == "3 of 3 micrographs are accepted.\n"


def test_the_status_is_told_in_words_and_as_json(run_folder):
    bring(1)
    session("incoming", parameters=PARTICLES)

    words, values = ask("status", "project"), json.loads(ask("status", "project", "--json"))

    assert words.startswith("stopped: Closed.")
    assert values == status_of("project")
    assert values["schema"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("status", "project"), "must be a project with a session"),
        (("stop", "project"), "must be a project with a session"),
        (("reject", "project"), "what to reject must be a quantity or a micrograph"),
        (("start", "a.star", "b", "--project", "p"), "MICROGRAPHS must be one STAR file"),
        (("start", "a", "--project", "p", "--notify", "ftp://x"), "notify must begin with http"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(run_folder, words, said):
    result = CliRunner().invoke(app, ["session", *words])

    assert result.exit_code == 1
    assert said in str(result.exception)


def test_nobody_waits_for_a_session_that_does_not_run(run_folder):
    bring(1)
    session("incoming", parameters=PARTICLES)

    result = CliRunner().invoke(app, ["session", "stop", "project"])

    assert "must have a session that runs" in str(result.exception)
