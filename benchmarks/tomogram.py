"""Picking in simulated tomograms: quality of every workflow, CPU time and memory.

Quality: one-to-one F1 within 100 A, best F1 over thresholds, localisation error, CPU time without
that of imports; mean and standard deviation over seeds. Workflows are a plain DoG (this benchmark's
own, as a peer), the pickers of ``cryopick tomo pick``, and each of PickET's six (three kinds of
features, two clusterers) through ``cryopick tomo segment`` with PickET's YAML file. Beside them
PickET itself stands with what it reached on sets of the same recipe (isblab/pickET 152f9ff,
watershed at 15 voxels), which is quoted and not run here.

    python benchmarks/tomogram.py quality --work build/tomogram --seeds 5
    python benchmarks/tomogram.py cost --work build/tomogram
    python benchmarks/tomogram.py large --work build/tomogram
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.io.volumes import VolumeWriter, open_volume
from cryopick.pipeline.evaluate_tomograms import TomogramTruth
from cryopick.tables.tomogram_formats import read_tomogram_picks
from cryopick.tables.tomograms import TomogramPicks
from cryopick.tomogram.evaluate import TomogramScores, evaluate_tomogram_picks
from tomogram_sets import CRYOPICK, SETS, Cost, make_set, plain_dog, run_command

_DISTANCE = 100.0  # A, of a match
_MODES = ("intensities", "gabor", "ffts")
_METHODS = ("kmeans", "gmm")
_PICKET = {  # F1 of PickET itself, quoted: watershed seeds 15 voxels apart
    "t02": {"gabor-kmeans": 0.983, "gabor-gmm": 0.992},
    "h005": {"gabor-kmeans": 0.800, "gabor-gmm": 0.852},
}
_FEATURES = {
    "ffts": "mode: ffts, n_fft_subsets: 64",
    "gabor": "mode: gabor, num_sinusoids: 10, num_neighborhoods_subsets: 5, "
    "num_parallel_filters: 8, num_output_features: 64",
    "intensities": "mode: intensities",
}
_COLUMNS = ["picks", "precision", "recall", "F1", "best F1", "error, voxels", "CPU-s"]
_BARE = ("--no-report", "--format", "relion5")  # picks alone are timed
_LARGE = (512, 1024, 1024)


@dataclass(frozen=True)
class Case:
    """One simulated tomogram with its truth."""

    name: str
    seed: int
    truth: TomogramTruth
    work: Path  # for what is made from it

    @property
    def tomogram(self) -> Path:
        """The only volume."""
        return next(iter(self.truth.volumes.values()))


@dataclass(frozen=True)
class Result:
    """What a workflow found in a case."""

    picks: TomogramPicks
    cpu: float  # s, without imports


Workflow = Callable[[Case], Result]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("part", choices=("quality", "cost", "large"))
    options.add_argument("--work", type=Path, default=Path("build/tomogram"))
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--sets", default=",".join(SETS), help="Of t02 and h005.")
    options.add_argument("--workflows", default="", help="Some of those listed, with commas.")
    given = options.parse_args()
    if given.part == "quality":
        _quality(given.work, given.seeds, given.sets.split(","), given.workflows)
    elif given.part == "cost":
        _cost(given.work)
    else:
        _large(given.work)


def workflows() -> dict[str, Workflow]:
    """All that is compared, by name."""
    found: dict[str, Workflow] = {"plain DoG (peer)": _plain}
    found["tomo pick (default)"] = functools.partial(_pick, name="default", words=())
    for method in ("dog", "threshold"):
        words = ("--method", method)
        found[f"tomo pick {method}"] = functools.partial(_pick, name=method, words=words)
    for mode in _MODES:
        for method in _METHODS:
            found[f"{mode}-{method}"] = functools.partial(_seed_workflow, mode=mode, method=method)
    return found


def _plain(case: Case) -> Result:
    """Pick with the peer, in this process."""
    start = time.process_time()
    picks = plain_dog(case.truth)
    return Result(picks, time.process_time() - start)


def _pick(case: Case, *, name: str, words: tuple[str, ...]) -> Result:
    """Run `cryopick tomo pick` on the volume."""
    out = _fresh(case.work / name)
    used = run_command([CRYOPICK, "tomo", "pick", case.tomogram, "--out", out, *_BARE, *words])
    return Result(_read(out, case), used.cpu - _cpu_of_imports())


def _seed_workflow(case: Case, *, mode: str, method: str) -> Result:
    """Run one of PickET's workflows: segmentation from its YAML file, then instances."""
    out = _fresh(case.work / f"{mode}-{method}")
    parameters = write_parameters(out, case.tomogram, (mode,), (method,))
    segment = run_command([CRYOPICK, "tomo", "segment", parameters])
    segmented = out / "segmented" / "set"
    words = [case.tomogram, "--segmentation", segmented, "--out", out / "picks", *_BARE]
    pick = run_command([CRYOPICK, "tomo", "pick", "--method", "segment", *words])
    return Result(_read(out / "picks", case), segment.cpu + pick.cpu - 2 * _cpu_of_imports())


@functools.cache
def _cpu_of_imports() -> float:
    """CPU time of the imports of a command, s."""
    return _imports().cpu


def _imports() -> Cost:
    modules = "import cryopick.pipeline.tomo_segment, cryopick.tomogram.segment, torch, scipy"
    return run_command([sys.executable, "-c", modules])


def write_parameters(
    folder: Path, tomogram: Path, modes: tuple[str, ...], methods: tuple[str, ...]
) -> Path:
    """Write a parameter file as PickET's users do."""
    folder.mkdir(parents=True, exist_ok=True)
    features = ",\n".join(f"    {{{_FEATURES[mode]}}}" for mode in modes)
    path = folder / "s1_params.yaml"
    path.write_text(
        f"dataset_name: set\n\ninputs: [\n    {{tomogram: {tomogram.resolve()}}}\n]\n\n"
        "neighborhood_size: 5\nmax_num_neighborhoods_for_fitting: 100_000_000\n\n"
        f"feature_extraction_params: [\n{features}\n]\n\n"
        f"clustering_methods: [{', '.join(methods)}]\n\n"
        f"output_dir: {(folder / 'segmented').resolve()}\n"
    )
    return path


def _read(folder: Path, case: Case) -> TomogramPicks:
    """Read the picks of a job: its only STAR file of them."""
    path = folder / "particles.star"
    return read_tomogram_picks(path, tomograms=case.truth.picks.tomograms)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _quality(work: Path, seeds: int, sets: list[str], chosen: str) -> None:
    wanted = [w.strip() for w in chosen.split(",") if w.strip()]
    compared = {n: w for n, w in workflows().items() if not wanted or n in wanted}
    if not compared:
        sys.exit(f"Workflows are: {', '.join(workflows())}")
    for name in sets:
        cases = []
        for seed in range(1, seeds + 1):
            truth, _ = make_set(name, seed, work)
            cases.append(Case(name, seed, truth, work / "runs" / f"{name}_{seed}"))
        print(f"\n{name}, {seeds} seeds: mean (standard deviation) within {_DISTANCE:g} A")
        print(_row("workflow", _COLUMNS))
        for label, workflow in compared.items():
            results = [workflow(case) for case in cases]
            scores = [
                evaluate_tomogram_picks(found.picks, case.truth.picks, distance=_DISTANCE)
                for found, case in zip(results, cases, strict=True)
            ]
            cpu = sum(found.cpu for found in results) / len(results)
            print(_row(label, [*_columns(scores), f"{cpu:.1f}"]), flush=True)
        for label, f1 in _PICKET[name].items():
            print(_row(f"PickET {label}, quoted", ["", "", "", f"{f1:.3f}", "", "", ""]))


def _columns(scores: list[TomogramScores]) -> list[str]:
    rows = pd.DataFrame([s.to_dict() for s in scores])
    names = ("precision", "recall", "f1", "best_f1", "localisation_error_voxels")
    shares = [f"{rows[n].mean():.3f} ({rows[n].std(ddof=0):.3f})" for n in names]
    return [f"{rows['n_picks'].mean():.0f}", *shares]


def _row(label: str, columns: list[str]) -> str:
    return f"{label:28s}" + "".join(f"{c:>15s}" for c in columns)


def _cost(work: Path) -> None:
    """CPU time and memory of each command on one volume, the cost of imports apart."""
    truth, _ = make_set("t02", 1, work)
    case = Case("t02", 1, truth, work / "runs" / "cost")
    imports = _imports()
    print(f"{'imports alone':34s}{_told(imports)}")
    for mode in _MODES:
        for methods in (("kmeans",), ("gmm",), _METHODS):
            label = f"segment {mode}, {' and '.join(methods)}"
            out = _fresh(case.work / "segment")
            parameters = write_parameters(out, case.tomogram, (mode,), methods)
            used = run_command([CRYOPICK, "tomo", "segment", parameters])
            print(f"{label:34s}{_told(used)}, {used.cpu - imports.cpu:.1f} without imports")
    for method in ("matched", "dog", "threshold"):
        out = _fresh(case.work / method)
        words = ["pick", case.tomogram, "--method", method, "--out", out, *_BARE]
        used = run_command([CRYOPICK, "tomo", *words])
        print(f"{'pick ' + method:34s}{_told(used)}, {used.cpu - imports.cpu:.1f} without imports")
    print("PickET itself, quoted: 56 CPU-s for gabor with both clusterers, 3.94 GiB")


def _large(work: Path) -> None:
    """Segment and pick a tomogram of 2 GiB made of copies of a small one."""
    truth, _ = make_set("t02", 1, work)
    small = open_volume(next(iter(truth.volumes.values())))
    voxels = small.read((0, 0, 0), small.shape)
    path = work / "large" / "large.mrc"
    if not path.exists():
        plane = np.tile(
            voxels, (1, *(n // m for n, m in zip(_LARGE[1:], small.shape[1:], strict=True)))
        )
        with VolumeWriter(path, _LARGE, "float32", small.voxel_size) as writer:
            for first in range(0, _LARGE[0], len(plane)):
                writer.write((first, 0, 0), plane)
    for method in _METHODS:
        out = _fresh(work / "large" / method)
        parameters = write_parameters(out, path, ("gabor",), (method,))
        used = run_command([CRYOPICK, "tomo", "segment", parameters])
        print(f"{'segment 2 GiB, gabor, ' + method:34s}{_told(used)}", flush=True)
        shutil.rmtree(out)
    out = _fresh(work / "large" / "picks")
    used = run_command([CRYOPICK, "tomo", "pick", path, "--out", out])
    n_picks = sum(1 for _ in (out / "particles.csv").open()) - 1
    n_truth = len(truth.picks.rows) * int(np.prod(_LARGE)) // voxels.size
    print(f"{'pick 2 GiB, default':34s}{_told(used)}, {n_picks} picks of {n_truth} particles")


def _told(used: Cost) -> str:
    return f"{used.wall:8.1f} s wall {used.cpu:8.1f} CPU-s {used.peak:6.2f} GiB"


if __name__ == "__main__":
    main()
