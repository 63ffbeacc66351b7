"""``cryopick run`` as a whole: what it finds on simulated and real fields, and what steps take.

Simulated: shapes that neither the picker nor the class scores were trained on, 12 fields of each
with junk, ice and carbon, and nothing said but the CTF of the table: no diameter. *AP* is over all
stored peaks of the run's picks; *AP truth* that of a network that ``pick train`` has trained on
all true particles of the same 10 fields, with the true diameter and all else as shipped; with
--same-diameter it is given the run's. With --tell-diameter the run is given the true one.
*Junk* is the share of the final particles whose position less origin lies within 0.3 diameters
of no true particle; those within half a diameter of one that the truth lists as ignored, as in an
aggregate, do not count, and *ignored* is their share. *Found* is the share of the true particles
that have a final one.

*Centring* is the mean distance of right picks from the truth, *aligned* the median distance of
picks from where the final classification puts the particles; marks by hand are farther away.

CPU is user and system time of a step within one process (``run_measured.py``), wall the seconds
of its record; the rest is the start of the program and the report. RELION's programs (3.1.3, with
--relion) work on the first shape, on the run's picks and with its numbers; their times are of
whole programs. One core each. Real: the fields of apoferritin with pixel size, voltage and
Cs of their table; those of beta-galactosidase up to the picks. Nothing is asserted. What is in
WORK is not done again: remove it after a change of the code.

    python benchmarks/run_quality.py --work WORK --relion first_picks first_particles
    python benchmarks/run_quality.py --work WORK --shapes --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from centring import centres, nearest
from class2d_runs import Table, measured
from cryopick.picking.evaluate import PickScores, is_near
from cryopick.pipeline.evaluate import read_truth
from cryopick.tables.relion import picks_of_file, read_particles, write_picks_file
from picker_runs import scores
from picker_sets import CRYOPICK, PickingSet, open_set
from run_relion import RELION_STEPS, run_relion

_SHAPES = {  # A; random shapes have numbers that no training draws
    "tetramer": 130.0,
    "cage": 160.0,
    "random300001": 150.0,
    "random300002": 180.0,
}
_REAL = {"apoferritin": "selection", "beta_galactosidase": "picks"}  # the last step
_PIXEL_SIZE, _SUBSET = 1.5, 10  # A; fields that the run learns from
_CROWD = 0.5  # particles for a square of a diameter
_ONE_CORE = ("--workers", "1", "--threads", "1")
_NEAR, _ON_IGNORED = 0.3, 0.5  # diameters
_TABLE = {"set": None, "AP": 3, "AP truth": 3, "ratio": 3, "F1": 3, "centring px": 2,
          "aligned px": 2, "true A": 0, "told A": 0, "truth": 0, "final": 0, "found": 3, "junk": 3,
          "ignored": 3, "CPU-s": 0, "wall s": 0, "again s": 1, "halted": None}  # fmt: skip


@dataclass(frozen=True)
class Final:
    """The particles that a run selected, against the truth."""

    n: int
    found: float  # share of the truth that has one
    junk: float  # share that is no particle
    ignored: float  # share on particles that do not count


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--work", type=Path, required=True, help="Folder for all that is made.")
    options.add_argument("--shapes", nargs="*", choices=_SHAPES, default=list(_SHAPES))
    options.add_argument("--fields", type=int, default=12)
    options.add_argument("--same-diameter", action="store_true", help="AP truth with the run's.")
    options.add_argument("--tell-diameter", action="store_true", help="Tell it the true one.")
    options.add_argument("--side", type=int, default=1024, help="Of a field, px of 1.5 A.")
    options.add_argument("--data", type=Path, help="Folder of real data.")
    options.add_argument("--real", nargs="+", choices=_REAL, default=list(_REAL))
    options.add_argument("--relion", nargs="*", choices=RELION_STEPS, help="All if none is named.")
    given = options.parse_args()
    if given.tell_diameter and given.relion is not None:
        options.error("--relion needs a diameter that the run has estimated")
    work = given.work.absolute()
    rows: list[dict[str, Any]] = []
    usages: dict[str, dict[str, Any]] = {}
    for shape in given.shapes:
        fields = _simulated(shape, work / shape, given.fields, given.side)
        home = work / shape / "told" if given.tell_diameter else work / shape
        table = work / shape / "fields" / "micrographs_ctf.star"
        usages[shape] = _run(
            table, home, "selection", fields.diameter if given.tell_diameter else None
        )
        rows.append(_row(fields, home, usages[shape]))
        told = rows[-1]["told A"] if given.same_diameter else fields.diameter
        rows[-1] |= _beside_truth(fields, work / shape, told, rows[-1].get("AP", 0.0))
    for name in given.real if given.data is not None else ():
        fields = open_set(name, work, given.data.absolute())
        table = given.data.absolute() / name / "micrographs.star"
        usages[name] = _run(table, work / name, _REAL[name])
        rows.append(_row(fields, work / name, usages[name]))
    relion: dict[str, Any] = {}
    if given.relion is not None and given.shapes:
        folder = work / given.shapes[0]
        facts = usages[given.shapes[0]]["result"]["steps"]
        for step in given.relion or RELION_STEPS:
            path = folder / "relion" / f"{step}.json"
            relion[step] = _kept(path, partial(run_relion, step, folder, facts))
    _print_tables(rows, usages, relion)
    _print_asked(rows)


def _simulated(shape: str, folder: Path, number: int, side: int) -> PickingSet:
    """Make fields that are crowded alike whatever the size of the particle."""
    diameter, out = _SHAPES[shape], folder / "fields"
    options = {
        "--phantoms": shape, "--phantom-diameter": diameter, "--number": number, "--width": side,
        "--height": side, "--pixel-size": _PIXEL_SIZE, "--aggregates": 1, "--ice-blobs": 1,
        "--particles": round(_CROWD * (side * _PIXEL_SIZE / diameter) ** 2),
        "--carbon-fraction": 0.25, "--seed": 21, "--workers": 1, "--out": out,
    }  # fmt: skip
    words = [str(word) for pair in options.items() for word in pair]
    command = [CRYOPICK, "simulate", "micrographs", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    truth = read_truth(out / "truth.json")
    fields = tuple(sorted((out / "micrographs").glob("*.mrc")))
    return PickingSet(shape, diameter, _PIXEL_SIZE, fields, truth.rows, truth.ignored)


def _run(table: Path, folder: Path, until: str, diameter: float | None = None) -> dict[str, Any]:
    """Run a project, and the same command once more, which has nothing to do."""
    told = () if diameter is None else (diameter,)

    def run() -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        script, usage = Path(__file__).with_name("run_measured.py"), folder / "usage.json"
        words = [str(w) for w in (script, table, folder / "project", usage, until, *told)]
        whole = measured([sys.executable, *words], threads=1)
        return {**json.loads(usage.read_text()), "whole": asdict(whole)}

    def again() -> dict[str, Any]:
        words = [str(table), "--out", str(folder / "project"), "--until", until, *_ONE_CORE]
        words += [w for d in told for w in ("--diameter", str(d))]
        return asdict(measured([CRYOPICK, "run", *words], threads=1))

    usage = _kept(folder / "run.json", run)
    if usage["result"]["halted"] is None:
        usage["again"] = _kept(folder / "again.json", again)
    return usage


def _row(fields: PickingSet, folder: Path, usage: dict[str, Any]) -> dict[str, Any]:
    """Score a run."""
    project, steps, halted = folder / "project", usage["steps"], usage["result"]["halted"]
    told = usage["result"]["steps"].get("diameter", {}).get("diameter", fields.diameter)
    row: dict[str, Any] = {"set": fields.name, "true A": fields.diameter, "told A": told}
    row |= {"truth": len(fields.truth), "halted": halted and halted["step"]}
    row |= {"CPU-s": usage["whole"]["cpu"], "wall s": usage["whole"]["wall"]}
    row |= {"again s": usage.get("again", {}).get("wall")}
    if "picks" in steps:
        picked, peaks = scores(fields, fields.fields, (project / "picks").resolve())
        row |= {"AP": peaks.average_precision, "F1": picked.f1, "best F1": peaks.best_f1}
        row["centring px"] = (picked.centring_error or np.nan) / fields.pixel_size
    if "selection" in steps:
        final = asdict(_final(fields, project / "selection" / "particles.star"))
        row |= {"final": final.pop("n"), **final}
        aligned = centres(project / "selection" / "particles.star")
        gaps = nearest(aligned, _picks_of(fields, project / "picks"))
        row["aligned px"] = float(np.median(gaps)) / fields.pixel_size
    return row


def _picks_of(fields: PickingSet, folder: Path) -> pd.DataFrame:
    """Read the picks of all fields."""
    paths = {f.name: f"{f.stem}_autopick.star" for f in fields.fields}
    tables = [picks_of_file(next(folder.resolve().rglob(p)), n) for n, p in paths.items()]
    return pd.concat(tables, ignore_index=True)


def _beside_truth(
    fields: PickingSet, folder: Path, diameter: float, precision: float
) -> dict[str, float]:
    out = folder / ("truth" if diameter == fields.diameter else "truth_told")
    most = _trained_on_truth(fields, out, diameter).average_precision
    return {"AP truth": most, "ratio": precision / most}


def _trained_on_truth(fields: PickingSet, out: Path, diameter: float) -> PickScores:
    """Train on all that is to be known of the fields that the run learns from, and pick all."""
    table = out.parent / "fields" / "micrographs_ctf.star"
    folders = {"labels": fields.truth, "unsure": fields.ignored}
    words: list[str] = []
    for name, rows in folders.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for field in fields.fields[:_SUBSET]:
            mine = rows[rows["micrograph"] == field.name][["micrograph", "x", "y"]]
            write_picks_file(out / name / f"{field.stem}_autopick.star", mine)
    if len(fields.ignored):
        words = ["--unsure", str(out / "unsure")]
    said = ["--diameter", str(diameter), *_ONE_CORE, "--out"]
    train = [CRYOPICK, "pick", "train", str(out / "labels"), "--micrographs", str(table), *words]
    pick = [CRYOPICK, "pick", "network", str(table), "--model", str(out / "train")]
    for command, name in ((train, "train"), (pick, "picks")):

        def run(command: list[str] = command, name: str = name) -> dict[str, Any]:
            return asdict(measured([*command, *said, str(out / name)], threads=1))

        _kept(out / f"{name}.json", run)
    return scores(fields, fields.fields, out / "picks")[1]


def _final(fields: PickingSet, path: Path) -> Final:
    """Compare where alignment puts the selected particles with where they are."""
    rows = read_particles(path).rows
    known, junk, ignored, found = fields.truth, 0, 0, 0
    for field in fields.fields:
        mine = rows[[Path(m).name == field.name for m in rows["micrograph"]]]
        centres = mine[["x", "y"]].to_numpy(float)
        centres -= mine[["shift_x", "shift_y"]].to_numpy(float) / fields.pixel_size
        true, other = (_positions(t, field.name) for t in (known, fields.ignored))
        size = fields.diameter / fields.pixel_size
        is_right = is_near(centres, true, radius=_NEAR * size)
        is_ignored = ~is_right & is_near(centres, other, radius=_ON_IGNORED * size)
        junk += int((~is_right & ~is_ignored).sum())
        ignored += int(is_ignored.sum())
        found += int(is_near(true, centres, radius=_NEAR * size).sum())
    n = len(rows)
    return Final(n, found / len(known), junk / max(n - ignored, 1), ignored / max(n, 1))


def _positions(rows: pd.DataFrame, name: str) -> np.ndarray:
    return np.asarray(rows[rows["micrograph"] == name][["x", "y"]], np.float64)


def _kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Read what was measured before, or measure it."""
    if path.is_file():
        return dict(json.loads(path.read_text()))
    print("running", path, file=sys.stderr, flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = make()
    path.write_text(json.dumps(values))
    return values


def _print_tables(
    rows: list[dict[str, Any]], usages: Mapping[str, dict[str, Any]], relion: Mapping[str, Any]
) -> None:
    quality = Table(_TABLE, is_json=False)
    for row in rows:
        quality.add({k: v for k, v in row.items() if k in _TABLE})
    sets = {**{name: usage["steps"] for name, usage in usages.items()}, "RELION": relion}
    columns = [name for name, steps in sets.items() if steps]
    costs = Table({"step": None, **dict.fromkeys(columns)}, is_json=False)
    costs.note("\nSeconds of each step, CPU / wall, one core")
    for step in dict.fromkeys(step for name in usages for step in sets[name]):
        used = {name: sets[name][step] for name in columns if step in sets[name]}
        costs.add(
            {"step": step, **{n: f"{u['cpu']:.1f} / {u['wall']:.1f}" for n, u in used.items()}}
        )


def _print_asked(rows: list[dict[str, Any]]) -> None:
    asked = Table({"set": None, "what": None, "asked": None, "measured": 3}, is_json=False)
    asked.note("\nWhat is asked")
    wanted = {
        "ratio": "at least 0.9", "junk": "at most 0.05", "again s": "at most 5",
    }  # fmt: skip
    of_real = {
        "apoferritin": {
            "F1": "at least 0.95", "centring px": "at most 3", "wall s": "at most 1200",
            "again s": "at most 5",
        },
        "beta_galactosidase": {"F1": "at least 0.78"},
    }  # fmt: skip
    for row in rows:
        for what, limit in of_real.get(row["set"], wanted).items():
            words = {"set": row["set"], "what": what, "asked": limit}
            asked.add({**words, "measured": row.get(what)})


if __name__ == "__main__":
    main()
