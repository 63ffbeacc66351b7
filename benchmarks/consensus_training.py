"""What the choices of a consensus about its networks are worth, on simulated fields with truth.

Two simulated pickers, one that misses 40 % of the particles and one that takes contamination and
noise for particles; 8 fields of contrast 0.8 with carbon, ice and aggregates. AP over all
candidates, P and R at a probability of 0.5, of the whole consensus. Nothing is asserted.

    python benchmarks/consensus_training.py --work FOLDER
"""

from __future__ import annotations

import argparse
import resource
import subprocess
from pathlib import Path

import numpy as np
import torch

from cryopick.execution.parameters import ComputeParameters
from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.picking.consensus_training_parameters import ConsensusTraining
from cryopick.pipeline.consensus import join_sets
from cryopick.pipeline.evaluate import evaluate_pick_files, read_truth
from cryopick.tables.relion import write_picks_file
from picker_sets import CRYOPICK

_DIAMETER, _PIXEL_SIZE, _SIDE = 130.0, 1.5, 1024
_CHOICES = {
    "skip training": {"skip_training": True},
    "general": {},
    "general, ensemble of 3": {"ensemble": 3},
    "general, simulated negatives": {"shipped_negatives": True},
    "general, flipped phases": {"phase_flip": True},
    "new, 1000 steps": {"model": "new"},
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--choices", default=",".join(c.replace(",", ";") for c in _CHOICES))
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--work", type=Path, required=True, help="Fields and results stay here.")
    given = options.parse_args()
    torch.set_num_threads(1)
    folder = given.work / f"fields_{given.seed}"
    _make(folder, given.seed)
    print(f"{'networks':<30} {'AP':>6} {'P':>6} {'R':>6} {'CPU s':>6}")
    for choice in given.choices.split(","):
        name = choice.replace(";", ",")
        values = dict(_CHOICES[name])
        out = given.work / f"{name.replace(', ', '_').replace(' ', '_')}_{given.seed}"
        before = resource.getrusage(resource.RUSAGE_SELF)
        join_sets(
            [folder / "shy", folder / "greedy"],
            [str(folder / "micrographs_ctf.star")],
            out,
            parameters=ConsensusParameters(
                diameter=_DIAMETER, phase_flip=bool(values.pop("phase_flip", False))
            ),
            training=ConsensusTraining(**values),
            compute=ComputeParameters(workers=1, threads=1),
            overwrite=True,
        )
        after = resource.getrusage(resource.RUSAGE_SELF)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found = evaluate_pick_files(out, folder / "truth.json")
        total = found.picks.total
        print(f"{name:<30} {found.peaks.total.average_precision:>6.3f} {total.precision:>6.3f} "
              f"{total.recall:>6.3f} {seconds:>6.0f}", flush=True)  # fmt: skip


def _make(folder: Path, seed: int) -> None:
    """Simulate fields and two pickers, unless that was done before."""
    options = {
        "--phantoms": "tetramer", "--phantom-diameter": _DIAMETER, "--pixel-size": _PIXEL_SIZE,
        "--number": 8, "--width": _SIDE, "--height": _SIDE, "--particles": 90,
        "--carbon-fraction": 0.25, "--ice-blobs": 1, "--aggregates": 0.7, "--contrast": 0.8,
        "--workers": 1, "--seed": 300 + seed, "--out": folder,
    }  # fmt: skip
    words = [str(word) for pair in options.items() for word in pair]
    subprocess.run(
        [CRYOPICK, "simulate", "micrographs", *words], check=True, stdout=subprocess.DEVNULL
    )
    truth = read_truth(folder / "truth.json")
    random = np.random.default_rng([seed, 5])
    for name, share, jitter, n_false in (("shy", 0.6, 3.0, 4), ("greedy", 0.95, 6.0, 50)):
        (folder / name).mkdir(exist_ok=True)
        for micrograph in truth.micrographs:
            rows = truth.rows[truth.rows["micrograph"] == micrograph][["x", "y"]]
            rows = rows[random.random(len(rows)) < share]
            rows = rows + random.normal(0, jitter, rows.shape)
            ignored = truth.ignored[truth.ignored["micrograph"] == micrograph][["x", "y"]]
            places = [rows.to_numpy(float), random.uniform(0, _SIDE - 1, (n_false, 2))]
            if name == "greedy":
                places.append(ignored.to_numpy(float))
            table = np.concatenate(places)
            path = folder / name / f"{Path(micrograph).stem}_autopick.star"
            write_picks_file(path, rows.iloc[:0].reindex(range(len(table))).assign(
                x=table[:, 0], y=table[:, 1]))  # fmt: skip


if __name__ == "__main__":
    main()
