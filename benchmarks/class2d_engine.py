"""Parts of the benchmark of 2D classification that look inside: invariance and products.

Called by ``class2d.py invariance`` and ``class2d.py product-speed``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from class2d_runs import SCORES, Table, classify, score
from cryopick.alignment.search import Workspace
from cryopick.class2d.em import EmClassifier
from cryopick.class2d.em_expect import Expectation, ShardResult, expect_shard
from cryopick.class2d.em_junk import NoiseImages
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.em_state import EmState, Poses
from cryopick.io.mrc import read_mrc, read_mrc_header, write_mrc
from cryopick.pipeline.class2d_source import open_source
from cryopick.tables.relion import read_particles

__all__ = ["compare_full_runs", "compare_one_iteration", "time_products"]

_TURN, _SHIFT = 0.1, 0.1  # deg, A: poses that differ by less are called the same
_LITTLE_MEMORY = 0.7  # GB, about the least that is accepted for 20 classes of 64 px
_ALL_IMAGES = 1 << 40  # bytes
_SCORED = {column: SCORES[column][1] for column in ("coherence", "junk AUC", "purity")}
_SIDES = (512, 1024, 2048)  # of the matrices that tell the machine's speed

Options = Mapping[str, Any]
Shards = Iterable[tuple[NDArray[np.int64], int]]


def compare_full_runs(
    stack: Path, folder: Path, options: Options, *, is_json: bool
) -> tuple[Table, Path]:
    """Run the command with other threads, memory and pixels; also gives the first averages."""
    columns = {
        "run": None,
        **_SCORED,
        "same class": 3,
        "same pose": 3,
        "CPU-s": 1,
        "wall s": 1,
        "MB": 0,
    }
    table = Table(columns, is_json=is_json)
    table.note(
        "Whole runs; same pose: share of particles in the same class, within "
        f"{_TURN} deg and {_SHIFT} A of the first run."
    )
    half = _as_float16(stack, folder / "float16")
    ways: dict[str, tuple[Path, int, int, dict[str, object]]] = {
        "1 thread": (stack, 1, 1, {}),
        "again": (stack, 1, 1, {}),
        "--threads 2": (stack, 2, 1, {}),
        "2 OpenMP threads": (stack, 1, 2, {}),
        f"--memory {_LITTLE_MEMORY}": (stack, 1, 1, {"memory": _LITTLE_MEMORY}),
        "float16 stack": (half, 1, 1, {}),
    }
    reference, averages = None, Path()
    for words, (source, threads, openmp, more) in ways.items():
        out = folder / words.replace(" ", "_")
        particles = source / "particles.star"
        run = classify(particles, out, threads=threads, options={**options, **more}, openmp=openmp)
        rows = read_particles(Path(run.values["particles"])).rows
        if reference is None:
            reference, averages = rows, Path(run.values["averages"])
        row = {"run": words, **_same_rows(reference, rows), "CPU-s": run.usage.cpu}
        row |= score(out, stack, n_classes=options["classes"], averages=None)
        table.add({**row, "wall s": run.usage.wall, "MB": run.usage.memory})
    return table, averages


def compare_one_iteration(stack: Path, averages: Path, options: Options, *, is_json: bool) -> Table:
    """Do the first and second iteration from given averages in several ways.

    Each way begins from the same state, so that nothing adds up.
    """
    columns = {"run": None, "iteration": 0, "same pose": 4, "largest turn": 4, "averages": 9}
    table = Table(columns, is_json=is_json)
    table.note(
        "One iteration from fixed averages; same pose as above, largest turn of a particle that "
        "kept its class (deg),\naverages: largest difference over the largest value."
    )
    source = open_source(read_particles(stack / "particles.star"), corrects_ctf=True)
    parameters = _parameters(options)
    references = torch.from_numpy(read_mrc(averages, dtype=np.float32))
    ways: dict[str, tuple[type[EmClassifier], int, int, int]] = {
        "1 thread": (EmClassifier, 1, 1, _ALL_IMAGES),
        "2 threads": (EmClassifier, 2, 1, _ALL_IMAGES),
        "2 OpenMP threads": (EmClassifier, 1, 2, _ALL_IMAGES),
        "images read again": (EmClassifier, 1, 1, 0),
        "tiles of a quarter": (_SmallTiles, 1, 1, _ALL_IMAGES),
    }
    state: EmState | None = None
    for iteration in (1, 2):
        first: EmState | None = None
        for name, (kind, threads, openmp, kept) in ways.items():
            torch.set_num_threads(openmp)
            classifier = kind(source, parameters, threads=threads, keep_bytes=kept)
            state = state or classifier.start(references)
            found = classifier.advance(state)
            classifier.close()
            if first is None:
                first = found
            else:
                table.add({"run": name, "iteration": iteration, **_difference(first, found)})
        state = first
    return table


class _SmallTiles(EmClassifier):
    """Aligns a quarter as many particles together."""

    def _shards(
        self, indices: NDArray[np.int64], stage: Any, n_classes: int
    ) -> Iterator[tuple[NDArray[np.int64], int]]:
        for shard, tile in super()._shards(indices, stage, n_classes):
            yield shard, max(1, tile // 4)


def _difference(first: EmState, other: EmState) -> dict[str, float]:
    one, two = first.poses, other.poses
    kept = one.class_index == two.class_index
    turns = _turns(one.psi, two.psi)
    largest = (first.harmonics - other.harmonics).abs().max() / first.harmonics.abs().max()
    return {
        "same pose": _share_of_same(one, two),
        "largest turn": float(turns[kept].max(initial=0)),
        "averages": float(largest),
    }


def _share_of_same(one: Poses, two: Poses) -> float:
    same = one.class_index == two.class_index
    same &= _turns(one.psi, two.psi) < _TURN
    same &= np.hypot(one.shift_x - two.shift_x, one.shift_y - two.shift_y) < _SHIFT
    return float(same.mean())


def _same_rows(one: pd.DataFrame, two: pd.DataFrame) -> dict[str, float]:
    in_class = one["class_number"].to_numpy() == two["class_number"].to_numpy()
    apart = one[["shift_x", "shift_y"]].to_numpy() - two[["shift_x", "shift_y"]].to_numpy()
    posed = _turns(one["psi"].to_numpy(), two["psi"].to_numpy()) < _TURN
    posed &= np.hypot(*apart.T) < _SHIFT
    return {
        "same class": float(in_class.mean()),
        "same pose": float((in_class & posed).mean()),
    }


def _turns(one: NDArray[Any], two: NDArray[Any]) -> NDArray[np.float64]:
    """Angles between rotations, deg."""
    turns: NDArray[np.float64] = np.abs((one.astype(np.float64) - two + 180) % 360 - 180)
    return turns


def _as_float16(stack: Path, folder: Path) -> Path:
    """Copy a stack in half precision."""
    folder.mkdir(parents=True)
    name = "particles.mrcs"
    pixel_size = read_mrc_header(stack / name).pixel_size
    pixels = read_mrc(stack / name, dtype=np.float32)
    write_mrc(folder / name, pixels.astype(np.float16), pixel_size=pixel_size or 1.0)
    (folder / "particles.star").write_bytes((stack / "particles.star").read_bytes())
    return folder


def time_products(stack: Path, options: Options, *, is_json: bool) -> Table:
    """Time the expectation step of every iteration of a run, and the products in it alone.

    Counted are the four products of the search: pixels to half rings, half rings to harmonics,
    sums over rings of harmonics and averages, and sums over orders to rotations. The rest of the
    step (CTF, phases, posterior, sums of the averages, refinement) takes time but counts nothing.
    """
    columns = {"iteration": 0, "classes": 0, "rings": 0, "shifts": 0, "rotations": 0, "tile": 0,
               "pixels": 2, "harmonics": 2, "rings sum": 2, "orders": 2, "MFLOP": 2,
               "ms": 3, "products ms": 3, "GFLOP/s": 1, "of mm": 3}  # fmt: skip
    table = Table(columns, is_json=is_json, width=6)
    torch.set_num_threads(1)
    peak = _speed_of_mm()
    table.note(
        f"One thread; torch's products of large squares: {peak / 1e9:.0f} GFLOP/s. Per particle "
        "and E-step: MFLOP of the products,\nms CPU of all of expect_shard, ms of the products "
        "alone; GFLOP/s and share of mm are of all of expect_shard."
    )
    source = open_source(read_particles(stack / "particles.star"), corrects_ctf=True)
    classifier = EmClassifier(source, _parameters(options), keep_bytes=_ALL_IMAGES)
    classifier.close()
    workers = _TimedWorkers()
    classifier._workers = workers  # type: ignore[assignment]
    state = classifier.start()
    while not state.is_finished:
        state = classifier.advance(state)
        table.add({"iteration": state.iteration, **workers.row(peak)})
    rows = pd.DataFrame(table.rows)
    total = rows["MFLOP"].sum() / rows["ms"].sum() * 1e9
    table.note(
        f"All iterations: {rows['ms'].sum():.1f} ms and {rows['MFLOP'].sum():.0f} MFLOP a "
        f"particle, {total / 1e9:.1f} GFLOP/s, {total / peak:.2f} of torch.mm; the products "
        f"alone {rows['products ms'].sum():.1f} ms."
    )
    return table


class _TimedWorkers:
    """Stands where the classifier has its threads, and aligns shards one after the other."""

    def __init__(self) -> None:
        self._workspace = Workspace()
        self._work: Expectation | None = None
        self._tile, self._shard, self._count, self._seconds = 0, 0, 0, 0.0

    def close(self) -> None:
        """There is nothing to stop."""

    def map(self, works: Mapping[str, Expectation], shards: Shards) -> Iterator[ShardResult]:
        """Align shards; those of noise, which tell what junk is, are not timed."""
        work = works["cpu"]
        is_noise = isinstance(work.images, NoiseImages)
        if not is_noise:
            self._work, self._shard, self._count, self._seconds = work, 0, 0, 0.0
        for indices, tile_size in shards:
            start = time.thread_time()
            with torch.inference_mode():
                result = expect_shard(work, indices, tile_size=tile_size, workspace=self._workspace)
            if not is_noise:
                self._seconds += time.thread_time() - start
                self._count += len(indices)
                self._tile, self._shard = tile_size, max(self._shard, len(indices))
            yield result

    def row(self, peak: float) -> dict[str, float]:
        """Describe the last iteration, per particle; `peak` in FLOP/s."""
        assert self._work is not None
        products = _products(self._work, self._tile, self._shard)
        flops = {name: 2 * math.prod(shape) / n for name, (shape, n) in products.items()}
        alone = sum(_seconds_of(shape) / n for shape, n in products.values())
        each = self._seconds / self._count
        speed = sum(flops.values()) / each
        return {
            "classes": len(self._work.references),
            "rings": self._work.basis.n_rings,
            "shifts": len(self._work.shifts),
            "rotations": len(self._work.rotations.angles),
            "tile": self._tile,
            **{name: value / 1e6 for name, value in flops.items()},
            "MFLOP": sum(flops.values()) / 1e6,
            "ms": 1e3 * each,
            "products ms": 1e3 * alone,
            "GFLOP/s": speed / 1e9,
            "of mm": speed / peak,
        }


Shape = tuple[int, int, int, int]  # of a product: how many, rows, inner, columns


def _products(work: Expectation, n: int, n_shard: int) -> dict[str, tuple[Shape, int]]:
    """Shapes of the products, each with its particles: n of a tile or all of a shard."""
    basis, k, n_shifts = work.basis, len(work.references), len(work.shifts)
    n_half = basis.n_angles * basis.n_rings
    half_turn, moved = len(work.rotations.even), n * n_shifts
    return {
        "pixels": ((2, n_half, len(work.sampler.first), n_shard), n_shard),
        "harmonics": ((2, basis.n_orders, basis.n_angles, basis.n_rings * moved), n),
        "rings sum": ((basis.n_orders, 2 * k, 2 * basis.n_rings, moved), n),
        "orders": ((2, half_turn, basis.n_orders, k * moved), n),
    }


def _seconds_of(shape: Shape, *, repeats: int = 5) -> float:
    """Least time of a product of random matrices into a buffer that is there."""
    count, rows, inner, columns = shape
    one, two = torch.randn(count, rows, inner), torch.randn(count, inner, columns)
    out = torch.empty(count, rows, columns)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.bmm(one, two, out=out)
        times.append(time.perf_counter() - start)
    return min(times)


def _speed_of_mm() -> float:
    """FLOP/s of large products, of the side that goes fastest."""
    return max(2 * side**3 / _seconds_of((1, side, side, side), repeats=20) for side in _SIDES)


def _parameters(options: Options) -> ClassificationParameters:
    return ClassificationParameters(**{k.replace("-", "_"): v for k, v in options.items()})
