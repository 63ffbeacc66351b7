"""CPU time of extraction: ``cryopick extract`` beside ``relion_preprocess --extract``.

Both cut the same particles from the same fields (float32 noise on a level of counts, 1.5 A/px,
positions over the whole field) in one run, on one core, with the same options: float32 stacks,
``--relion-parity``, whose images are RELION's, and the default mode. Runs alternate, so that a
busy machine slows both. Marginal CPU time (user and system) is that of 2k fields less that of k
fields, divided by k; the rest is start-up. The least of some repeats is taken. The largest
difference of a pixel is printed, too. Nothing is asserted.

    python benchmarks/extraction_vs_relion.py --repeats 3 --folder /dev/shm
    python benchmarks/extraction_vs_relion.py --cases 3710x3838:300:256:64:12
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cryopick.io.mrc import read_mrc, write_mrc

_CASES = (  # height x width : particles : box : rescaled box : k
    "3710x3838:300:256:64:10,4092x5760:500:256:128:6,1240x1200:160:256:64:60,"
    "1240x1200:160:128:64:120"
)
_DISTINCT = 3  # fields simulated; the rest are links to them


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument(
        "--cases", default=_CASES, help="HEIGHTxWIDTH:PARTICLES:BOX:RESCALED:K,..."
    )
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--folder", default=None, help="Where the data go; a temporary folder.")
    given = options.parse_args()
    if shutil.which("relion_preprocess") is None:
        sys.exit("relion_preprocess is not installed (Debian: apt install relion)")
    head = f"{'field : particles : box':<26} {'program':<18} {'ms CPU / field':>15}"
    print(f"{head} {'start-up, s':>12} {'ratio':>7} {'difference':>11}")
    for case in given.cases.split(","):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            _compare(Path(folder), case, given.repeats)


def _compare(folder: Path, case: str, repeats: int) -> None:
    shape, particles, box, size, k = case.split(":")
    height, width = map(int, shape.split("x"))
    count = int(k)
    _simulate(folder, height, width, int(particles), 2 * count)
    programs: dict[str, Callable[[int], list[str]]] = {
        "relion_preprocess": lambda n: _relion(n, box, size),
        "cryopick parity": lambda n: _cryopick(n, box, size, "parity", "--relion-parity"),
        "cryopick default": lambda n: _cryopick(n, box, size, "default"),
    }
    least: dict[tuple[str, int], float] = {}
    for _ in range(repeats):
        for name, command in programs.items():
            for n in (count, 2 * count):
                seconds = _cpu_seconds(command(n), folder)
                least[name, n] = min(seconds, least.get((name, n), seconds))
    reference = 0.0
    for name in programs:
        few, many = least[name, count], least[name, 2 * count]
        each, start = (many - few) / count, 2 * few - many
        reference = reference or each
        row = f"{case:<26} {name:<18} {1e3 * each:>15.1f} {start:>12.2f} {reference / each:>7.1f}"
        print(row + (f" {_difference(folder):>11.1e}" if "parity" in name else ""), flush=True)


def _relion(n: int, box: str, size: str) -> list[str]:
    return [
        *("relion_preprocess", "--i", f"micrographs{n}.star", "--coord_dir", "picks/"),
        *("--coord_suffix", "_autopick.star", "--part_dir", "relion/"),
        *("--part_star", "relion/particles.star", "--extract", "--extract_size", box),
        *("--scale", size, "--norm", "--bg_radius", str(int(0.375 * int(size)))),
        "--invert_contrast",
    ]


def _cryopick(n: int, box: str, size: str, out: str, *extra: str) -> list[str]:
    return [
        *(str(Path(sys.executable).parent / "cryopick"), "extract", f"micrographs{n}.star"),
        *(f"picks{n}.star", "--box-size", box, "--rescale", size, "--out", out),
        *("--workers", "1", "--threads", "1", *extra),
    ]


def _cpu_seconds(command: list[str], folder: Path) -> float:
    for name in ("relion", "parity" if "--relion-parity" in command else "default"):
        if name in command or f"{name}/" in command:
            shutil.rmtree(folder / name, ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command,
        check=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _difference(folder: Path) -> float:
    """Largest difference of a pixel between RELION's stacks and ours."""
    stacks = sorted((folder / "parity").rglob("*.mrcs"))[:_DISTINCT]
    pairs = ((read_mrc(s), read_mrc(folder / "relion" / s.relative_to(folder / "parity")))
             for s in stacks)  # fmt: skip
    return max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)


def _simulate(folder: Path, height: int, width: int, particles: int, count: int) -> None:
    """Write fields, links to them, one coordinate file each, and tables of k and 2k of them."""
    (folder / "fields").mkdir()
    for number in range(_DISTINCT):
        generator = np.random.default_rng(number)
        pixels = 1000 + 30 * generator.standard_normal((height, width), np.float32)
        write_mrc(folder / f"field{number}.mrc", pixels, pixel_size=1.5)
    names = []
    for number in range(count):
        link = folder / "fields" / f"f{number:03d}.mrc"
        link.symlink_to(folder / f"field{number % _DISTINCT}.mrc")
        names.append(f"fields/{link.name}")
        generator = np.random.default_rng(1000 + number)
        xy = generator.uniform(0, (width, height), (particles, 2))
        path = folder / "picks" / "fields" / f"f{number:03d}_autopick.star"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = "".join(f"{x:.2f} {y:.2f} {s:.4f}\n" for (x, y), s in zip(xy, xy[:, 0], strict=True))
        labels = "_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnAutopickFigureOfMerit #3\n"
        path.write_text(f"\ndata_\n\nloop_\n{labels}{rows}\n")
    optics = (
        "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n"
        "_rlnMicrographPixelSize #3\n_rlnMicrographOriginalPixelSize #4\n_rlnVoltage #5\n"
        "_rlnSphericalAberration #6\n_rlnAmplitudeContrast #7\ngroup1 1 1.5 1.5 300 2.7 0.1\n\n"
    )
    for n in (count // 2, count):
        rows = "".join(f"{name} 1\n" for name in names[:n])
        labels = "_rlnMicrographName #1\n_rlnOpticsGroup #2\n"
        table = f"{optics}\n# version 30001\n\ndata_micrographs\n\nloop_\n{labels}{rows}\n"
        (folder / f"micrographs{n}.star").write_text(table)
        labels = "_rlnMicrographName #1\n_rlnMicrographCoordinates #2\n"
        rows = "".join(f"{m} picks/{m[:-4]}_autopick.star\n" for m in names[:n])
        text = f"\n# version 50001\n\ndata_coordinate_files\n\nloop_\n{labels}{rows}\n"
        (folder / f"picks{n}.star").write_text(text)


if __name__ == "__main__":
    main()
