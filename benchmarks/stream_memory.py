"""Memory and throughput of ``cryopick class2d stream`` over a long stream in update mode.

Particles of 64 px arrive in tables of 5,000 while it runs: projections of a phantom under a CTF,
in noise, whose 50 classes are given as references. Resident memory of the process is sampled ten
times a second and drawn against the particles that have been assigned, with the slope of a line
from the second round on. Nothing is asserted. Stacks are of half precision: 8 kB a particle.

    python benchmarks/stream_memory.py --work WORK --particles 200000 --threads 2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cryopick.io.mrc import MrcStackWriter, read_mrc_header, read_mrc_images
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles, write_particles
from picker_sets import CRYOPICK

_CLASSES, _SIZE, _PIXEL = 50, 64, 4.0
_TABLE, _SEEN = 5000, 4000  # particles of a table; different ones, each seen in new noise
_SNR = 0.2


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--work", type=Path, required=True, help="Folder for all that is made.")
    options.add_argument("--particles", type=int, default=200_000)
    options.add_argument("--threads", type=int, default=2)
    given = options.parse_args()
    work = given.work.absolute()
    seen = _stack(work / "seen", "4.0", _SEEN)
    references = _references(work)
    tables = work / "tables"
    tables.mkdir(exist_ok=True)
    out = work / "out"
    words = ["class2d", "stream", tables, "--references", references, "--diameter", 180]
    words += ["--batch", 5000, "--threads", given.threads, "--poll", 1, "--out", out, "--json"]
    started = time.monotonic()
    process = subprocess.Popen(
        [CRYOPICK, *map(str, words)], stdout=subprocess.DEVNULL, stderr=sys.stderr
    )
    feeder = threading.Thread(target=_feed, args=(seen, tables, given.particles, out))
    feeder.start()
    samples = _watch(process, out)
    feeder.join()
    wall = time.monotonic() - started
    values = json.loads((out / "stream.json").read_text())
    at_work = sum(r["seconds"] for r in values["rounds"])
    slope, first, last = _slope(samples)
    print(f"particles {values['n_particles']:,}  rounds {values['round']}  wall {wall:.0f} s")
    print(
        f"rounds {at_work:.0f} s: {values['n_particles'] / at_work * 3600:,.0f} particles an hour "
        f"on {given.threads} threads (asked: 1,000,000 on 2)"
    )
    print(
        f"memory {first:.0f} MB after the second round, {last:.0f} MB at the end, "
        f"{1e6 * slope:.0f} bytes a particle"
    )
    _draw(samples, work / "stream_memory.png")
    print(work / "stream_memory.png")


def _stack(folder: Path, snr: str, number: int) -> Path:
    """Simulate particles once; `--snr` is so high that noise may be added again and again."""
    table = folder / "particles.star"
    if not table.exists():
        words = ["simulate", "particles", "--number", number, "--box-size", _SIZE, "--snr", snr]
        words += ["--pixel-size", _PIXEL, "--junk-fraction", 0, "--seed", 5, "--out", folder]
        subprocess.run([CRYOPICK, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    return table


def _references(work: Path) -> Path:
    """Classify the particles once, for averages to begin from."""
    out = work / "classes"
    if not (out / "result.json").exists():
        words = ["class2d", "em", work / "seen" / "particles.star", "--classes", _CLASSES]
        words += ["--diameter", 180, "--out", out]
        subprocess.run([CRYOPICK, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    return out


def _feed(seen: Path, folder: Path, number: int, out: Path) -> None:
    """Write table after table, each with its stack, and then the sign to close."""
    known = read_particles(seen)
    stack = seen.with_suffix(".mrcs")
    images = read_mrc_images(stack, np.arange(read_mrc_header(stack).shape[0]))
    noise = float(images.std()) / _SNR**0.5
    generator = np.random.default_rng(0)
    for first in range(0, number, _TABLE):
        count = min(_TABLE, number - first)
        chosen = generator.integers(0, len(known), count)
        path = folder / f"{first:07d}.mrcs"
        if not path.with_suffix(".star").exists():
            made = images[chosen] + noise * generator.standard_normal(
                (count, _SIZE, _SIZE), np.float32
            )
            with MrcStackWriter(
                path, box_size=_SIZE, pixel_size=_PIXEL, dtype=np.dtype(np.float16)
            ) as writer:
                writer.append(made.astype(np.float16))
            rows = known.rows.iloc[chosen].assign(image=str(path), image_index=range(count))
            table = Particles(rows=rows.reset_index(drop=True), optics=known.optics)
            write_particles(path.with_suffix(".star"), table)
    out.mkdir(exist_ok=True)
    (out / "close").touch()


def _watch(process: subprocess.Popen[bytes], out: Path) -> list[tuple[int, float]]:
    """Sample particles assigned and memory in MB until the process ends."""
    samples = []
    while process.poll() is None:
        try:
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            status: dict[str, Any] = json.loads((out / "stream.json").read_text())
        except (OSError, ValueError):
            status, pages = {}, 0
        if pages:
            samples.append((int(status.get("n_particles", 0)), pages * 4096 / 1e6))
        time.sleep(0.1)
    return samples


def _slope(samples: list[tuple[int, float]]) -> tuple[float, float, float]:
    """Fit a line to the peaks of the rounds, from the second on: MB a particle, and both ends."""
    peaks: dict[int, float] = {}
    for count, memory in samples:
        peaks[count] = max(peaks.get(count, 0.0), memory)
    counts = sorted(peaks)[2:-1]
    values = [peaks[c] for c in counts]
    slope, offset = np.polyfit(counts, values, 1)
    return float(slope), float(slope * counts[0] + offset), float(slope * counts[-1] + offset)


def _draw(samples: list[tuple[int, float]], path: Path) -> None:
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    counts, memory = zip(*samples, strict=True)
    axes.plot(counts, memory, ".", ms=2)
    axes.set_xlabel("Particles assigned")
    axes.set_ylabel("Resident memory (MB)")
    axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
