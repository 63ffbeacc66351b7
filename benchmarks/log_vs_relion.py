"""CPU time of blob picking: ``cryopick pick log`` beside ``relion_autopick --LoG``.

Both pick the same simulated fields (white noise with dark discs, 1 A/px, float32) in one run, on
one core, with the same options: ``--mode relion``, whose picks are RELION's, and the default
mode. Marginal CPU time is that of 2k fields less that of k fields, divided by k; the rest is
start-up, which with Python is seconds and varies by tenths: k must be large. The least of some
repeats is taken. Nothing is asserted.

    python benchmarks/log_vs_relion.py --sizes 2048,4096 --fields 60 --repeats 3
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cryopick.io.mrc import write_mrc

Command = Callable[[Sequence[str], Path], list[str]]  # of the fields and a folder to write to

_DIAMETERS = ("140", "180")
_DISTINCT = 4  # fields simulated; the rest are links to them


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sizes", default="2048,4096", help="Sides of the fields, px.")
    options.add_argument("--fields", type=int, default=60, help="k; 2k fields are made.")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--modes", default="relion,default")
    given = options.parse_args()
    if shutil.which("relion_autopick") is None:
        sys.exit("relion_autopick is not installed (Debian: apt install relion)")
    print(f"{'field':>6} {'program':<22} {'ms CPU / field':>15} {'start-up, s':>12} {'ratio':>7}")
    for side in map(int, given.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            _simulate(Path(folder), side, 2 * given.fields)
            _compare(Path(folder), side, given.fields, given.repeats, given.modes.split(","))


def _compare(folder: Path, side: int, count: int, repeats: int, modes: Sequence[str]) -> None:
    reference, start = _marginal(_relion, folder, count, repeats)
    print(f"{side:>6} {'relion_autopick':<22} {1e3 * reference:>15.1f} {start:>12.2f} {'1':>7}")
    for mode in modes:

        def command(fields: Sequence[str], out: Path, mode: str = mode) -> list[str]:
            return _cryopick(fields, out, mode)

        ours, start = _marginal(command, folder, count, repeats)
        ratio = f"{reference / ours:.1f}"
        print(f"{side:>6} {'cryopick ' + mode:<22} {1e3 * ours:>15.1f} {start:>12.2f} {ratio:>7}")


def _relion(fields: Sequence[str], out: Path) -> list[str]:
    low, high = _DIAMETERS
    glob = f"{Path(fields[0]).parent}/{len(fields)}_*.mrc"
    command = ["relion_autopick", "--i", glob, "--angpix", "1", "--odir", f"{out}/", "--LoG"]
    return [
        *command,
        *("--LoG_diam_min", low, "--LoG_diam_max", high, "--shrink", "0", "--lowpass", "20"),
    ]


def _cryopick(fields: Sequence[str], out: Path, mode: str) -> list[str]:
    low, high = _DIAMETERS
    command = [str(Path(sys.executable).parent / "cryopick"), "pick", "log", *fields]
    return [
        *command,
        *("--pixel-size", "1", "--min-diameter", low, "--max-diameter", high, "--mode", mode),
        *("--workers", "1", "--threads", "1", "--out", str(out)),
    ]


def _marginal(command: Command, folder: Path, count: int, repeats: int) -> tuple[float, float]:
    """CPU seconds of one more field, and of none; runs of k and of 2k take turns."""
    runs = [
        (_cpu_seconds(command, folder, count), _cpu_seconds(command, folder, 2 * count))
        for _ in range(repeats)
    ]
    few, many = (min(seconds) for seconds in zip(*runs, strict=True))
    return (many - few) / count, 2 * few - many


def _cpu_seconds(command: Command, folder: Path, count: int) -> float:
    fields = sorted(str(f) for f in (folder / "fields").glob(f"{count}_*.mrc"))
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command(fields, out),
        check=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _simulate(folder: Path, side: int, count: int) -> None:
    """Write the fields and, as RELION takes a glob, links named for runs of k and of 2k."""
    radius = 80
    steps = np.arange(-radius, radius + 1) ** 2
    disc = (steps[:, None] + steps[None, :] < radius**2).astype(np.float32)
    for number in range(_DISTINCT):
        random = np.random.default_rng(number)
        field = random.standard_normal((side, side), np.float32)
        for y, x in random.integers(0, side - 2 * radius, (side // 40, 2)):
            field[y : y + len(disc), x : x + len(disc)] -= 0.5 * disc
        write_mrc(folder / f"field{number}.mrc", field, pixel_size=1.0)
    (folder / "fields").mkdir()
    for total in (count // 2, count):
        for number in range(total):
            link = folder / "fields" / f"{total}_{number:03d}.mrc"
            link.symlink_to(folder / f"field{number % _DISTINCT}.mrc")


if __name__ == "__main__":
    main()
