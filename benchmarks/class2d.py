"""Quality, CPU time and memory of ``cryopick class2d em``, beside RELION's Class2D.

    python benchmarks/class2d.py stacks ../shared/data/stacks --only groel_es --seeds 1
    python benchmarks/class2d.py relion ../shared/data/stacks/groel_es   (needs relion, 11 min)
    python benchmarks/class2d.py sets /tmp/class2d_sets        (made by class2d_sets.py)
    python benchmarks/class2d.py invariance ../shared/data/stacks/groel_es
    python benchmarks/class2d.py scale 200000
    python benchmarks/class2d.py product-speed ../shared/data/stacks/groel_es
    python benchmarks/class2d.py apoferritin ../shared/data/apoferritin --out /tmp/apoferritin

A stack is a folder of particles.star, truth.npz and clean.npy, as ``cryopick simulate particles``
writes it. CPU-s are user and system seconds of the whole process, from the start of Python to the
last file, with OMP_NUM_THREADS as --threads unless --openmp says otherwise; MB its peak memory.
Coherence (``cryopick evaluate classes``) is the mean over accepted true particles, "of all" that
over all true particles, "by views" the classes of particles that are above chance, A the median
resolution of these against the noise-free projections.
Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from class2d_runs import SCORES, Run, Table, classify, measured, score
from cryopick.class2d.evaluate import evaluate_classes
from cryopick.pipeline.evaluate_classes import read_class_truth
from cryopick.pipeline.simulate_particles import simulate_stack
from cryopick.simulation.parameters import (
    MicroscopeParameters,
    ParticleSimulationParameters,
    SpecimenParameters,
)
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles, write_particles

STACKS = ("groel_es", "groel_es_noisy", "mixture")
STACK_OPTIONS = {"classes": 20, "diameter": 192, "mask-diameter": 230}
RELION_5 = {  # on another machine: scores and CPU-s of RELION 5.0.1 on these stacks, seed 1
    ("groel_es", "EM"): (0.591, 0.893, None, 18, 255),
    ("groel_es", "gradient"): (0.657, 0.886, None, 20, 1203),
    ("groel_es_noisy", "EM"): (0.358, 0.739, None, 20, 314),
    ("mixture", "EM"): (0.645, 0.945, 0.879, 20, 248),
    ("mixture", "gradient"): (0.711, 0.902, 0.948, 20, 1215),
}
RELION_5_ON = (
    "RELION 5.0.1 with vector code, 2 threads, T = 2, 20 classes, mask 230 A, psi 6 deg, offsets "
    "5/1 px;\nEM: 25 iterations, gradient: 200 mini-batches. Its CPU-s are of another machine; "
    "see `relion` for one run here."
)
RELION_3 = (
    "--tau2_fudge 2 --particle_diameter 230 --oversampling 1 --psi_step 12 --offset_range 5 "
    "--offset_step 2 --norm --scale --ctf --zero_mask --flatten_solvent --center_classes --pad 2 "
    "--random_seed 1 --j 1 --dont_combine_weights_via_disc --pool 3"
)
SETS = {  # of class2d_sets.py: classes, diameter in A
    "asymmetric_64": (20, 180),
    "asymmetric_128": (20, 180),
    "asymmetric_256": (20, 180),
    "rare": (20, 180),
    "rare_view": (20, 180),
    "groel_like": (50, 180),
}
SCALE_IMAGES = 20_000  # distinct ones; a larger table names them again
SCALE_CLASSES = 100

_SCORED = {column: digits for column, (_, digits) in SCORES.items()}
_USED: dict[str, int | None] = {"CPU-s": 1, "wall s": 1, "MB": 0, "iterations": 0}
_WORDS: dict[str, int | None] = {"stack": None, "run": None}


def main() -> None:
    given = _arguments()
    tables: list[Table] = given.function(given)
    if given.is_json:
        print(json.dumps([row for table in tables for row in table.rows], indent=1))


def _arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = options.add_subparsers(required=True)

    def part(name: str, function: Any, place: str | None) -> argparse.ArgumentParser:
        one = parts.add_parser(name, help=function.__doc__.splitlines()[0])
        one.set_defaults(function=function)
        if place:
            one.add_argument("folder", type=Path, help=place)
        one.add_argument("--threads", type=int, default=1)
        one.add_argument("--json", dest="is_json", action="store_true", help="Print JSON.")
        return one

    one = part("stacks", stacks, "Folder of the stacks.")
    one.add_argument("--only", nargs="+", choices=STACKS, default=STACKS)
    one.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    one.add_argument("--openmp", type=int, help="OpenMP threads of the process.")
    one = part("relion", relion, "Folder of one stack.")
    one.add_argument("--iterations", type=int, default=25, help="Of RELION.")
    one = part("sets", sets, "Folder of the sets of class2d_sets.py.")
    one.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--out", type=Path, help="Keep the results here, with their classes.png.")
    part("invariance", invariance, "Folder of one stack.")
    one = part("scale", scale, None)
    one.add_argument("number", type=int, help="Particles.")
    one.add_argument("--memory", type=float, default=3.0, help="GB")
    one.add_argument("--folder", type=Path, help="Keep the simulated images here.")
    one.set_defaults(threads=2)
    one = part("product-speed", product_speed, "Folder of one stack.")
    one.add_argument("--classes", type=int, default=20)
    one = part("apoferritin", apoferritin, "Folder of micrographs.star and coordinates.")
    one.add_argument("--out", type=Path, required=True, help="Folder for particles and classes.")
    return options.parse_args()


def stacks(given: argparse.Namespace) -> list[Table]:
    """Score stacks with known truth, beside what RELION 5 reaches on them."""
    table = Table({**_WORDS, **_SCORED, **_USED}, is_json=given.is_json)
    table.note(f"cryopick class2d em, {_worded(STACK_OPTIONS)}, {given.threads} thread(s).")
    for name in given.only:
        rows = []
        for seed in given.seeds:
            options = {**STACK_OPTIONS, "seed": seed}
            stack = given.folder / name
            row = _scored_run(stack, f"seed {seed}", given.threads, options, openmp=given.openmp)
            table.add(row)
            rows.append(row)
        _beside_relion(table, name, pd.DataFrame(rows)["CPU-s"].mean())
    table.note(RELION_5_ON)
    return [table]


def _beside_relion(table: Table, name: str, cpu: float) -> None:
    for (stack, mode), (coherence, auc, purity, occupied, theirs) in RELION_5.items():
        if stack == name:
            row = {"stack": name, "run": f"RELION 5 {mode}", "coherence": coherence}
            row |= {"junk AUC": auc, "purity": purity, "occupied": occupied, "CPU-s": theirs}
            table.add(row)
            table.note(f"{name}: RELION 5 {mode} took {theirs / cpu:.1f} times the CPU-s")


def relion(given: argparse.Namespace) -> list[Table]:
    """Run RELION (Debian's 3.1.3) and cryopick on one stack, one after the other."""
    if shutil.which("relion_refine") is None:
        sys.exit("relion_refine is not installed (Debian: apt install relion)")
    table = Table({**_WORDS, **_SCORED, **_USED}, is_json=given.is_json)
    table.note(f"relion_refine {RELION_3} --iter {given.iterations} --K {STACK_OPTIONS['classes']}")
    name, n_classes = given.folder.name, STACK_OPTIONS["classes"]
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        for file in ("particles.star", "particles.mrcs"):
            shutil.copy(given.folder / file, copy)
        (copy / "out").mkdir()
        command = ["relion_refine", "--i", "particles.star", "--o", "out/run", *RELION_3.split()]
        command += ["--iter", str(given.iterations), "--K", str(n_classes)]
        used = measured(command, threads=1, folder=copy)
        averages = copy / "out" / f"run_it{given.iterations:03d}_classes.mrcs"
        scores = score(copy / "out", given.folder, n_classes=n_classes, averages=averages)
    row = {"stack": name, "run": "relion_refine", **scores, "iterations": given.iterations}
    table.add({**row, "CPU-s": used.cpu, "wall s": used.wall, "MB": used.memory})
    ours = _scored_run(given.folder, "cryopick", 1, STACK_OPTIONS)
    table.add(ours)
    table.note(f"{name}: relion_refine took {used.cpu / ours['CPU-s']:.1f} times the CPU-s")
    return [table]


def sets(given: argparse.Namespace) -> list[Table]:
    """Score the sets of class2d_sets.py."""
    table = Table({**_WORDS, **_SCORED, **_USED}, is_json=given.is_json)
    for name in given.only:
        if not (given.folder / name / "particles.star").exists():
            sys.exit(f"{given.folder / name} is missing; make it with class2d_sets.py")
        classes, diameter = SETS[name]
        options = {"classes": classes, "diameter": diameter, "seed": given.seed}
        out = given.out / name if given.out else None
        words = f"{classes} classes"
        table.add(_scored_run(given.folder / name, words, given.threads, options, out=out))
    return [table]


def invariance(given: argparse.Namespace) -> list[Table]:
    """Compare results of other threads, tiles, memory and pixel types."""
    from class2d_engine import compare_full_runs, compare_one_iteration

    stack, is_json = given.folder, given.is_json
    with tempfile.TemporaryDirectory() as temporary:
        full, averages = compare_full_runs(stack, Path(temporary), STACK_OPTIONS, is_json=is_json)
        one = compare_one_iteration(stack, averages, STACK_OPTIONS, is_json=is_json)
    return [full, one]


def scale(given: argparse.Namespace) -> list[Table]:
    """Classify very many particles of 64 px into 100 classes, within some memory."""
    columns = {"particles": 0, "distinct": 0, "minutes": 2, "CPU-s / 1000": 2, "MB": 0,
               "iterations": 0, "coherence": 3, "junk AUC": 3, "by views": 0}  # fmt: skip
    table = Table(columns, is_json=given.is_json)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary) / "images"
        distinct = min(given.number, SCALE_IMAGES)
        simulate_stack(
            folder,
            specimen=SpecimenParameters(phantoms="asymmetric", phantom_diameter=180.0),
            microscope=MicroscopeParameters(),
            parameters=ParticleSimulationParameters(
                number=distinct, box_size=64, pixel_size=4.0, snr=0.2, seed=107
            ),
        )
        options: dict[str, object] = {"classes": SCALE_CLASSES, "diameter": 180}
        options["memory"] = given.memory
        table.note(
            f"{given.number} particles of 64 px, {_worded(options)} GB, {given.threads} threads. "
            f"There are {distinct} images; each is named {given.number / distinct:g} times."
        )
        run = classify(
            _named_again(folder, given.number, Path(temporary)),
            Path(temporary) / "out",
            threads=given.threads,
            options=options,
        )
        table.add(_scale_row(run, folder, given.number, distinct))
    return [table]


def _named_again(folder: Path, number: int, out: Path) -> Path:
    """Repeat the rows of a stack, each time with micrographs of other names."""
    table = read_particles(folder / "particles.star")
    rows = table.rows.assign(image=str(folder.resolve() / "particles.mrcs"))
    parts = []
    for start in range(0, number, len(rows)):
        part = rows.iloc[: number - start].copy()
        part["micrograph"] = f"{start}_" + part["micrograph"].astype(str)
        parts.append(part)
    path = out / "particles.star"
    write_particles(path, Particles(rows=pd.concat(parts), optics=table.optics))
    return path


def _scale_row(run: Run, truth: Path, number: int, distinct: int) -> dict[str, Any]:
    """Describe a run; only the first naming of each image is scored."""
    rows = read_particles(Path(run.values["particles"])).rows.iloc[:distinct]
    total = evaluate_classes(rows, read_class_truth(truth), n_classes=SCALE_CLASSES).total
    return {
        "particles": number,
        "distinct": distinct,
        "minutes": run.usage.wall / 60,
        "CPU-s / 1000": 1000 * run.usage.cpu / number,
        "MB": run.usage.memory,
        "iterations": run.values["iteration"],
        "coherence": total.coherence,
        "junk AUC": total.junk_auc,
        "by views": total.n_view_classes,
    }


def product_speed(given: argparse.Namespace) -> list[Table]:
    """Hold the expectation step against the machine's speed of matrix products."""
    from class2d_engine import time_products

    options = {**STACK_OPTIONS, "classes": given.classes}
    return [time_products(given.folder, options, is_json=given.is_json)]


def apoferritin(given: argparse.Namespace) -> list[Table]:
    """Classify real particles cut at known places, without CTF."""
    particles = given.out / "particles"
    command = [str(Path(sys.executable).parent / "cryopick"), "extract"]
    command += [str(given.folder / "micrographs.star"), str(given.folder / "coordinates")]
    command += ["--out", str(particles), "--box-size", "144", "--rescale", "72"]
    measured(command, threads=1)
    options = {"classes": 20, "diameter": 125, "ctf": "none"}
    run = classify(
        particles / "particles.star", given.out / "classes", threads=given.threads, options=options
    )
    columns: dict[str, int | None] = {"class": 0, "particles": 0, "A": 1, "deg": 1, "shift A": 1}
    table = Table(columns, is_json=given.is_json)
    n_junk, used = run.values["n_junk"], run.usage
    table.note(f"{run.values['n_particles']} particles, {n_junk} junk, {_worded(options)}.")
    for one in run.values["classes"]:
        row = {"class": one["number"], "particles": one["n_particles"], "A": one["resolution"]}
        accuracy = {"deg": one["accuracy_rotations"], "shift A": one["accuracy_translations"]}
        table.add({**row, **accuracy})
    table.note(f"{used.cpu:.1f} CPU-s, {used.memory:.0f} MB; look at {run.values['gallery']}")
    return [table]


def _scored_run(
    stack: Path,
    words: str,
    threads: int,
    options: dict[str, Any],
    *,
    out: Path | None = None,
    openmp: int | None = None,
) -> dict[str, Any]:
    """Classify a stack with known truth and score the result."""
    particles = stack / "particles.star"
    with tempfile.TemporaryDirectory() as temporary:
        folder = out or Path(temporary) / "out"
        run = classify(particles, folder, threads=threads, options=options, openmp=openmp)
        averages = Path(run.values["averages"])
        scores = score(folder, stack, n_classes=options["classes"], averages=averages)
    row = {"stack": stack.name, "run": words, **scores, "iterations": run.values["iteration"]}
    return {**row, "CPU-s": run.usage.cpu, "wall s": run.usage.wall, "MB": run.usage.memory}


def _worded(options: dict[str, Any]) -> str:
    return " ".join(f"--{name} {value}" for name, value in options.items())


if __name__ == "__main__":
    main()
