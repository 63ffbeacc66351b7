"""Killed, interrupted or shared between workers, a command gives the same results."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_world import ALONE, BOX, DIAMETERS, RUN, extract, leftovers, pick, write_table

from cryopick.execution.local import LocalExecutor
from cryopick.io.mrc import read_mrc

pytest_plugins = ("command_world",)


def json_commands():
    simulate = ("--number", "1", *ALONE)
    return [
        ["simulate", "micrographs", "--out", "s1", "--width", "96", "--height", "80", *simulate],
        ["simulate", "particles", "--out", "s2", "--box-size", "76", *simulate],
        ["pick", "log", "mics.star", "--out", "p2", *DIAMETERS, *ALONE],
        ["extract", "mics.star", "pick", "--out", "e2", *BOX, *ALONE],
        ["select", "subset", "mics.star", "--n-subsets", "2", "--out", "s3"],
        ["convert", "pick/autopick.star", "topaz.txt", "--to", "topaz"],
        ["show", "fields/f0.mrc", "--out", "x.png"],
        ["evaluate", "picks", "pick", "--truth", "pick", "--diameter", "150"],
        ["run", "mics.star", "--out", "project", *RUN],
    ]


@pytest.mark.parametrize("words", json_commands(), ids=lambda w: "-".join(w[:2]))
def test_json_is_all_there_is_on_stdout(project, cryopick, words):
    pick(cryopick)

    ended = cryopick(*words, "--json")

    assert ended.code == 0, ended
    assert isinstance(json.loads(ended.out), dict)
    assert "NaN" not in ended.out
    assert ended.err == ""


def stars_and_stacks(folder):
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".star":
            found[str(path.relative_to(folder))] = path.read_bytes()
        elif path.suffix == ".mrcs":
            found[str(path.relative_to(folder))] = read_mrc(path).tobytes()
    return found


@pytest.mark.parametrize("words", [["--workers", "2"], ["--threads", "2"]])
def test_workers_and_threads_do_not_change_results(project, cryopick, words):
    pick(cryopick, out="one/pick")
    extract(cryopick, coordinates="one/pick/autopick.star", out="one/extract")
    one = stars_and_stacks(Path("one"))
    Path("one").rename("kept")

    assert pick(cryopick, *words, out="one/pick").code == 0
    ended = extract(cryopick, *words, coordinates="one/pick/autopick.star", out="one/extract")

    assert ended.code == 0
    assert stars_and_stacks(Path("one")) == one
    assert len(one) >= 11


KILLER = """
import json, os, sys
import torch
torch.set_num_threads(1)
import cryopick.pipeline.extraction, cryopick.pipeline.picking, cryopick.pipeline.run
from cryopick.cli import app

def run_until(folder, words, count):
    os.chdir(folder)
    real, left = os.fsync, [count]
    def fsync(handle):
        real(handle)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), 9)
    os.fsync = fsync
    sys.argv = ["cryopick", *words]
    app.main()

for folder, words, count in json.load(sys.stdin):
    child = os.fork()
    if not child:
        try:
            run_until(folder, words, count)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, flush=True)
"""


def killed_at(cases):
    """Run commands, each killed when it has flushed so many files; returns the signals."""
    result = subprocess.run(
        [sys.executable, "-c", KILLER],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return [int(word) for word in result.stdout.split() if word.isdigit()]


WORDS = {
    "pick": ["pick", "log", "mics.star", "--out", "out", "--json", *DIAMETERS, *ALONE],
    "extract": ["extract", "mics.star", "p", "--out", "out", "--json", *BOX, *ALONE],
    "run": ["run", "mics.star", "--out", "out", "--json", *RUN],
}
POINTS = {"pick": (2, 4, 7, 12), "extract": (2, 3, 6), "run": (13, 22)}


def test_a_kill_at_any_moment_costs_nothing(project, cryopick, monkeypatch):
    pick(cryopick, out="p")
    cases = []
    for name, points in POINTS.items():
        for point in (0, *points):
            folder = project / f"{name}{point}"
            folder.mkdir()
            for linked in ("fields", "mics.star", "p"):
                (folder / linked).symlink_to(project / linked)
            if point:
                cases.append((str(folder), WORDS[name], point))

    assert killed_at(cases) == [signal.SIGKILL] * len(cases)

    for name, points in POINTS.items():
        results = {}
        for point in (0, *points):  # 0 was not begun
            monkeypatch.chdir(project / f"{name}{point}")
            ended = cryopick(*WORDS[name])
            assert (ended.code, ended.err) == (0, "")
            results[point] = stars_and_stacks(Path("out"))
            assert results[point] == results[0], (name, point)
            assert not leftovers(Path("out"))
            for ledger in Path("out").rglob("ledger.jsonl"):
                keys = [json.loads(line)["key"] for line in ledger.read_text().splitlines()]
                assert len(set(keys)) == len(keys)


N_MANY = 60
_WITH_INTERRUPTS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from cryopick.cli.app import main
main()
"""


@pytest.fixture
def going(project):
    """A run of many micrographs by two workers that has done some of them."""
    rows = []
    for number in range(N_MANY):
        Path(f"m{number:03}.mrc").symlink_to(project / f"fields/f{number % 3}.mrc")
        rows.append(f"m{number:03}.mrc 1")
    write_table(project / "many.star", rows)
    words = ["pick", "log", "many.star", "--out", "pick", *DIAMETERS, "--workers", "2"]
    with subprocess.Popen(
        [sys.executable, "-c", _WITH_INTERRUPTS, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        ledger, end = Path("pick/ledger.jsonl"), time.monotonic() + 300
        while not (ledger.exists() and ledger.stat().st_size) and time.monotonic() < end:
            time.sleep(0.005)
        yield process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def members(group):
    """Living processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state != "Z":
                found.append(int(stat.parent.name))
    return found


def test_the_interrupt_key_stops_a_run_that_goes_on_later(going, cryopick):
    os.killpg(going.pid, signal.SIGINT)  # as a terminal does: to parent and workers
    out, err = going.communicate(timeout=300)

    assert (going.returncode, out) == (130, "")
    assert err == "Stopped. Finished work is kept; the same command goes on from here.\n"
    assert json.loads(Path("pick/job.json").read_text())["state"] == "stopped"
    assert not leftovers()
    done = Path("pick/ledger.jsonl").read_text().count("\n")
    assert 0 < done < N_MANY
    before = {p: p.stat().st_mtime_ns for p in Path("pick").glob("*_autopick.star")}

    ended = pick(cryopick, "--json", micrographs="many.star")

    assert (ended.code, json.loads(ended.out)["n_micrographs"]) == (0, N_MANY)
    kept = [p for p in before if p.stat().st_mtime_ns == before[p]]
    assert len(kept) >= done


def interrupt():
    """As the key does, in a worker that still loads its modules."""
    os.kill(os.getpid(), signal.SIGINT)
    return abs


class InterruptedAtStart:
    """A function for workers, which interrupts one as soon as it is read there."""

    def __reduce__(self):
        return interrupt, ()


def test_the_interrupt_key_does_not_reach_a_worker_that_still_starts():
    done = LocalExecutor(workers=1, threads=1).map_unordered(InterruptedAtStart(), [-3, -4])

    assert sorted(outcome.value for outcome in done) == [3, 4]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_killed_run_leaves_no_workers_behind_and_goes_on_later(going, cryopick):
    assert len(members(going.pid)) > 2

    going.kill()
    going.wait()

    end = time.monotonic() + 120
    while members(going.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert members(going.pid) == []
    assert Path("pick/ledger.jsonl").read_bytes().count(b"\n") < N_MANY
    ended = pick(cryopick, "--json", micrographs="many.star")
    assert (ended.code, json.loads(ended.out)["n_failed"]) == (0, 0)
    assert len(list(Path("pick").glob("m*_autopick.star"))) == N_MANY
    assert not leftovers()
