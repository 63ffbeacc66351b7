"""How well picks are centred, against centres that alignment finds instead of annotations by eye.

The marked particles of the apoferritin fields are extracted with the CTF of each field and aligned
in 2D; position less origin is where each particle truly is, to a fraction of a pixel, whoever
marked it. The annotation itself, `pick network` and the other pickers are measured against that,
and the annotation against itself after alignment by RELION 3.1.3 with --relion. Medians of the
distance, in A; the scale at which two alignments of the same images agree is printed, too.

    python benchmarks/centring.py --data ../shared/data --work WORK
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from cryopick.tables.relion import picks_of_file, read_particles, read_picks

PIXEL_SIZE, DIAMETER, BOX, SMALL = 1.5, 125.0, 160, 80
_NEAR = 0.3  # diameters: the pick of a particle


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(__file__).parents[2] / "shared" / "data"
    named = os.environ.get("CRYOPICK_TEST_DATA", str(beside))
    options.add_argument("--data", type=Path, default=Path(named), help="Folder of real data.")
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--model", type=Path, help="Of the network, instead of the general one.")
    options.add_argument("--relion", action="store_true", help="Align with relion_refine, too.")
    given = options.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    source = given.data / "apoferritin"
    prepare(source, given.work)
    ours = centres(last_data(given.work / "classes"))
    if given.relion:
        relion(given.work)
        other = centres(last_data(given.work / "relion"))
        tell("aligned here and by RELION", paired(ours, other))
    marks = pd.concat(
        picks_of_file(path, f"{path.stem}.mrc")
        for path in sorted((source / "coordinates").glob("*.star"))
    )
    tell("annotation", nearest(ours, marks))
    for picker in ("network", "blob", "log"):
        tell(picker, nearest(ours, picks(picker, given.work, given.model)))


def prepare(source: Path, work: Path) -> None:
    """Estimate the CTF, extract what is marked and align it."""
    run("ctf", "estimate", source / "micrographs.star", "--out", work / "ctf")
    run("extract", work / "ctf" / "micrographs_ctf.star", source / "coordinates",
        "--box-size", BOX, "--rescale", SMALL, "--out", work / "extract")  # fmt: skip
    run("class2d", "em", work / "extract" / "particles.star", "--classes", 6,
        "--diameter", DIAMETER, "--out", work / "classes")  # fmt: skip


def picks(picker: str, work: Path, model: Path | None) -> pd.DataFrame:
    """Pick the fields, by one picker."""
    sizes = {"network": ["--diameter", DIAMETER]}
    limits = sizes.get(picker, ["--min-diameter", 110, "--max-diameter", 140])
    chosen = ["--model", model] if model is not None and picker == "network" else []
    out = work / f"pick_{picker}"
    run("pick", picker, work / "ctf" / "micrographs_ctf.star", *limits, *chosen, "--overwrite",
        "--out", out)  # fmt: skip
    rows = read_picks(out / "autopick.star").rows
    return rows.assign(micrograph=[Path(m).name for m in rows["micrograph"]])


def relion(work: Path) -> None:
    """Align the same particles with RELION."""
    (work / "relion").mkdir(exist_ok=True)
    if (work / "relion" / "run_it025_data.star").exists():
        return
    command = (
        "relion_refine --i extract/particles.star --o relion/run --K 6 --tau2_fudge 2 --iter 25 "
        f"--particle_diameter {1.2 * DIAMETER} --ctf --zero_mask --flatten_solvent --norm --scale "
        "--psi_step 12 --offset_range 6 --offset_step 2 --oversampling 1 --j 2 --pool 30 "
        "--dont_check_norm --random_seed 1"
    )
    subprocess.run(command.split(), cwd=work, check=True, stdout=subprocess.DEVNULL)


def last_data(folder: Path) -> Path:
    """Find the particles after the last iteration of a run."""
    return max(folder.glob("run_it*_data.star"))


def centres(path: Path) -> pd.DataFrame:
    """Where alignment puts each particle, px of the micrographs."""
    rows = read_particles(path).rows
    return pd.DataFrame(
        {
            "micrograph": [Path(m).name for m in rows["micrograph"]],
            "x": rows["x"] - rows["shift_x"] / PIXEL_SIZE,
            "y": rows["y"] - rows["shift_y"] / PIXEL_SIZE,
        }
    )


def paired(one: pd.DataFrame, other: pd.DataFrame) -> np.ndarray:
    """Distances of rows of the same number, A, without the mean shift of the classes."""
    gap = one[["x", "y"]].to_numpy() - other[["x", "y"]].to_numpy()
    return np.asarray(np.hypot(*(gap - np.median(gap, axis=0)).T) * PIXEL_SIZE)


def nearest(known: pd.DataFrame, found: pd.DataFrame) -> np.ndarray:
    """Distance of each known centre from the nearest pick, A, where there is one."""
    distances = []
    for name, rows in known.groupby("micrograph"):
        mine = found[found["micrograph"] == name]
        if len(mine):
            gap, _ = cKDTree(mine[["x", "y"]]).query(rows[["x", "y"]])
            distances.append(gap * PIXEL_SIZE)
    gaps = np.concatenate(distances)
    return np.asarray(gaps[gaps < _NEAR * DIAMETER])


def tell(name: str, gaps: np.ndarray) -> None:
    middle, most = np.quantile(gaps, [0.5, 0.9])
    print(
        f"{name:28s} median {middle:5.2f} A ({middle / PIXEL_SIZE:4.2f} px), "
        f"90 % within {most:5.2f} A, n = {len(gaps)}",
        flush=True,
    )


def run(*words: object) -> None:
    command = [str(Path(sys.executable).parent / "cryopick"), *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
