"""Training and picking with the network and with Topaz: each step once, with what it used."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from class2d_runs import Usage, measured
from cryopick.picking.evaluate import PickScores, evaluate_picks
from cryopick.tables.relion import picks_of_file
from picker_sets import CRYOPICK, PickingSet, Split

__all__ = ["Picked", "pick", "scores", "train_network", "train_topaz"]

_ONE_CORE = {"network": ("--workers", "1", "--threads", "1"), "topaz": ("--threads", "1")}
_PICK = {"network": ("pick", "network"), "topaz": ("pick", "topaz", "pick")}
_REPEATS = {"network": 3, "topaz": 1}  # of what takes little more than the start
_COPIES = {"network": 6, "topaz": 1}  # of each field, to tell what one takes from the start
_EPOCHS = 3  # of Topaz, which keeps the best
_START, _UPDATE = 14.0, 0.55  # CPU-s of Topaz's start and of an update, for a first guess
_MORE = 1.08  # times the time of the network, that Topaz is aimed at
_ATTEMPTS = 4


@dataclass(frozen=True)
class Picked:
    """The picks of some fields, and the CPU seconds per field."""

    folder: Path
    whole: float  # with the start of the program
    further: float  # of a field more: without it


def train_network(
    fields: PickingSet, split: Split, seed: int, out: Path, words: Sequence[str], *, may_run: bool
) -> Usage | None:
    """Train the network on the labels of a split."""
    command = [
        *("pick", "train", split.labels, *fields.words, *_ONE_CORE["network"]),
        *("--seed", seed, *words, *(w for f in split.train for w in ("--micrographs", f))),
    ]
    return _once(out, command, may_run=may_run)


def train_topaz(
    fields: PickingSet, split: Split, seed: int, out: Path, budget: float | None
) -> Usage | None:
    """Train Topaz for at least `budget` CPU seconds; without one, find what a training used.

    It is told how many particles there are.
    """
    used = _recorded(out)
    update = _UPDATE
    for _ in range(_ATTEMPTS):
        if budget is None or (used is not None and used.cpu >= budget):
            break
        size = max(1, math.ceil((_MORE * budget - _START) / update / _EPOCHS))
        command = [
            *("pick", "topaz", "train", *split.train, "--labels", split.labels, *fields.words),
            *("--particles-per-micrograph", f"{split.particles:g}", "--seed", seed),
            *("--epochs", _EPOCHS, "--epoch-size", size, *_ONE_CORE["topaz"]),
        ]
        shutil.rmtree(out.parent, ignore_errors=True)  # with the picks of the model before
        used = _once(out, command, may_run=True)
        assert used is not None
        update = max((used.cpu - _START) / (size * _EPOCHS), 0.05)
    return used


def pick(
    program: str,
    fields: PickingSet,
    some: Sequence[Path],
    out: Path,
    *,
    model: Path | None,
    may_run: bool,
) -> Picked | None:
    """Pick some fields; one of them, and copies of all, tell what the start of it takes."""
    words = [*fields.words, *_ONE_CORE[program], *(() if model is None else ("--model", model))]
    alone = out.with_name(f"{out.name}_one")
    used = [
        _once(
            *(folder, [*_PICK[program], *which, *words]),
            may_run=may_run,
            repeats=_REPEATS[program],
        )
        for folder, which in ((out, some), (alone, some[:1]))
    ]
    many, copies = used[0], list(some)
    if _COPIES[program] > 1:
        copies = _copies(some, out.with_name(f"{out.name}_fields"), _COPIES[program])
        target = out.with_name(f"{out.name}_many")
        many = _once(target, [*_PICK[program], *copies, *words], may_run=may_run)
    if used[0] is None or used[1] is None or many is None:
        return None
    further = (many.cpu - used[1].cpu) / (len(copies) - 1)
    return Picked(out, used[0].cpu / len(some), further)


def _copies(some: Sequence[Path], folder: Path, number: int) -> list[Path]:
    """Give fields other names."""
    folder.mkdir(parents=True, exist_ok=True)
    links = [(folder / f"{n}_{f.name}", f) for n in range(number) for f in some]
    for link, field in links:
        link.unlink(missing_ok=True)
        link.symlink_to(field)
    return [link for link, _ in links]


def scores(fields: PickingSet, some: Sequence[Path], folder: Path) -> tuple[PickScores, PickScores]:
    """Score the picks of some fields, and all their stored peaks."""
    sizes = {f.name: fields.pixel_size for f in some}
    picks, peaks = (
        evaluate_picks(
            pd.concat(
                [picks_of_file(next(folder.rglob(f"{f.stem}_{k}.star")), f.name) for f in some]
            ),
            fields.truth,
            pixel_sizes=sizes,
            diameter=fields.diameter,
            ignored=fields.ignored,
        ).total
        for k in ("autopick", "peaks")
    )
    return picks, peaks


def _once(out: Path, words: Sequence[object], *, may_run: bool, repeats: int = 1) -> Usage | None:
    """Run a command into a folder, unless it has run there; give the middle of what it used."""
    command = [*(str(w) for w in words), "--out", str(out)]
    used = _recorded(out, command)
    if used is not None or not may_run:
        return used
    out.parent.mkdir(parents=True, exist_ok=True)
    print("running", out, flush=True)
    runs = []
    for _ in range(repeats):
        shutil.rmtree(out, ignore_errors=True)  # a job that goes on would cost less than it does
        runs.append(measured([CRYOPICK, *command], threads=1))
    used = sorted(runs, key=lambda u: u.cpu)[statistics.median_low(range(repeats))]
    _record(out).write_text(json.dumps({"command": command, "used": asdict(used)}))
    return used


def _recorded(out: Path, command: Sequence[str] = ()) -> Usage | None:
    """Find what a command used, if it has run; any command if none is given."""
    if not _record(out).is_file():
        return None
    stored = json.loads(_record(out).read_text())
    return Usage(**stored["used"]) if command in ((), stored["command"]) else None


def _record(out: Path) -> Path:
    return out.with_name(f"{out.name}.json")
