"""The picking network against Topaz: the same fields, labels, CPU time and scores, in one run.

``cryopick pick network`` with its general model and ``cryopick pick topaz pick`` with Topaz's own
pick all fields of every set. Then each seed draws four fields and 200 particles of them; ``pick
train`` learns from these in its own time, and Topaz trains its default network (resnet8, with its
shipped weights) on the same labels for at least the same CPU time, and is told how many particles
there are. The other eight fields are the test. One thread each; both leave out the same edges,
ice and carbon. CPU seconds are user and system time of the whole command with all it starts;
"further field" is without the start-up: all fields less one field, by the fields between.

A pick within 0.3 diameters of the truth is right; AP and best F1 are over all stored peaks, F1 as
shipped over the picks. Nothing is asserted. What is in WORK is not done again; results of the
network are kept by its weights: remove them after a change of the code. Topaz is found as
``cryopick pick topaz`` finds it.

    python benchmarks/network_vs_topaz.py --data ../shared/data --work WORK
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import sub, truediv
from pathlib import Path
from statistics import fmean

from cryopick.picking.evaluate import PickScores
from cryopick.pipeline.network_picker import model_identity
from cryopick.pipeline.pick_models import read_model
from picker_runs import Picked, pick, scores, train_network, train_topaz
from picker_sets import SETS, PickingSet, open_set, split_set

_TRAINED = ("easy", "hard", "apoferritin")
_GENERAL, _OWN, _PRETRAINED, _TUNED = "network", "network trained", "Topaz", "Topaz trained"
_HEAD = ("set", "picker", "AP", "best F1", "F1 shipped", "centring A")
_COSTS = ("CPU-s field", "further field")
_AP, _F1, _CPU = 0, 2, (4, 5, 6)  # columns of Result.values


@dataclass(frozen=True)
class Result:
    """One picker on one choice of fields."""

    shipped: PickScores
    peaks: PickScores
    picked: Picked
    training: float = 0.0  # CPU-s

    @property
    def values(self) -> list[float]:
        """The columns of the tables."""
        centring = self.shipped.centring_error
        return [
            self.peaks.average_precision,
            self.peaks.best_f1,
            self.shipped.f1,
            float("nan") if centring is None else centring,
            self.picked.whole,
            self.picked.further,
            self.training,
        ]


Results = dict[tuple[str, str], list[Result]]  # of a set and a picker, for each seed


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(__file__).parents[2] / "shared" / "data"
    named = os.environ.get("CRYOPICK_TEST_DATA", str(beside))
    options.add_argument("--data", type=Path, default=Path(named), help="Folder of real data.")
    options.add_argument("--work", type=Path, required=True, help="Folder for all that is made.")
    options.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--only", choices=("network", "topaz"), help="Run no other program.")
    options.add_argument("--model", type=Path, help="General model, instead of the shipped one.")
    options.add_argument("--steps", type=int, help="Of training the network, to try the script.")
    given = options.parse_args()
    whole: Results = {}
    split: Results = {}
    for name in given.sets:
        fields = open_set(name, given.work.absolute(), given.data.absolute())
        one = _Comparison(fields, given)
        _add(whole, name, one.untrained())
        for seed in range(1, given.seeds + 1) if name in _TRAINED else ():
            _add(split, name, one.trained(seed))
    _print_table("As they come, all fields", [*_HEAD, *_COSTS], whole)
    _print_table(
        f"200 particles of 4 fields, the other 8 fields; mean of {given.seeds} seeds",
        [*_HEAD, *_COSTS, "training CPU-s"],
        split,
    )
    _print_range(split)
    _print_asked(whole, split)


class _Comparison:
    """Both programs on one set."""

    def __init__(self, fields: PickingSet, given: argparse.Namespace) -> None:
        self.fields, self.model = fields, given.model
        self.runs_network = given.only != "topaz"
        self.runs_topaz = given.only != "network"
        work = given.work.absolute()
        identity = model_identity(read_model(given.model)[0])
        self.own = work / f"network_{identity}" / fields.name
        self.topaz = work / "topaz" / fields.name
        self.labels = work / "labels" / fields.name
        self.words: list[str] = []
        if given.model is not None:
            self.words += ["--model", str(given.model.absolute())]
        if given.steps is not None:
            self.words += ["--steps", str(given.steps)]

    def untrained(self) -> dict[str, Result | None]:
        """Both as they come, on all fields."""
        self.general = pick(
            *("network", self.fields, self.fields.fields, self.own / "general"),
            model=self.model and self.model.absolute(),
            may_run=self.runs_network,
        )
        self.pretrained = pick(
            *("topaz", self.fields, self.fields.fields, self.topaz / "pretrained"),
            model=None,
            may_run=self.runs_topaz,
        )
        some = self.fields.fields
        return {
            _GENERAL: self._result(self.general, some),
            _PRETRAINED: self._result(self.pretrained, some),
        }

    def trained(self, seed: int) -> dict[str, Result | None]:
        """Both as they come and trained, on the fields that a seed leaves to test on."""
        name = f"seed{seed}"
        split = split_set(self.fields, seed, self.labels / name)
        out, topaz = self.own / name / "train", self.topaz / name / "train"
        is_budget_needed = not topaz.with_name("train.json").is_file()
        own_cost = train_network(
            *(self.fields, split, seed, out, self.words),
            may_run=self.runs_network or is_budget_needed,
        )
        budget = own_cost.cpu if own_cost is not None and self.runs_topaz else None
        topaz_cost = train_topaz(self.fields, split, seed, topaz, budget)
        results = {
            _GENERAL: self._result(self.general, split.test),
            _PRETRAINED: self._result(self.pretrained, split.test),
        }
        for key, program, cost, model, may_run in (
            (_OWN, "network", own_cost, out / "model.npz", self.runs_network),
            (_TUNED, "topaz", topaz_cost, topaz / "model.sav", self.runs_topaz),
        ):
            if cost is None:
                continue
            target = model.parents[1] / "pick"
            picked = pick(program, self.fields, split.test, target, model=model, may_run=may_run)
            results[key] = self._result(picked, split.test, cost.cpu)
        return results

    def _result(
        self, picked: Picked | None, some: Sequence[Path], training: float = 0.0
    ) -> Result | None:
        if picked is None:
            return None
        return Result(*scores(self.fields, some, picked.folder), picked, training)


def _add(results: Results, name: str, found: dict[str, Result | None]) -> None:
    for picker, result in found.items():
        if result is not None:
            results.setdefault((name, picker), []).append(result)


def _print_table(title: str, names: Sequence[str], results: Results) -> None:
    print(f"\n{title}\n" + "  ".join([f"{names[0]:18}", f"{names[1]:15}", *names[2:]]))
    for (name, picker), found in results.items():
        means = [fmean(column) for column in zip(*(r.values for r in found), strict=True)]
        columns = zip(names[2:], means, (3, 3, 3, 1, 2, 3, 0), strict=False)
        cells = [f"{value:{len(head)}.{digits}f}" for head, value, digits in columns]
        print("  ".join([f"{name:18}", f"{picker:15}", *cells]))


def _print_range(results: Results) -> None:
    print("\nAP, F1 as shipped and training CPU-s of each seed")
    for (name, picker), found in results.items():
        cells = [f"{r.values[0]:.3f} {r.values[2]:.3f} {r.training:4.0f}" for r in found]
        print("   ".join([f"{name:18}", f"{picker:15}", *cells]))


def _print_asked(whole: Results, split: Results) -> None:
    print("\nWhat is asked")
    for (name, picker), found in split.items():
        if picker in (_PRETRAINED, _TUNED) and (name, _OWN) in split:
            gaps = _compare(sub, split[name, _OWN], found, _AP)
            print(f"{name}: AP of {_OWN} - {picker}: {_spread(gaps, '+.3f')}; at least 0.02")
    for (name, picker), found in split.items():
        if picker in (_PRETRAINED, _TUNED) and (name, _OWN) in split:
            fields, further, training = (
                _spread(_compare(truediv, found, split[name, _OWN], c), ".2f") for c in _CPU
            )
            ratio = f"{name}: CPU of {picker} / {_OWN}:"
            print(f"{ratio} picking {fields}, further field {further}; at least 10")
            if picker == _TUNED:
                print(f"{ratio} training {training}; at least 1")
    for (name, picker), found in whole.items():
        if picker == _PRETRAINED and (name, _GENERAL) in whole:
            gaps = _compare(sub, whole[name, _GENERAL], found, _AP)
            print(f"{name}: AP of {_GENERAL} - {picker}, as they come: {gaps[0]:+.3f}; at least 0")
    for results, picker, least in ((whole, _GENERAL, 0.80), (split, _OWN, 0.95)):
        found = results.get(("apoferritin", picker), [])
        if found:
            f1 = _spread([r.values[_F1] for r in found], ".3f")
            print(f"apoferritin: F1 as shipped of {picker}: {f1}; at least {least}")


def _compare(
    by: Callable[[float, float], float], one: list[Result], other: list[Result], column: int
) -> list[float]:
    """Compare two pickers by a column, seed by seed."""
    return [by(a.values[column], b.values[column]) for a, b in zip(one, other, strict=False)]


def _spread(values: Sequence[float], form: str) -> str:
    mean = f"{fmean(values):{form}}"
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
