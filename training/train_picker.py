"""Train the general picking network from nothing, and write the file the package ships.

    python training/train_picker.py --work WORK --out src/cryopick/picking/general_picker.npz

Simulates fields of random particles (`simulated_fields.py`) and fields without any
(`empty_fields.py`), trains on nine tenths of them, and validates, calibrates and sets the threshold
on the rest. Fields that are in --work from before are not made again. The same seed gives the same
weights on the same kind of machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cryopick.picking.network import PickNetwork
from cryopick.picking.network_fit import fit_model
from cryopick.picking.network_training import TrainingField, TrainingProgress
from cryopick.pipeline.pick_models import write_model
from empty_fields import make_empty_field
from simulated_fields import draw_fields, make_fields

SETS, EMPTY, STEPS = 110, 180, 4000
_HELD_OUT = 10  # every so many


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--work", type=Path, required=True, help="Folder for simulated fields.")
    options.add_argument("--out", type=Path, required=True, help="File of weights to write.")
    options.add_argument("--sets", type=int, default=SETS)
    options.add_argument("--empty", type=int, default=EMPTY, help="Fields without particles.")
    options.add_argument("--steps", type=int, default=STEPS)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    given = options.parse_args()
    start = time.perf_counter()
    fields, held_out = load_fields(given.work, given.sets, given.empty, given.seed, given.workers)
    print(f"{len(fields)} fields after {time.perf_counter() - start:.0f} s", flush=True)

    def report(progress: TrainingProgress, precision: float) -> None:
        took = time.perf_counter() - start
        print(
            f"step {progress.step} of {progress.steps}: loss {progress.loss:.4f}, held-out average "
            f"precision {precision:.4f}, {took:.0f} s",
            flush=True,
        )

    trained = fit_model(
        fields,
        held_out,
        network=PickNetwork(seed=given.seed),
        steps=given.steps,
        n_expected=sum(len(f.particles) for f in fields) / len(fields),  # all are marked
        seed=given.seed,
        every=500,
        threads=given.workers,
        patience=given.steps,
        report=report,
    )
    notes = {
        "made_by": "training/train_picker.py",
        "seed": given.seed,
        "fields": len(fields),
        "steps": trained.taken.step,
        "held_out_average_precision": round(trained.taken.precision, 4),
    }
    write_model(given.out, trained.model, notes)
    model = trained.model
    print(f"slope {model.slope:.2f}, offset {model.offset:.2f}, threshold {model.threshold:.2f}")
    print(f"{given.out} after {time.perf_counter() - start:.0f} s")


def load_fields(
    work: Path, sets: int, empty: int, seed: int, workers: int
) -> tuple[list[TrainingField], list[TrainingField]]:
    """Make the fields that are missing, and read all: to learn from, and those held out."""
    work.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    start = time.perf_counter()
    fields: list[TrainingField] = []
    held_out: list[TrainingField] = []
    numbers = [("set", n) for n in range(sets)] + [("empty", n) for n in range(empty)]
    with context.Pool(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        paths = pool.imap(partial(_make, work=work, seed=seed), numbers)
        for (kind, number), path in zip(numbers, paths, strict=True):
            (held_out if number % _HELD_OUT == 0 else fields).extend(_load(path))
            if kind == "set" and number % 10 == 9:
                left = (time.perf_counter() - start) / (number + 1) * (sets - number - 1)
                print(f"{number + 1} of {sets} sets, {left:.0f} s left", flush=True)
    return fields, held_out


def _make(which: tuple[str, int], *, work: Path, seed: int) -> Path:
    kind, number = which
    path = work / f"{kind}_{number:05d}.npz"
    if not path.exists():
        if kind == "empty":
            made = [make_empty_field(number, seed=seed)]
        else:
            made = make_fields(draw_fields(number, seed=seed))
        arrays = {}
        for place, one in enumerate(made):
            arrays[f"{place}.image"] = one.image.numpy().astype(np.float16)
            arrays[f"{place}.is_valid"] = one.is_valid.numpy()
            arrays[f"{place}.particles"] = one.particles
            arrays[f"{place}.ignored"] = one.ignored
        temporary = path.with_suffix(f".{os.getpid()}.tmp.npz")
        np.savez(temporary, **arrays)
        temporary.rename(path)
    return path


def _load(path: Path) -> list[TrainingField]:
    with np.load(path) as stored:
        places = sorted({name.partition(".")[0] for name in stored.files})
        return [
            TrainingField(
                image=torch.from_numpy(stored[f"{p}.image"].astype(np.float32)),
                is_valid=torch.from_numpy(stored[f"{p}.is_valid"]),
                is_known=torch.from_numpy(stored[f"{p}.is_valid"]),
                particles=stored[f"{p}.particles"],
                rejected=np.empty((0, 2)),
                ignored=stored[f"{p}.ignored"],
            )
            for p in places
        ]


if __name__ == "__main__":
    main()
