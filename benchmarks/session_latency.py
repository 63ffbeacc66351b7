"""How long a session takes from a file that is complete to its picks, and to the first classes.

    python benchmarks/session_latency.py WORK [--fields 48] [--every 5] [--side 2048]
    python benchmarks/session_latency.py WORK --known 50000 [--fields 5]

Simulates fields in WORK, writes one every few seconds in pieces into a folder that
``cryopick session start`` watches with the picker that learns, and prints the times. They are of
use on a quiet machine only; the load is printed with them.

With ``--known`` the session knows so many fields before, all done, and the time that is measured
is what its manager computes for one more: CPU time, without that of its workers. The known ones
are links to one field and to its results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.simulate import simulate_micrographs
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)

PROGRAM = "from cryopick.cli.app import main; main()"
PIECES = 16
DIFFERENT = 8  # simulated fields; they come again under other names


def simulate(folder: Path, *, side: int) -> list[Path]:
    if not (folder / "micrographs_ctf.star").exists():
        simulate_micrographs(
            folder,
            specimen=SpecimenParameters(phantoms="barrel"),
            microscope=MicroscopeParameters(),
            parameters=MicrographSimulationParameters(
                number=DIFFERENT, width=side, height=side, pixel_size=2.0, particles=150, seed=1
            ),
            compute=ComputeParameters(),
        )
    return sorted((folder / "micrographs").glob("*.mrc"))


def write_slowly(source: Path, target: Path, *, seconds: float) -> float:
    """Write a file in pieces; give the time at which it was whole, s since 1970."""
    content = source.read_bytes()
    step = len(content) // PIECES + 1
    with target.open("wb") as handle:
        for first in range(0, len(content), step):
            handle.write(content[first : first + step])
            handle.flush()
            time.sleep(seconds / PIECES)
    return target.stat().st_mtime


def picked_at(project: Path, name: str) -> float | None:
    """When the first picks of a field were there, by any picker that picks all fields."""
    found = [
        path.stat().st_mtime
        for step in ("live_picks", "picks")
        for path in project.glob(f"jobs/*_{step}/**/{name}_autopick.star")
    ]
    return min(found, default=None)


def measure(work: Path, *, fields: int, every: float, side: int) -> dict[str, float]:
    sources = simulate(work / "simulated", side=side)
    incoming, project = work / "incoming", work / "project"
    for folder in (incoming, project):
        shutil.rmtree(folder, ignore_errors=True)
    incoming.mkdir()
    words = [
        *("session", "start", str(incoming), "--project", str(project), "--diameter", "180"),
        *("--voltage", "300", "--spherical-aberration", "2.7"),
    ]
    log = (work / "session.txt").open("w")
    began = time.time()
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stdout=log, stderr=log)
    complete: dict[str, float] = {}
    try:
        for number in range(fields):
            due = began + number * every
            time.sleep(max(0.0, due - time.time()))
            name = f"field_{number:04d}"
            source = sources[number % len(sources)]
            complete[name] = write_slowly(source, incoming / f"{name}.mrc", seconds=0.4 * every)
        until = time.time() + 120
        while time.time() < until and not all(picked_at(project, n) for n in complete):
            time.sleep(1)
        load = os.getloadavg()[0]
        rounds = sorted(project.glob("jobs/*_live_classes/rounds/0001/round.json"))
        classes = rounds[0].stat().st_mtime - began if rounds else float("nan")
        status = json.loads((project / "session" / "status.json").read_bytes())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        log.close()
    times = {name: picked_at(project, name) for name in complete}
    latencies = [at - complete[name] for name, at in times.items() if at is not None]
    return {
        "fields": fields,
        "picked": len(latencies),
        "median": statistics.median(latencies),
        "p90": sorted(latencies)[int(0.9 * len(latencies))],
        "worst": max(latencies),
        "first_classes": classes,
        "particles": status["counts"]["particles"],
        "load": load,
    }


def status_of(project: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((project / "session" / "status.json").read_bytes()))
    except FileNotFoundError:
        return {}


def wait_until(project: Path, done: int, process: subprocess.Popen[bytes]) -> None:
    while True:
        steps = status_of(project).get("steps") or [{"done": 0}]
        if all(step["done"] >= done for step in steps):
            return
        if process.poll() is not None:
            raise SystemExit(f"the session has ended; look at {project.parent}/session.txt")
        time.sleep(0.1)


@contextlib.contextmanager
def session(project: Path, incoming: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a session that picks with the general model and cuts particles out."""
    words = [
        *("session", "start", str(incoming), "--project", str(project), "--diameter", "180"),
        *("--voltage", "300", "--spherical-aberration", "2.7", "--picker", "general"),
        *("--until", "particles", "--no-live-classes", "--report", "0"),
    ]
    with (project.parent / "session.txt").open("a") as log:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(120)


def multiply(project: Path, incoming: Path, known: int) -> None:
    """Let a project with one field, done, know and have done as many."""
    first = "field_00000"
    names = [f"field_{number:05d}" for number in range(1, known)]
    lines = [project / "micrographs.star", project / "session" / "arrivals.jsonl"]
    for path in (*lines, *project.glob("jobs/*/ledger.jsonl")):
        made = [line for line in path.read_text().splitlines() if first in line]
        rows = [made[-1].replace(first, name) for name in names]
        path.write_text("\n".join([*path.read_text().rstrip("\n").splitlines(), *rows]) + "\n")
    for path in (*incoming.glob("*.mrc"), *project.glob(f"jobs/**/{first}*")):
        for name in names:
            os.link(path, path.with_name(path.name.replace(first, name)))


def cpu_of(process: subprocess.Popen[bytes]) -> float:
    """CPU time of a process alone, s."""
    words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def measure_known(work: Path, *, known: int, fields: int) -> None:
    source = simulate(work / "simulated_1024", side=1024)[0]
    incoming, project = work / "incoming_known", work / "project_known"
    for folder in (incoming, project):
        shutil.rmtree(folder, ignore_errors=True)
    incoming.mkdir()
    shutil.copyfile(source, incoming / "field_00000.mrc")
    with session(project, incoming) as process:
        wait_until(project, 1, process)
    multiply(project, incoming, known)
    began = time.time()
    with session(project, incoming) as process:
        wait_until(project, known, process)
        time.sleep(5)
        print(f"{known} fields known; {time.time() - began - 5:.0f} s until the session has seen ")
        print(f"that all are done, {cpu_of(process):.1f} s of its manager's CPU")
        before = cpu_of(process)
        time.sleep(20)
        idle = (cpu_of(process) - before) / 20
        print(f"while it waits it takes {idle:.3f} s of CPU a second")
        for number in range(known, known + fields):
            before, then = cpu_of(process), time.time()
            target = incoming / f"field_{number:05d}.mrc"
            shutil.copyfile(source, target.with_suffix(".part"))
            target.with_suffix(".part").rename(target)
            wait_until(project, number + 1, process)
            spent, took = cpu_of(process) - before, time.time() - then
            time.sleep(5)
            after = cpu_of(process) - before - spent
            print(f"one more: particles after {took:.1f} s, {spent:.2f} s of the manager's CPU, ")
            print(f"and {max(0.0, after - 5 * idle):.2f} s in the 5 s after that")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--fields", type=int)
    parser.add_argument("--every", type=float, default=5.0)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--known", type=int, default=0)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if given.known:
        measure_known(given.work.resolve(), known=given.known, fields=given.fields or 5)
        return
    found = measure(given.work, fields=given.fields or 48, every=given.every, side=given.side)
    cores = len(os.sched_getaffinity(0))
    print(f"{found['picked']} of {found['fields']} fields of {given.side} px picked, one every")
    print(f"{given.every:g} s, on {cores} cores with a load of {found['load']:.1f} at the end.")
    print(f"complete file to picks, s: median {found['median']:.1f}, nine of ten within ", end="")
    print(f"{found['p90']:.1f}, worst {found['worst']:.1f}")
    print(f"first classes after {found['first_classes']:.0f} s, {found['particles']} particles")


if __name__ == "__main__":
    main()
