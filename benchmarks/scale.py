"""What a session of 50,000 fields costs, from figures measured on this machine.

python benchmarks/scale.py [--fields 50000] [--side 4096] [--per-field 300] [--figures FILE]

Measures on one core the CPU time and the bytes of each step of a field and of a particle, then
computes what a session needs on one machine, on four GPUs and on 200 workers, and how many
workers a shared file system feeds. With --figures what was measured is kept in a file, and taken
from there if it exists. Figures of GPUs are estimates: the time of a core over an assumed factor.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch

from cluster_reading import make_particles
from cryopick.class2d.em import EmClassifier
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.stream_parameters import StreamParameters
from cryopick.execution.parameters import ComputeParameters
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.io.mrc import write_mrc
from cryopick.picking.network_parameters import NetworkParameters
from cryopick.pipeline.class2d_source import open_source
from cryopick.pipeline.ctf_estimate import estimate_ctfs
from cryopick.pipeline.extraction import extract
from cryopick.pipeline.network_picker import make_network_picker
from cryopick.pipeline.picking import pick_micrographs
from cryopick.tables.micrographs import open_micrographs
from cryopick.tables.model import Particles, Picks

_PIXEL, _DIAMETER, _BOX, _SMALL = 1.0, 150.0, 240, 64  # A/px, A, px, px
_CLASSES, _PARTICLES, _PASSES_TIMED = 50, 1000, 3
_MANAGER_MS = 4.8  # CPU of the manager for an item: benchmarks/execution_overhead.py
_GPU_FACTOR = {"ctf": 1, "pick": 20, "extract": 1, "class": 30}  # assumed, over one core
_MACHINE, _GPUS, _CORES_OF_GPU, _WORKERS = 32, 4, 8, 200
_DISKS = (1.0, 5.0, 20.0)  # GB/s of shared file systems
_OPTICS: dict[str, Any] = {
    "pixel_size": _PIXEL,
    "voltage": 300.0,
    "spherical_aberration": 2.7,
    "amplitude_contrast": 0.1,
}
_ALONE = ComputeParameters(workers=1, threads=1)


def measure(given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """CPU (s) and MB read and written of each step, of a field or of a particle's pass."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fields, truth = _write_fields(
            folder, side=given.side, count=given.measured, n=given.per_field
        )
        picker = make_network_picker(None, parameters=NetworkParameters(diameter=_DIAMETER))
        steps: dict[str, Callable[[Path], Any]] = {
            "ctf": lambda out: estimate_ctfs(fields, out, **_OPTICS, compute=_ALONE),
            "pick": lambda out: pick_micrographs(
                fields, out, picker=picker, pixel_size=_PIXEL, compute=_ALONE
            ),
            "extract": lambda out: extract(
                open_micrographs(fields, pixel_size=_PIXEL),
                truth,
                out,
                parameters=ExtractionParameters(box_size=_BOX, rescale=_SMALL, float16=True),
                compute=_ALONE,
            ),
        }
        for step, work in steps.items():
            found[step] = _costs(partial_of(work, folder / step), folder / step, len(fields))
        found["class"] = _class_costs(make_particles(folder, n=_PARTICLES, box=_SMALL))
    return found


def partial_of(work: Callable[[Path], Any], out: Path) -> Callable[[], Any]:
    """Bind the folder."""
    return lambda: work(out)


def _write_fields(folder: Path, *, side: int, count: int, n: int) -> tuple[list[str], Picks]:
    """Write fields of noise with dark discs: what is in them matters little to the time."""
    random = np.random.default_rng(0)
    radius = int(_DIAMETER / _PIXEL / 2)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = 0.7 * (x**2 + y**2 < radius**2)
    names, places = [], []
    for number in range(count):
        field = random.standard_normal((side, side), np.float32)
        for cx, cy in random.integers(_BOX, side - _BOX, (n, 2)):
            places.append((str(folder / f"m{number}.mrc"), float(cx), float(cy)))
            field[cy - radius : cy + radius + 1, cx - radius : cx + radius + 1] -= disc
        path = folder / f"m{number}.mrc"
        write_mrc(path, field, pixel_size=_PIXEL)
        names.append(str(path))
    return names, Picks(rows=pd.DataFrame(places, columns=["micrograph", "x", "y"]))


def _costs(work: Callable[[], Any], out: Path, count: int) -> dict[str, float]:
    """Costs of a field; bytes read are those that were asked for, from a disk or from memory."""
    process = psutil.Process()
    cpu, read = time.process_time(), process.io_counters().read_chars
    work()
    cpu, read = time.process_time() - cpu, process.io_counters().read_chars - read
    written = sum(p.stat().st_size for p in out.rglob("*") if p.is_file() and not p.is_symlink())
    return {"cpu": cpu / count, "read": read / count / 1e6, "written": written / count / 1e6}


def _class_costs(particles: Particles) -> dict[str, float]:
    """Costs of aligning one particle once, when classes have settled."""
    source = open_source(particles, corrects_ctf=True)
    parameters = ClassificationParameters(classes=_CLASSES, diameter=_DIAMETER, iterations=14)
    classifier = EmClassifier(source, parameters, keep_bytes=1 << 30)
    state, seconds = classifier.start(), []
    while not state.is_finished:
        begun = time.process_time()
        state = classifier.advance(state)
        seconds.append(time.process_time() - begun)
    classifier.close()
    return {
        "cpu": float(np.mean(seconds[-_PASSES_TIMED:])) / len(source),
        "read": 2e-6 * _SMALL**2,
        "written": 0.0,
    }


def stream_passes(n: int) -> float:
    """How often a stream of so many particles aligns each, on average: rounds and samples."""
    parameters = StreamParameters(diameter=_DIAMETER)
    seen, passes = 0, 0
    while seen < n:
        stop = min(parameters.next_round(seen, is_anchored=False), n)
        if seen:
            passes += _PASSES_TIMED * min(stop, parameters.training) + (stop - seen) + stop
        else:
            passes += parameters.iterations * stop
        seen = stop
    return passes / n


def tell(costs: dict[str, dict[str, float]], given: argparse.Namespace) -> None:
    """Print the tables of docs/scale.md."""
    n = given.fields * given.per_field
    passes = {"class": stream_passes(n)}
    count = {step: given.fields if step != "class" else n * passes["class"] for step in costs}
    print("| step | CPU | read | written | in the session: CPU-h | TB read | TB written |")
    print("|---|---|---|---|---|---|---|")
    for step, one in costs.items():
        unit = "1e-3 s a pass" if step == "class" else "s a field"
        cpu = one["cpu"] * (1e3 if step == "class" else 1)
        totals = [
            count[step] * one[k] / s for k, s in (("cpu", 3600), ("read", 1e6), ("written", 1e6))
        ]
        print(
            f"| {step} | {cpu:.2f} {unit} | {one['read']:.3g} MB | {one['written']:.3g} MB | "
            f"{totals[0]:.0f} | {totals[1]:.1f} | {totals[2]:.2f} |"
        )
    print(
        f"\n{n / 1e6:.0f} million particles; the stream aligns each {passes['class']:.1f} times.\n"
    )
    _tell_machines(costs, count, given)
    _tell_disks(costs)


def _tell_machines(
    costs: dict[str, dict[str, float]], count: dict[str, float], given: argparse.Namespace
) -> None:
    total = {step: count[step] * costs[step]["cpu"] / 3600 for step in costs}  # core hours
    gpu = {step: total[step] / _GPU_FACTOR[step] for step in ("pick", "class")}
    on_gpus = max(
        sum(gpu.values()) / _GPUS, (total["ctf"] + total["extract"]) / (_GPUS * _CORES_OF_GPU)
    )
    manager = 3 * given.fields * _MANAGER_MS / 3.6e6
    print("| | hours | fields an hour |")
    print("|---|---|---|")
    for name, hours in (
        (f"one machine of {_MACHINE} cores", sum(total.values()) / _MACHINE),
        (f"{_GPUS} GPUs with {_CORES_OF_GPU} cores each (estimate)", on_gpus),
        (f"{_WORKERS} workers of one core", sum(total.values()) / _WORKERS),
    ):
        print(f"| {name} | {hours:.1f} | {given.fields / hours:.0f} |")
    print(f"\nThe manager needs {manager:.2f} h of CPU for {3 * given.fields} items.\n")


def _tell_disks(costs: dict[str, dict[str, float]]) -> None:
    """How many workers on fields read as fast as a shared file system gives."""
    steps = ("ctf", "pick", "extract")
    rate = sum(costs[s]["read"] + costs[s]["written"] for s in steps) / sum(
        costs[s]["cpu"] for s in steps
    )
    print(f"A worker on fields moves {rate:.0f} MB/s.\n")
    print("| shared file system | workers on fields that it feeds |")
    print("|---|---|")
    for disk in _DISKS:
        print(f"| {disk:g} GB/s | {1e3 * disk / rate:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fields", type=int, default=50_000)
    parser.add_argument("--side", type=int, default=4096, help="Of a field, px.")
    parser.add_argument("--per-field", type=int, default=300, help="Particles.")
    parser.add_argument("--measured", type=int, default=3, help="Fields to measure on.")
    parser.add_argument("--figures", type=Path, help="JSON of what was measured.")
    given = parser.parse_args()
    if given.figures and given.figures.exists():
        costs = json.loads(given.figures.read_text())
    else:
        costs = measure(given)
        if given.figures:
            given.figures.write_text(json.dumps(costs, indent=1))
    print(f"Measured on one core of {os.cpu_count()}.\n")
    tell(costs, given)


if __name__ == "__main__":
    main()
