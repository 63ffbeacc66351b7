"""What stable classes cost: CPU seconds, wall time and memory by number of images.

    python benchmarks/stable_cost.py run --n 10000 --threads 2      a whole run, step by step
    python benchmarks/stable_cost.py memory --n 100000              memory of one step of each kind
    python benchmarks/stable_cost.py memory --n 10000 --cluster 2   on workers of a cluster

Images are projections of blobs along 40 views, a fifth of them noise alone; in `memory` a thousand
are repeated in fresh noise, so that the source itself holds little. Every line says what was run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distributed import LocalCluster
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.em_state import EmState
from cryopick.class2d.stable import StableClassifier
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_state import StableState
from cryopick.class2d.stable_workers import BlockWorkers, ImageWork, Run
from cryopick.execution.cluster import ClusterExecutor, NamedCluster
from cryopick.pipeline.class2d_blocks import ClusterBlocks
from stable_quality import RADIUS, Simulated, compact, describe, simulate

_KINDS = 1000  # images without their noise
_ALL_CLASSES = 15  # iteration of the first classes from which there are as many as wanted


class Repeated(Simulated):
    """Some images again and again, each time in other noise."""

    def __init__(self, clean: Tensor, n: int, *, sigma: float) -> None:
        super().__init__(clean)
        self._n, self._sigma = n, sigma
        self.group_numbers = self.optics_numbers = np.zeros(n, np.int64)

    def __len__(self) -> int:
        return self._n

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Make images; the same ones for the same indices."""
        noise = np.random.default_rng(indices.tolist()).standard_normal(
            (len(indices), *self.images.shape[1:]), np.float32
        )
        return self.images[indices % len(self.images)] + self._sigma * torch.from_numpy(noise)


class Counting:
    """Workers whose results are counted in bytes, as they come to the manager."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.shards, self.close = run.shards, run.close
        self.n_bytes = 0

    def __call__(self, work: ImageWork[Any, Any], items: Sequence[Any]) -> Iterator[Any]:
        """Work as they do."""
        for result in self._run(work, items):
            self.n_bytes += len(pickle.dumps(result))
            yield result


@contextlib.contextmanager
def workers_of(given: argparse.Namespace) -> Iterator[tuple[Counting, Callable[[], str]]]:
    """Open threads, or processes as workers of a cluster; and what tells of their memory."""
    if not given.cluster:
        yield Counting(BlockWorkers(given.threads)), lambda: ""
        return
    with (
        LocalCluster(n_workers=given.cluster, threads_per_worker=1, dashboard_address=":0") as own,
        ClusterExecutor(open_fleet=partial(NamedCluster, own.scheduler_address)).session() as place,
        tempfile.TemporaryDirectory() as folder,
    ):
        run = Counting(ClusterBlocks(place, Path(folder, "shards")))

        def told() -> str:
            peaks = place.client.run(peak).values()
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
            return f", {size / 1e6:.0f} MB of files, workers {max(peaks):.2f} GiB"

        yield run, told


def peak() -> float:
    """Most memory that this process has had, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def describe_step(state: StableState) -> str:
    """Name the kind of the step that follows a state."""
    if state.phase == "partition":
        return "first classes" if state.step == 0 else "passes"
    return state.phase


def run(given: argparse.Namespace) -> None:
    """Time a whole run."""
    source, truth = simulate(given.n, n_views=40, snr=given.snr, n_noise=given.n // 5)
    load = os.getloadavg()[0]
    wall, cpu = time.monotonic(), time.process_time()
    classifier = StableClassifier(source, options(given), threads=given.threads)
    state = classifier.start()
    spent: dict[str, float] = defaultdict(float)
    while not state.is_finished:
        kind, start = describe_step(state), time.process_time()
        before = (state.main, state.generation)
        state = classifier.advance(state)
        spent[kind] += time.process_time() - start
        if (state.main, state.generation) != before or state.is_finished:
            print(f"main iteration {before[0]}, generation {before[1]}: "
                  f"{time.monotonic() - wall:.0f} s, {time.process_time() - cpu:.0f} CPU-s, "
                  f"{100 * state.accounted[-1]:.0f} % in a class", flush=True)  # fmt: skip
    start = time.process_time()
    state = classifier.refined(state)
    spent["refinement"] = time.process_time() - start
    classifier.close()
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in spent.items())
    print(f"{given.n} images, {given.threads} threads: {wall:.0f} s, {cpu:.0f} CPU-s ({parts}), "
          f"{1e3 * cpu / given.n:.0f} ms an image, peak {peak():.2f} GiB, load {load:.1f} before "
          f"and {os.getloadavg()[0]:.1f} after; {describe(compact(state), truth)}")  # fmt: skip


def memory(given: argparse.Namespace) -> None:
    """Do one step of each kind with all images."""
    with workers_of(given) as (run, of_workers):
        steps_of_each_kind(given, run, of_workers)


def steps_of_each_kind(
    given: argparse.Namespace, run: Counting, of_workers: Callable[[], str]
) -> None:
    """Say after each what memory it took, and how much came to the manager."""
    clean, _ = simulate(_KINDS, n_views=40, snr=1e6)
    source = Repeated(clean.images, given.n, sigma=float(clean.images.std()) / given.snr**0.5)
    classifier = StableClassifier(source, options(given), threads=given.threads, run=run)

    def told(what: str) -> None:
        print(f"{given.n} images, {given.threads} threads, {what}: peak {peak():.2f} GiB, "
              f"{time.process_time():.0f} CPU-s so far, {run.n_bytes / 1e6:.1f} MB of results"
              f"{of_workers()}", flush=True)  # fmt: skip
        run.n_bytes = 0

    told("images and their power")
    state = classifier.advance(classifier.start())
    told("an iteration of the prealignment")
    while state.phase == "prealignment":
        state = replace(state, alignment=(state.alignment[0], 99, 99))
        state = classifier.advance(state)
    state = classifier.advance(state)
    state = late(classifier, state)
    n_first = state.n_classes if state.first is None else len(state.first.shares)
    told(f"an iteration of the first classes, {n_first} of them")
    while state.step < 2:
        state = late(classifier, state)
    told(f"a pass, {state.n_classes} classes, {len(state.share_image)} shares")
    if given.judges:
        labels = np.stack([state.label % (given.n // 500)] * 3)
        poses = state.poses.beside(state.poses).beside(state.poses)
        state = replace(state, phase="judgement", partitions=labels, run_poses=poses)
        classifier.advance(state)
        told(f"a judgement of {labels.max() + 1} classes")
    classifier.close()


def late(classifier: StableClassifier, state: StableState) -> StableState:
    """Do the next step; first classes are advanced to where all of them are there."""
    first: EmState | None = state.first
    if first is not None and first.iteration < _ALL_CLASSES:
        state = replace(state, first=replace(first, iteration=_ALL_CLASSES))
    return classifier.advance(state)


def options(given: argparse.Namespace) -> StableParameters:
    """Default options."""
    return StableParameters(radius=RADIUS / 4.0, ctf="none", img_per_grp=given.img_per_grp)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["run", "memory"])
    parser.add_argument("--n", type=int, default=2500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--img-per-grp", type=int, default=-1)
    parser.add_argument("--judges", action="store_true", help="A judgement, too, in `memory`.")
    parser.add_argument("--cluster", type=int, default=0, help="Workers, in `memory`.")
    given = parser.parse_args()
    {"run": run, "memory": memory}[given.what](given)


if __name__ == "__main__":
    main()
