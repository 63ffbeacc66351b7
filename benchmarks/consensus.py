"""Consensus of pickers on simulated fields with truth, beside each picker and the number of votes.

Pickers are real (our LoG, blob and general network, and RELION's LoG where it is installed) or
simulated from the truth with a bias each: one that misses half of the particles, one that takes
noise and contamination for particles, one that is off the centre, one that misses crowded
particles. Each case joins some of them; a candidate is right within 0.3 diameters of a particle.
AP is over all candidates, P and R at a probability of 0.5; "best k" is the AP of the best number
of votes. Nothing is asserted.

    python benchmarks/consensus.py --sets easy,hard --seeds 1,2,3 --work FOLDER
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cryopick.picking.blob import pick_blob
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.evaluate import PickScores, evaluate_picks, is_near
from cryopick.picking.log import pick_log
from cryopick.picking.log_parameters import LogParameters
from cryopick.picking.network_parameters import NetworkParameters
from cryopick.picking.network_pick import pick_network
from cryopick.pipeline.consensus_judge import (
    judge_by_network,
    judge_by_votes,
    keep_apart,
    prepare_candidates,
)
from cryopick.pipeline.consensus_sets import CandidateField, find_candidates, read_set
from cryopick.pipeline.evaluate import Truth, read_truth
from cryopick.pipeline.pick_models import read_model
from cryopick.tables.micrographs import open_micrographs
from cryopick.tables.relion import picks_of_file, write_picks_file
from picker_sets import CRYOPICK
from simulated_fields import Picking, cpu_seconds, pick_fields

_DIAMETER, _PIXEL_SIZE = 130.0, 1.5
_LOW, _HIGH = 100.0, 160.0  # A: sizes that LoG and blob look for
_CONTRAST = {"easy": 1.3, "hard": 0.8}
_SIDE = 1024
_RADIUS = 0.25  # diameters: what counts as one candidate
_APART = 0.5  # diameters between candidates in the end
_SIMULATION = {
    "--phantoms": "tetramer", "--phantom-diameter": _DIAMETER, "--pixel-size": _PIXEL_SIZE,
    "--number": 12, "--width": _SIDE, "--height": _SIDE, "--particles": 90,
    "--carbon-fraction": 0.25, "--ice-blobs": 1, "--aggregates": 0.7, "--workers": 1,
}  # fmt: skip
_SIMULATED = ("shy", "greedy", "off-centre", "crowd-blind")
_REAL = ("log", "blob", "network", "relion")
_CASES = {
    "simulated": _SIMULATED,
    "real": _REAL,
    "all": (*_SIMULATED, *_REAL),
    "3 copies of blob": ("blob", "blob", "blob"),
    "real + random": (*_REAL, "random"),
    "simulated + random": (*_SIMULATED, "random"),
    "log and blob": ("log", "blob"),
    "network at 2 thresholds": ("network", "network 0.1", "log"),
}

Points = NDArray[np.float64]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sets", default="easy,hard")
    options.add_argument("--seeds", default="1,2,3")
    options.add_argument("--cases", default=",".join(_CASES))
    options.add_argument("--steps", type=int, default=200, help="Of each training.")
    options.add_argument("--work", type=Path, required=True, help="Fields and picks stay here.")
    given = options.parse_args()
    torch.set_num_threads(1)
    print(f"{'set':<5} {'seed':>4} {'case':<24} {'by':<22} {'AP':>6} {'P':>6} {'R':>6} "
          f"{'Brier':>6} {'CPU s':>6}")  # fmt: skip
    for name in given.sets.split(","):
        for seed in map(int, given.seeds.split(",")):
            folder = given.work / f"{name}_{seed}"
            _make(folder, name, seed)
            for case in given.cases.split(","):
                _compare(folder, name, seed, case, given.steps)


def _make(folder: Path, name: str, seed: int) -> None:
    """Simulate fields and let all pickers pick them, unless that was done before."""
    if (folder / "done").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    options = {**_SIMULATION, "--contrast": _CONTRAST[name], "--seed": 100 + seed, "--out": folder}
    words = [str(word) for pair in options.items() for word in pair]
    subprocess.run(
        [CRYOPICK, "simulate", "micrographs", *words], check=True, stdout=subprocess.DEVNULL
    )
    for picker, picking in _pickings().items():
        table, _ = pick_fields(folder, picking)
        _write(folder, picker, table[table["is_pick"]])
    if shutil.which("relion_autopick"):
        _write(folder, "relion", _relion(folder))
    for number, picker in enumerate((*_SIMULATED, "random")):
        _write(folder, picker, _simulated(folder, picker, np.random.default_rng([seed, number])))
    (folder / "done").touch()


def _pickings() -> dict[str, Picking]:
    model, _ = read_model(None)

    def network(threshold: float | None) -> Picking:
        parameters = NetworkParameters(diameter=_DIAMETER, threshold=threshold)
        return lambda f, size, _: pick_network(
            f, pixel_size=size, parameters=parameters, model=model
        )

    log = LogParameters(min_diameter=_LOW, max_diameter=_HIGH)
    blob = BlobParameters(min_diameter=_LOW, max_diameter=_HIGH)
    return {
        "log": lambda f, size, _: pick_log(f, pixel_size=size, parameters=log),
        "blob": lambda f, size, ctf: pick_blob(f, pixel_size=size, parameters=blob, ctf=ctf),
        "network": network(None),
        "network 0.1": network(0.1),
    }


def _relion(folder: Path) -> pd.DataFrame:
    command = [
        *("relion_autopick", "--i", "micrographs_ctf.star", "--odir", "relion/", "--LoG"),
        *("--LoG_diam_min", f"{_LOW:g}", "--LoG_diam_max", f"{_HIGH:g}"),
        *("--shrink", "0", "--lowpass", "20"),
    ]
    cpu_seconds(command, folder)
    files = sorted((folder / "relion").rglob("*_autopick.star"))
    return pd.concat(
        picks_of_file(f, f.name.replace("_autopick.star", ".mrc"))[["micrograph", "x", "y", "fom"]]
        for f in files
    )


def _simulated(folder: Path, picker: str, random: np.random.Generator) -> pd.DataFrame:
    """Make picks from the truth, and from the false ones of our LoG what is mistaken."""
    truth = read_truth(folder / "truth.json")
    wrong = _wrong_picks(folder, truth)
    tables = []
    for name in truth.micrographs:
        true = _places(truth.rows, name)
        crowded = np.sort(np.hypot(*(true[:, None] - true).transpose(2, 0, 1)), 1)[:, 1]
        sensitivity, false, jitter, shift = {
            "shy": (np.full(len(true), 0.55), 0.05, 3.0, 0.0),
            "greedy": (np.full(len(true), 0.95), 0.9, 6.0, 0.0),
            "off-centre": (np.full(len(true), 0.85), 0.25, 3.0, 7.0),
            "crowd-blind": (np.where(crowded < 1.25 * _DIAMETER / _PIXEL_SIZE, 0.5, 0.9),
                            0.2, 4.0, 0.0),
            "random": (np.zeros(len(true)), 0.0, 0.0, 0.0),
        }[picker]  # fmt: skip
        found = true[random.random(len(true)) < sensitivity]
        found = found + random.normal(0, max(jitter, 1e-9), found.shape) + shift
        others = _places(wrong, name)
        others = others[random.random(len(others)) < false]
        n_anywhere = 60 if picker == "random" else int(random.poisson(20 * false))
        others = np.concatenate([others, random.uniform(0, _SIDE - 1, (n_anywhere, 2))])
        fom = np.concatenate([random.normal(1.5, 1, len(found)), random.normal(0, 1, len(others))])
        table = pd.DataFrame(np.concatenate([found, others]), columns=["x", "y"])
        tables.append(table.assign(micrograph=name, fom=fom))
    return pd.concat(tables)


def _wrong_picks(folder: Path, truth: Truth) -> pd.DataFrame:
    log = _read(folder, "log")
    kept = []
    for name, rows in log.groupby("micrograph"):
        places = rows[["x", "y"]].to_numpy(float)
        radius = 0.5 * _DIAMETER / _PIXEL_SIZE
        near = is_near(places, _places(truth.rows, str(name)), radius=radius)
        kept.append(rows[~near])
    return pd.concat(kept)


def _places(rows: pd.DataFrame, name: str) -> Points:
    return rows.loc[rows["micrograph"] == name, ["x", "y"]].to_numpy(np.float64)


def _write(folder: Path, picker: str, table: pd.DataFrame) -> None:
    out = folder / "picks" / picker
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted((folder / "micrographs").glob("*.mrc")):
        rows = table[table["micrograph"] == path.name]
        write_picks_file(out / f"{path.stem}_autopick.star", rows[["x", "y", "fom"]])


def _read(folder: Path, picker: str) -> pd.DataFrame:
    return pd.concat(
        picks_of_file(f, f.name.replace("_autopick.star", ".mrc"))
        for f in sorted((folder / "picks" / picker).glob("*.star"))
    )


def _compare(folder: Path, name: str, seed: int, case: str, steps: int) -> None:
    pickers = [p for p in _CASES[case] if (folder / "picks" / p).is_dir()]
    truth = read_truth(folder / "truth.json")
    score = _scorer(truth)

    def tell(by: str, found: PickScores, brier: float = np.nan, seconds: float = np.nan) -> None:
        print(f"{name:<5} {seed:>4} {case:<24} {by:<22} {found.average_precision:>6.3f} "
              f"{found.precision:>6.3f} {found.recall:>6.3f} {brier:>6.3f} {seconds:>6.0f}",
              flush=True)  # fmt: skip

    for picker in dict.fromkeys(pickers):
        tell(picker, score(_read(folder, picker)))
    table = open_micrographs([str(folder / "micrographs_ctf.star")])
    sets = [read_set(folder / "picks" / p, table) for p in pickers]
    fields = find_candidates(table, sets, radius=_RADIUS * _DIAMETER)
    counts = [f.found.votes.astype(float) for f in fields]
    by_votes = [
        score(_table(fields, [np.where(c >= k, c, -np.inf) for c in counts]))
        for k in range(1, len(pickers) + 1)
    ]
    best = int(np.argmax([s.average_precision for s in by_votes]))
    tell(f"votes, best k = {best + 1}", by_votes[best])
    start = time.process_time()
    votes = judge_by_votes(fields)
    _tell_chances(tell, "reliability", fields, votes.probability, truth, start)
    model, _ = read_model(None)
    prepared = [
        prepare_candidates(f, diameter=_DIAMETER, white_particles=False, mask=True) for f in fields
    ]
    found = judge_by_network(fields, prepared, model=model, steps=steps, radius=_RADIUS, seed=seed)
    _tell_chances(tell, "+ general network", fields, found.first.probability, truth, start)
    chance, positions = found.final.probability, found.positions
    _tell_chances(tell, "+ trained network", fields, chance, truth, start, positions)


def _scorer(truth: Truth) -> Callable[[pd.DataFrame], PickScores]:
    sizes = dict.fromkeys(truth.micrographs, _PIXEL_SIZE)
    return lambda picks: (
        evaluate_picks(
            picks, truth.rows, pixel_sizes=sizes, diameter=_DIAMETER, ignored=truth.ignored
        ).total
    )


def _table(
    fields: Sequence[CandidateField],
    values: Sequence[Points],
    positions: Sequence[Points] | None = None,
) -> pd.DataFrame:
    """Gather candidates that are kept apart, and of a finite value."""
    tables = []
    placed = [f.found.positions for f in fields] if positions is None else positions
    for field, value, places in zip(fields, values, placed, strict=True):
        kept = keep_apart(places, value, distance=_APART * _DIAMETER / _PIXEL_SIZE)
        kept = kept[np.isfinite(value[kept])]
        rows = pd.DataFrame(places[kept], columns=["x", "y"])
        tables.append(rows.assign(micrograph=Path(field.micrograph).name, fom=value[kept]))
    return pd.concat(tables)


def _tell_chances(
    tell: Callable[..., None],
    by: str,
    fields: Sequence[CandidateField],
    chance: Points,
    truth: Truth,
    start: float,
    positions: Sequence[Points] | None = None,
) -> None:
    """Score probabilities: AP over all, P and R at 0.5, and the Brier score of what counts."""
    seconds = time.process_time() - start
    counts = np.cumsum([len(f.found.positions) for f in fields])[:-1]
    table = _table(fields, np.split(chance, counts), positions)
    sizes = dict.fromkeys(truth.micrographs, _PIXEL_SIZE)
    whole = evaluate_picks(
        table, truth.rows, pixel_sizes=sizes, diameter=_DIAMETER, ignored=truth.ignored
    )
    picks = _scorer(truth)(table[table["fom"] >= 0.5])
    curve = whole.curve
    brier = float(((curve["threshold"] - curve["is_right"]) ** 2).mean())
    shown = {**picks.to_dict(), "average_precision": whole.total.average_precision}
    tell(by, PickScores(**shown), brier, seconds)


if __name__ == "__main__":
    main()
