"""Time reading and writing of particle tables as RELION writes them, beside starfile.

Run ``python benchmarks/star_speed.py``; with ``--rows 1000000`` and ``--starfile`` to choose the
largest table and to time the package starfile on the smallest one. Times are of this process:
CPU seconds, and wall seconds in brackets, the best of three. Threads are held at one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa

from cryopick.io.star import read_star, write_star
from cryopick.tables.relion import read_particles, write_particles

LABELS = (
    "rlnCoordinateX rlnCoordinateY rlnAutopickFigureOfMerit rlnClassNumber rlnAnglePsi "
    "rlnImageName rlnMicrographName rlnOpticsGroup rlnDefocusU rlnDefocusV rlnDefocusAngle "
    "rlnPhaseShift"
)
OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnImagePixelSize #3
_rlnImageSize #4
opticsGroup1            1     1.000000          128
opticsGroup2            2     1.000000          128


# version 30001

data_particles

loop_
"""


def write_relion_like(path: Path, n_rows: int) -> None:
    """Write 12 padded columns: 2 of names, 2 of integers, 8 of numbers with six decimals."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 4000, (2, n_rows))
    psi = rng.uniform(-180, 180, n_rows)
    with path.open("w") as handle:
        handle.write(OPTICS)
        handle.writelines(f"_{label} #{n}\n" for n, label in enumerate(LABELS.split(), 1))
        for i in range(n_rows):
            name = f"Movies/FoilHole_{i // 300:06d}_Data"
            handle.write(
                f"{x[i]:12.6f} {y[i]:12.6f} {x[i] / 4000:12.6f} {i % 50:12d} {psi[i]:12.6f} "
                f"{i % 300 + 1:06d}@Extract/job012/{name}.mrcs MotionCorr/job002/{name}.mrc "
                f"{1 + i // 300 % 2:12d} {10000 + x[i]:12.6f} {10000 + y[i]:12.6f} "
                f"{psi[i] / 2:12.6f} {0:12.6f} \n"
            )
        handle.write("\n")


def best_of_three(work: Callable[[], object]) -> str:
    times = []
    for _ in range(3):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = min(times)
    return f"{cpu:6.2f} ({wall:5.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--starfile", action="store_true", help="time the package starfile too")
    arguments = parser.parse_args()
    pa.set_cpu_count(1)
    sizes = [arguments.rows // 4, arguments.rows // 2, arguments.rows]
    print("     rows      MB  read_star      write_star     read_particles write_particles  (s)")
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "particles.star", Path(folder) / "out.star"
        for n_rows in sizes:
            write_relion_like(path, n_rows)
            blocks, particles = read_star(path), read_particles(path)
            columns = [
                best_of_three(lambda: read_star(path)),
                best_of_three(lambda tables=blocks: write_star(out, tables)),
                best_of_three(lambda: read_particles(path)),
                best_of_three(lambda table=particles: write_particles(out, table)),
            ]
            size = path.stat().st_size / 1e6
            print(f"{n_rows:9,d} {size:7.0f} " + " ".join(columns), flush=True)
        if arguments.starfile:
            import starfile

            write_relion_like(path, sizes[0])
            tables = starfile.read(path)
            reading = best_of_three(lambda: starfile.read(path))
            writing = best_of_three(lambda: starfile.write(tables, out))
            print(f"{sizes[0]:9,d} starfile {reading} {writing}")


if __name__ == "__main__":
    main()
