"""A run that is killed at any moment, or finds the disk full, ends like one that was not."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from run_faults import CommandLine, Fault, Faults
from run_world import (
    DIAMETER,
    GENERAL,
    changed,
    leftovers,
    results_of,
    run,
    write_table,
)

from cryopick.errors import OutputError
from cryopick.pipeline.project_verify import verify_project
from cryopick.pipeline.run_parameters import RunParameters

pytest_plugins = ("run_world",)

LITTLE = changed(GENERAL, classes=2, rescale=16)
FULL_SIZE = changed(LITTLE, rescale=0, until="particles")  # stacks larger than all the rest
WHOLE = RunParameters(
    diameter=DIAMETER,
    training_steps=4,
    first_classes=2,
    classes=2,
    rescale=16,
    coarse_pixel_size=10.0,
)


@pytest.fixture
def two_fields(run_folder):
    """The table of two of the fields, without CTF where it is to be estimated."""
    return write_table("two.star", [0, 1])


def undisturbed(table, parameters):
    """What a run makes that nothing happens to; its project is taken away."""
    run(table, parameters=parameters)
    made = results_of("project")
    shutil.rmtree("project")
    return made


def check_faults(table, parameters, patch):
    """Let each run fail at the first change of the disk at which none has failed before."""
    made = undisturbed(table, parameters)
    faults = Faults(patch)
    while True:
        faults.begin()
        try:
            result = run(table, parameters=parameters)
        except Fault:
            continue
        break
    assert result.halted is None
    assert results_of("project") == made
    assert not leftovers("project")
    assert verify_project(Path("project")) == []
    assert {f[1] for f in faults.raised} == {"replace", "mkdir", "symlink", "link", "append"}
    return faults.raised


def test_after_a_fault_at_each_change_of_the_disk_the_results_are_the_same(two_fields, monkeypatch):
    raised = check_faults(two_fields, LITTLE, monkeypatch)

    assert len(raised) > 70
    assert {f[0] for f in raised} == {"", "picks", "particles", "classes", "selection"}


@pytest.mark.long
def test_after_a_fault_at_each_change_of_a_whole_run_the_results_are_the_same(
    run_folder, monkeypatch
):
    table = write_table("none.star", [0, 1, 2], without=("defocus_u", "defocus_v"))

    raised = check_faults(table, WHOLE, monkeypatch)

    assert len(raised) > 200
    assert len({f[0] for f in raised}) == 11


def check_kills(table, words, count):
    """Kill a run at random moments, begun anew when it is finished, and let it finish."""
    chance = random.Random(count)
    command = ["run", table, "--out", "project", "--workers", "1", "--threads", "1", *words]
    with CommandLine(*command) as cryopick:
        assert cryopick.run() == 0, cryopick.said
        made = results_of("project")
        shutil.rmtree("project")
        begun = time.monotonic()
        assert cryopick.run() == 0, cryopick.said
        seconds = time.monotonic() - begun
        assert results_of("project") == made
        shutil.rmtree("project")
        killed = 0
        while killed < count:
            code = cryopick.run(kill_after=chance.uniform(0, seconds / 2))
            assert code in (0, -signal.SIGKILL), cryopick.said
            killed += code != 0
            if code == 0:
                assert results_of("project") == made
                shutil.rmtree("project")
        assert cryopick.run() == 0, cryopick.said
    assert results_of("project") == made
    assert not leftovers("project")
    assert verify_project(Path("project")) == []


_QUICK = ("--diameter", "180", "--picker", "general", "--until", "particles")
_WHOLE = (
    *("--diameter", "180", "--training-steps", "4", "--first-classes", "2", "--classes", "2"),
    *("--rescale", "16", "--coarse-pixel-size", "10"),
)


def test_killed_five_times_a_run_ends_with_the_same_results(two_fields):
    check_kills(two_fields, _QUICK, 5)


@pytest.mark.long
def test_killed_fifty_times_a_whole_run_ends_with_the_same_results(two_fields):
    check_kills(two_fields, _WHOLE, 50)


@pytest.fixture
def small_disk(run_folder):
    """A folder on a disk of 6 MB."""
    folder = Path("small")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    try:
        is_there = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        is_there = False
    if not is_there:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder.resolve())], check=True)


@pytest.mark.parametrize("room", [70_000, 600_000, 1_400_000])
def test_a_run_that_finds_the_disk_full_says_so_and_goes_on_when_there_is_room(
    two_fields, small_disk, room
):
    project = small_disk / "project"
    run(two_fields, parameters=FULL_SIZE, out=project)
    whole = results_of(project)
    shutil.rmtree(project)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - room))

    with pytest.raises(OutputError, match="disk"):
        run(two_fields, parameters=FULL_SIZE, out=project)
    assert not leftovers(project)
    filler.unlink()
    result = run(two_fields, parameters=FULL_SIZE, out=project)

    assert (result.halted, result.refused) == (None, {})
    assert results_of(project) == whole
