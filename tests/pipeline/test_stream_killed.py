"""A stream that is killed at any moment ends like one that was not."""

from __future__ import annotations

import random
import shutil
import signal
import time

import pytest
from classification_world import DIAMETER
from run_faults import CommandLine, Fault, Faults
from stream_world import cut, results_of, stream, whole


@pytest.fixture(autouse=True)
def tables(tmp_path, monkeypatch):
    """Three tables in a folder: three rounds."""
    monkeypatch.chdir(tmp_path)
    particles = whole(130)
    for number, (first, stop) in enumerate([(0, 50), (50, 90), (90, 130)]):
        cut(particles, first, stop, f"in/{number}.star")


def rounds(**changes):
    return stream("in", first_batch=60, batch=30, iterations=2, **changes)


def check_faults(monkeypatch, **changes):
    rounds(**changes)
    made = results_of()
    shutil.rmtree("out")
    faults = Faults(monkeypatch)
    while True:
        faults.begin()
        try:
            rounds(**changes)
        except Fault:
            continue
        break
    found = results_of()
    assert set(found) == set(made)
    assert [n for n in made if found[n] != made[n]] == []
    return faults.raised


def test_after_a_fault_at_each_change_of_the_disk_the_results_are_the_same(monkeypatch):
    raised = check_faults(monkeypatch)

    assert len(raised) > 30
    assert {f[1] for f in raised} >= {"replace", "mkdir", "symlink"}


def command():
    words = "class2d stream in --diameter {} --classes 4 --no-junk --iterations 2 --first-batch 60"
    more = "--batch 30 --growth 1.2 --resolution-limit 14 --threads 1 --close --out out"
    return [*words.format(DIAMETER).split(), *more.split()]


def kill_at_random(count, *, seed):
    """Kill it so often, let it end, and compare with what nothing happened to."""
    chance, killed = random.Random(seed), 0
    with CommandLine(*command()) as line:
        assert line.run() == 0, line.said
        made = results_of()
        shutil.rmtree("out")
        begun = time.monotonic()
        assert line.run() == 0, line.said
        seconds = time.monotonic() - begun
        while killed < count:
            shutil.rmtree("out")  # of one that came to its end
            while killed < count and (
                code := line.run(kill_after=chance.uniform(seconds / 10, seconds / 2))
            ):
                assert code == -signal.SIGKILL, line.said
                killed += 1
        assert line.run() == 0, line.said
    found = results_of()
    assert set(found) == set(made)
    assert [n for n in made if found[n] != made[n]] == []
    shutil.rmtree("out")


def test_five_kills_change_nothing():
    kill_at_random(5, seed=1)


@pytest.mark.long
def test_fifty_kills_change_nothing():
    for k in range(10):
        kill_at_random(5, seed=100 + k)
