"""A session that is killed at any moment goes on to the same files."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_faults import CommandLine
from run_world import leftovers
from session_world import beside, bring, by_step, comparable, status_of, wait_for

from cryopick.pipeline.project_verify import verify_project
from cryopick.tables.relion import read_particles

pytest_plugins = ("run_world",)

WORDS = (
    *("incoming", "--project", "project", "--workers", "1", "--threads", "1"),
    *("--diameter", "180", "--voltage", "300", "--spherical-aberration", "2.7"),
    *("--poll", "0.1", "--settle", "0.1", "--report", "0"),
)
PARTICLES = (*WORDS, "--picker", "general", "--until", "particles", "--no-live-classes")
WHOLE = (
    *(*WORDS, "--subset", "2", "--training-steps", "4", "--first-classes", "2", "--classes", "2"),
    *("--rescale", "16", "--coarse-pixel-size", "10", "--first-batch", "50"),
)


def of_all(made):
    return made


def of_steps(made):
    """What is the same whatever numbers jobs get, which those beside have by chance."""
    return by_step(made, "training", "picks", "particles", "classes")


def check_kills(words, count, compared=of_all):
    """Kill a session at random moments until it has been killed so often, and let it finish."""
    chance = random.Random(count)
    with CommandLine("session", "start", *words, "--idle", "0.02") as cryopick:
        assert cryopick.run() == 0, cryopick.said
        made = compared(comparable("project"))
        shutil.rmtree("project")
        begun = time.monotonic()
        assert cryopick.run() == 0, cryopick.said
        seconds = time.monotonic() - begun
        shutil.rmtree("project")
        killed = 0
        while killed < count:
            code = cryopick.run(kill_after=chance.uniform(0, seconds / 2))
            assert code in (0, -signal.SIGKILL), cryopick.said
            killed += code != 0
            if code == 0:
                assert compared(comparable("project")) == made
                shutil.rmtree("project")
        assert cryopick.run() == 0, cryopick.said
    assert compared(comparable("project")) == made


def test_killed_five_times_a_session_makes_the_same_files(run_folder):
    bring(1, 2)

    check_kills(PARTICLES, 5)

    assert not leftovers("project")
    assert verify_project(Path("project")) == []


@pytest.mark.long
def test_killed_fifty_times_a_whole_session_has_every_micrograph_once(run_folder):
    bring(1, 2, 3)

    check_kills(WHOLE, 50, of_steps)

    particles = read_particles(Path("project/particles/particles.star")).rows
    assert not particles.duplicated(["micrograph", "x", "y"]).any()
    assert particles["micrograph"].nunique() == 3
    assert not leftovers("project")
    assert verify_project(Path("project")) == []


def test_the_revision_goes_on_after_a_kill_and_the_processes_beside_end(run_folder):
    bring(1, 2)
    words = (*WORDS, "--picker", "general", "--until", "particles", "--first-batch", "50")
    with beside(*words) as process:
        first = wait_for(lambda status: status["classes"])
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    wait_until_alone()

    with beside(*words):
        second = wait_for(lambda s: s["manager"]["pid"] != first["manager"]["pid"] and s["classes"])

    assert second["revision"] > first["revision"]
    assert second["classes"]["n_particles"] == first["classes"]["n_particles"]
    assert second["classes"]["round"] == first["classes"]["round"]


def wait_until_alone():
    until = time.monotonic() + 240
    while others_here() and time.monotonic() < until:
        time.sleep(0.1)
    assert others_here() == []


def others_here():
    """Processes whose working folder is this one, but for this."""
    here, found = Path.cwd(), []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            is_here = (place / "cwd").readlink() == here
        except OSError:
            continue
        if is_here and int(place.name) != os.getpid():
            found.append((place / "cmdline").read_text().replace("\0", " "))
    return found


def test_a_second_session_is_refused_while_the_first_lives(run_folder):
    bring(1)
    with beside(*PARTICLES):
        wait_for(lambda status: status["counts"]["listed"] == 1)
        with beside(*PARTICLES) as second:
            said, _ = second.communicate(timeout=240)
            assert second.returncode == 1
        assert "must be managed by one run at a time" in said
        assert "Traceback" not in said
        assert status_of("project")["state"] == "watching"


def test_in_the_background_it_works_on_and_is_stopped(run_folder):
    bring(1)
    program = "from cryopick.cli.app import main; main()"
    command = [sys.executable, "-c", program, "session"]
    began = subprocess.run(
        [*command, "start", *PARTICLES, "--background"], capture_output=True, text=True, check=True
    )
    wait_for(lambda status: status["counts"]["extracted"] == 1)
    subprocess.run([*command, "stop", "project"], check=True, capture_output=True)

    assert "works on project" in began.stdout
    assert status_of("project")["state"] == "stopped"
    assert Path("project_session.txt").read_text().startswith("Watching incoming.")
    wait_until_alone()
    failed = subprocess.run(
        [*command, "start", "nothing.star", *PARTICLES[1:], "--background", "--until", "training"],
        capture_output=True,
        text=True,
    )
    assert failed.returncode == 1
    assert "until must name a step of this run" in failed.stderr
