"""Train the networks that score classes, from nothing, and write the file the package ships.

    python training/train_class_scores.py --work WORK --out src/cryopick/selection/class_scores.npz

Simulates and classifies sets of particles (`simulated_classifications.py`), adds averages sharper
than these can be (`sharp_averages.py`), measures all classes, trains networks, each on its own
nine tenths of the sets, and writes their weights. Two cores need about half an hour; sets that are
in --work from before are not made again. The same seed gives the same weights on the same kind of
machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from cryopick.io.weights import write_weights
from cryopick.pipeline.class2d_references import averages_of_run
from cryopick.selection.class_features import FEATURES, GROUPS, class_inputs
from cryopick.selection.class_network import ClassNetwork
from cryopick.selection.class_scorer import ClassScorer, to_weights
from cryopick.selection.class_scores import ClassInputs
from cryopick.selection.class_training import LabelledClasses, train_network
from cryopick.tables.relion_class2d import read_classification
from sharp_averages import sharp_averages
from simulated_classifications import draw_set, make_set

SETS, SHARP, EPOCHS, NETWORKS = 85, 75, 40, 3


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--work", type=Path, required=True, help="Folder for simulated sets.")
    options.add_argument("--out", type=Path, required=True, help="File of weights to write.")
    options.add_argument("--sets", type=int, default=SETS)
    options.add_argument("--sharp", type=int, default=SHARP, help="Stacks of sharp averages.")
    options.add_argument("--epochs", type=int, default=EPOCHS)
    options.add_argument("--networks", type=int, default=NETWORKS)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    given = options.parse_args()
    start = time.perf_counter()
    runs = make_sets(range(given.sets), given.work, workers=given.workers, seed=given.seed)
    print(f"{len(runs)} runs after {time.perf_counter() - start:.0f} s", flush=True)
    with _pool(given.workers) as pool:
        sharp = pool.map(partial(sharp_averages, seed=given.seed), range(given.sharp))
    classes = join([gather(runs), *sharp])
    print(f"{len(classes.purity)} classes, mean purity {float(classes.purity.mean()):.2f}")
    tasks = [(k, given.networks, given.epochs, given.seed) for k in range(given.networks)]
    with _pool(given.workers) as pool:
        networks = pool.map(partial(_train, classes), tasks, chunksize=1)
    logits = held_out_logits(networks, classes)
    calibration = calibrate(logits, classes)
    scorer = ClassScorer(networks=tuple(networks), calibration=calibration)
    notes = {
        "made_by": "training/train_class_scores.py",
        "seed": given.seed,
        "sets": given.sets,
        "runs": len(runs),
        "sharp_stacks": given.sharp,
        "classes": len(classes.purity),
        "epochs": given.epochs,
        "held_out_loss": _losses(calibration[0] * logits + calibration[1], classes),
    }
    write_weights(given.out, to_weights(scorer, notes))
    print(json.dumps(notes, indent=1))
    print(f"{given.out} after {time.perf_counter() - start:.0f} s")


def make_sets(
    numbers: Sequence[int], work: Path, *, workers: int, seed: int, held_out: bool = False
) -> list[Path]:
    """Make sets side by side; their runs in order."""
    work.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    start = time.perf_counter()
    with _pool(workers) as pool:
        task = partial(_make, work=work, seed=seed, held_out=held_out)
        for done, runs in enumerate(pool.imap(task, numbers), start=1):
            made += runs
            left = (time.perf_counter() - start) / done * (len(numbers) - done)
            print(f"\r{done} of {len(numbers)} sets, {left:.0f} s left ", end="", flush=True)
    print()
    return made


def _pool(workers: int) -> multiprocessing.pool.Pool:
    context = multiprocessing.get_context("spawn")
    return context.Pool(workers, initializer=torch.set_num_threads, initargs=(1,))


def _make(number: int, *, work: Path, seed: int, held_out: bool) -> list[Path]:
    return make_set(draw_set(number, held_out=held_out, seed=seed), work)


def read_inputs(run: Path) -> ClassInputs:
    """Measure the classes of a run."""
    classification = read_classification(run)
    assert classification.optimiser is not None
    return class_inputs(
        averages_of_run(classification),
        pixel_size=classification.model.pixel_size,
        mask_diameter=classification.optimiser.particle_diameter,
        classification=classification,
    )


def gather(runs: Sequence[Path]) -> LabelledClasses:
    """Measure the occupied classes of all runs, and take what the truth says of them."""
    parts = []
    for place, run in enumerate(runs):
        inputs = read_inputs(run)
        labels = pd.read_csv(run / "labels.csv").set_index("class_number")
        table = inputs.features.join(labels, on="class_number")
        kept = table["purity"].notna() & (np.abs(inputs.images).max((1, 2)) > 0)
        parts.append((inputs.images[kept], table[kept], np.full(int(kept.sum()), place // 2)))
    table = pd.concat([p[1] for p in parts])

    def column(names: str | list[str]) -> torch.Tensor:
        return torch.from_numpy(table[names].to_numpy(np.float32).copy())

    return LabelledClasses(
        images=torch.from_numpy(np.concatenate([p[0] for p in parts])),
        features=column(list(FEATURES)),
        purity=column("purity"),
        quality=column("quality"),
        counts=column("n_members"),
        runs=np.concatenate([p[2] for p in parts]),
    )


def join(parts: Sequence[LabelledClasses]) -> LabelledClasses:
    """Put the classes of several sources one after the other."""
    return LabelledClasses(
        images=torch.cat([p.images for p in parts]),
        features=torch.cat([p.features for p in parts]),
        purity=torch.cat([p.purity for p in parts]),
        quality=torch.cat([p.quality for p in parts]),
        counts=torch.cat([p.counts for p in parts]),
        runs=np.concatenate([p.runs for p in parts]),
    )


def _train(classes: LabelledClasses, task: tuple[int, int, int, int]) -> ClassNetwork:
    fold, folds, epochs, seed = task
    kept = np.flatnonzero(~_is_held_out(classes.runs, fold, folds))
    start = time.perf_counter()

    def report(epoch: int, loss: float) -> None:
        if epoch % 5 == 4:
            took = time.perf_counter() - start
            print(f"network {fold + 1}, epoch {epoch + 1}: {loss:.4f}, {took:.0f} s", flush=True)

    return train_network(classes.take(kept), epochs=epochs, seed=100 * seed + fold, report=report)


def _is_held_out(runs: NDArray[np.int64], fold: int, folds: int) -> NDArray[np.bool_]:
    """Each network leaves out a tenth of the sets, each another one."""
    return runs % max(10, folds) == fold


def held_out_logits(
    networks: Sequence[ClassNetwork], classes: LabelledClasses
) -> NDArray[np.float64]:
    """Logits (n, 2) of classes by the network that has not seen them; NaN where all have."""
    logits = np.full((len(classes.purity), 2), np.nan)
    with torch.inference_mode():
        for fold, network in enumerate(networks):
            rows = np.flatnonzero(_is_held_out(classes.runs, fold, len(networks)))
            some = classes.take(rows)
            known = torch.ones(len(rows), len(GROUPS) + 1)
            logits[rows] = network(some.features, network.see(some.images), known).numpy()
    return logits


def calibrate(logits: NDArray[np.float64], classes: LabelledClasses) -> NDArray[np.float64]:
    """Find slope and offset of each logit that fit held-out classes best, (2, 2)."""
    known = np.isfinite(logits[:, 0])
    found = np.ones((2, 2))
    for k, truth in enumerate((classes.purity, classes.quality)):
        x, y = logits[known, k], truth.numpy()[known].astype(np.float64)

        def loss(values: NDArray[np.float64], x=x, y=y) -> float:  # type: ignore[no-untyped-def]
            return _cross_entropy(values[0] * x + values[1], y)

        found[:, k] = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x
    return found


def _losses(logits: NDArray[np.float64], classes: LabelledClasses) -> list[float]:
    known = np.isfinite(logits[:, 0])
    truths = (classes.purity, classes.quality)
    return [
        round(_cross_entropy(logits[known, k], t.numpy()[known].astype(float)), 4)
        for k, t in enumerate(truths)
    ]


def _cross_entropy(logits: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    chance = np.clip(expit(logits), 1e-6, 1 - 1e-6)
    return float(-(truth * np.log(chance) + (1 - truth) * np.log(1 - chance)).mean())


if __name__ == "__main__":
    main()
