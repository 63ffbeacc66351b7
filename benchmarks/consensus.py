"""Consensus of pickers on fields with truth, beside each picker and the number of votes.

Pickers are real (our LoG, blob and general network, and RELION's LoG where it is installed) or
simulated from the truth with a bias each: one that misses half of the particles, one that takes
noise and contamination for particles, one that is off the centre, one that misses crowded
particles. Each case joins some of them; a candidate is right within 0.3 diameters of a particle.
Sets are simulated, easy (contrast 1.3) or hard (0.8), or real (apoferritin, against the shared
coordinates). AP is over all candidates, P, R and F1 at a probability of 0.5; "best k" is the best
number of votes by AP; "found" is the recall of all candidates together. Nothing is asserted.

    python benchmarks/consensus.py --sets easy,hard,apoferritin --work FOLDER --plot plot.png
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from consensus_fields import PIXEL_SIZE, REAL, SIMULATED, FieldSet, real_fields, simulated_fields
from cryopick.picking.consensus_learning import Learning, StartModel
from cryopick.picking.consensus_training_parameters import ConsensusTraining
from cryopick.picking.evaluate import Evaluation, evaluate_picks
from cryopick.pipeline.consensus_judge import (
    by_field,
    judge_by_network,
    judge_by_votes,
    keep_apart,
)
from cryopick.pipeline.consensus_prepare import prepare_candidates
from cryopick.pipeline.consensus_sets import CandidateField, find_candidates, read_set
from cryopick.pipeline.pick_models import read_model
from cryopick.tables.micrographs import open_micrographs

_RADIUS = 0.25  # diameters: what counts as one candidate
_APART = 0.5  # diameters between candidates in the end
_TRAINED = "+ trained network"
_PARTS = 10  # of the probabilities, in the table of reliability
_CASES = {
    "simulated": SIMULATED,
    "real": REAL,
    "all": (*SIMULATED, *REAL),
    "3 copies of blob": ("blob", "blob", "blob"),
    "real + random": (*REAL, "random"),
    "simulated + random": (*SIMULATED, "random"),
    "log and blob": ("log", "blob"),
    "network at 2 thresholds": ("network", "network 0.1", "log"),
}

Floats = NDArray[np.float64]


class Told(NamedTuple):
    """Probabilities of the candidates of one run, and which are right."""

    label: str  # set and case
    chance: Floats  # (n,)
    is_right: NDArray[np.bool_]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(__file__).parents[2] / "shared" / "data"
    named = os.environ.get("CRYOPICK_TEST_DATA", str(beside))
    options.add_argument("--data", type=Path, default=Path(named), help="Folder of real data.")
    options.add_argument("--sets", default="easy,hard")
    options.add_argument("--seeds", default="1,2,3")
    options.add_argument("--cases", default=",".join(_CASES))
    options.add_argument("--number", type=int, default=12, help="Of simulated fields.")
    options.add_argument("--steps", type=int, default=200, help="Of each training.")
    options.add_argument("--work", type=Path, required=True, help="Fields and picks stay here.")
    options.add_argument("--plot", type=Path, help="PNG of the reliability diagram.")
    given = options.parse_args()
    torch.set_num_threads(1)
    print(f"{'set':<11} {'seed':>4} {'case':<24} {'by':<22} {'AP':>6} {'P':>6} {'R':>6} {'F1':>6} "
          f"{'found':>6} {'Brier':>6} {'CPU s':>6}")  # fmt: skip
    told = []
    for name in given.sets.split(","):
        is_real = name == "apoferritin"
        for seed in map(int, given.seeds.split(",")):
            folder = given.work / (name if is_real else f"{name}_{seed}")
            fields = (
                real_fields(folder, given.data)
                if is_real
                else simulated_fields(folder, name, seed, given.number)
            )
            for case in given.cases.split(","):
                if not is_real or "real" in case.split() or not {*_CASES[case]} - {*REAL}:
                    told.append(_compare(fields, name, seed, case, given.steps))
    _print_reliability(told)
    if given.plot is not None:
        _plot(told, given.plot)


def _compare(made: FieldSet, name: str, seed: int, case: str, steps: int) -> Told:
    pickers = [p for p in _CASES[case] if (made.folder / "picks" / p).is_dir()]

    def tell(by: str, found: Evaluation, start: float = np.nan) -> None:
        picks = found.total
        if np.isfinite(start):
            sure = found.curve[found.curve["threshold"] >= 0.5]
            n_right = int(sure["is_right"].sum())
            precision, recall = n_right / max(len(sure), 1), n_right / picks.n_truth
            brier = float(((found.curve["threshold"] - found.curve["is_right"]) ** 2).mean())
        else:
            precision, recall, brier = picks.precision, picks.recall, np.nan
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        seconds = time.process_time() - start
        print(f"{name:<11} {seed:>4} {case:<24} {by:<22} {picks.average_precision:>6.3f} "
              f"{precision:>6.3f} {recall:>6.3f} {f1:>6.3f} {picks.recall:>6.3f} {brier:>6.3f} "
              f"{seconds:>6.0f}", flush=True)  # fmt: skip

    for picker in dict.fromkeys(pickers):
        tell(picker, _score(made, made.picks(picker)))
    table = open_micrographs([str(made.folder / made.table)])
    sets = [read_set(made.folder / "picks" / p, table) for p in pickers]
    fields = find_candidates(table, sets, radius=_RADIUS * made.diameter)
    counts = [f.found.votes.astype(float) for f in fields]
    by_votes = [
        _score(made, _table(made, fields, [np.where(c >= k, c, -np.inf) for c in counts]))
        for k in range(1, len(pickers) + 1)
    ]
    best = int(np.argmax([s.total.average_precision for s in by_votes]))
    tell(f"votes, best k = {best + 1}", by_votes[best])
    start = time.process_time()

    def tell_chances(by: str, judged: Sequence[CandidateField], chance: Floats) -> Evaluation:
        seconds = time.process_time() - start
        found = _score(made, _table(made, judged, by_field(judged, chance)))
        tell(by, found, time.process_time() - seconds)
        return found

    tell_chances("reliability", fields, judge_by_votes(fields).probability)
    model, _ = read_model(None)
    prepared = [
        prepare_candidates(f, diameter=made.diameter, white_particles=False, mask=True)
        for f in fields
    ]
    learning = Learning(start=(StartModel(model),), training=ConsensusTraining(steps=steps))
    found = judge_by_network(fields, prepared, learning=learning, radius=_RADIUS, seed=seed)
    tell_chances("+ general network", found.first_fields, found.first.probability)
    last = tell_chances(_TRAINED, found.fields, found.final.probability).curve
    return Told(
        f"{name}, {case}",
        last["threshold"].to_numpy(np.float64),
        last["is_right"].to_numpy(bool),
    )


def _score(made: FieldSet, picks: pd.DataFrame) -> Evaluation:
    return evaluate_picks(
        picks,
        made.truth.rows,
        pixel_sizes=dict.fromkeys(made.truth.micrographs, PIXEL_SIZE),
        diameter=made.diameter,
        ignored=made.truth.ignored,
    )


def _table(
    made: FieldSet, fields: Sequence[CandidateField], values: Sequence[Floats]
) -> pd.DataFrame:
    """Gather candidates that are kept apart, and of a finite value."""
    tables = []
    for field, value in zip(fields, values, strict=True):
        places = field.found.positions
        kept = keep_apart(places, value, distance=_APART * made.diameter / PIXEL_SIZE)
        kept = kept[np.isfinite(value[kept])]
        rows = pd.DataFrame(places[kept], columns=["x", "y"])
        tables.append(rows.assign(micrograph=Path(field.micrograph).name, fom=value[kept]))
    return pd.concat(tables)


def _parts(told: Told) -> pd.DataFrame:
    """Mean probability, share that is right and number of each part of the probabilities."""
    part = np.minimum((told.chance * _PARTS).astype(int), _PARTS - 1)
    rows = pd.DataFrame({"part": part, "said": told.chance, "right": told.is_right, "n": 1})
    grouped = rows.groupby("part")
    return grouped[["said", "right"]].mean().assign(n=grouped["n"].sum())


def _joined(told: Sequence[Told]) -> list[Told]:
    """Join the seeds of each set and case."""
    return [
        Told(
            label,
            np.concatenate([t.chance for t in told if t.label == label]),
            np.concatenate([t.is_right for t in told if t.label == label]),
        )
        for label in dict.fromkeys(t.label for t in told)
    ]


def _print_reliability(told: Sequence[Told]) -> None:
    print("\nProbability said: share that is right (number), over all seeds")
    for one in _joined(told):
        parts = _parts(one)
        error = float((parts["n"] * (parts["said"] - parts["right"]).abs()).sum() / len(one.chance))
        words = [f"{r.said:.2f}: {r.right:.2f} ({int(r.n)})" for r in parts.itertuples()]
        print(f"{one.label:<34} calibration error {error:.3f}   {'  '.join(words)}")


def _plot(told: Sequence[Told], path: Path) -> None:
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for one in _joined(told):
        parts = _parts(one)
        brier = float(np.mean((one.chance - one.is_right) ** 2))
        axes.plot(parts["said"], parts["right"], "o-", label=f"{one.label}: Brier {brier:.3f}")
    axes.set(xlabel="Probability that is said", ylabel="Share that is right", aspect="equal")
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
