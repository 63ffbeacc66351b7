"""Measure the scores of classes: against truth, on RELION's classes, on real ones, and their cost.

    python benchmarks/class_scores.py held-out WORK [--sets 30] [--plot PNG]
    python benchmarks/class_scores.py relion ../shared/data/stacks/mixture --work WORK   (11 min)
    python benchmarks/class_scores.py averages DATA/class_averages/mixture_100_classes.mrcs
    python benchmarks/class_scores.py apoferritin ../shared/data/apoferritin --work WORK
    python benchmarks/class_scores.py speed WORK

`held-out` makes sets as training does (training/simulated_classifications.py), but of shapes, box
and pixel sizes that training never draws, each classified with and without a junk class; runs in
WORK are not made again. What a particle, junk and unclear is says
`label_run` there. A class of 5 members or more is good if it has more particles than junk, junk
otherwise, and left out of the AUC if most of it is unclear; "small AUC" counts classes of any size.
Kept are the members of classes that score 0.5 or more: "particles kept" of all particles in
classes, "of all" of all particles in the table; "junk dropped" of all junk in the table, with what
the classification itself called junk, "of classes" of the junk in classes alone. `averages` and
`apoferritin` have no truth: look at the gallery.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from class2d import RELION_3, STACK_OPTIONS
from class2d_runs import Table, measured

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from cryopick.pipeline.class2d_references import averages_of_run
from cryopick.report.calibration_chart import draw_calibration
from cryopick.report.figures import figure_to_png
from cryopick.selection.class_agreement import measure_agreement
from cryopick.selection.class_features import class_inputs
from cryopick.selection.class_network import SCORE_FLOOR
from cryopick.selection.class_scorer import ClassScorer, read_scorer, score_classes
from cryopick.tables.relion_class2d import read_classification
from simulated_classifications import label_run
from train_class_scores import make_sets, read_inputs

_FEWEST = 5  # members
_THRESHOLD = 0.5
_WIDTH, _COLOURS = 1500, 96  # of a picture for the docs


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = options.add_subparsers(required=True)
    for name, function, what in (
        ("held-out", held_out, "Folder for the sets."),
        ("relion", relion, "Folder of a stack with truth."),
        ("averages", averages, "Stack of averages."),
        ("apoferritin", apoferritin, "Folder of the micrographs."),
        ("speed", speed, "Folder with the sets of held-out."),
    ):
        one = parts.add_parser(name)
        one.add_argument("path", type=Path, help=what)
        one.add_argument("--weights", type=Path, help="Instead of those shipped.")
        one.add_argument("--work", type=Path, default=Path("class_scores_work"))
        one.add_argument("--sets", type=int, default=30)
        one.add_argument("--workers", type=int, default=2)
        one.add_argument("--plot", type=Path, help="PNG to write.")
        one.set_defaults(function=function)
    given = options.parse_args()
    torch.set_num_threads(1)
    given.function(given)


def held_out(given: argparse.Namespace) -> None:
    """Score sets of other shapes."""
    runs = make_sets(range(given.sets), given.path, workers=given.workers, seed=1, held_out=True)
    scorer = read_scorer(given.weights)
    tables = [_judged(run, scorer) for run in runs]
    table = Table(_COLUMNS, is_json=False)
    for words, some in (
        ("all", tables),
        ("with a junk class", tables[::2]),
        ("without", tables[1::2]),
        ("as bare stacks", [_judged(run, scorer, is_bare=True) for run in runs]),
    ):
        table.add({"runs": words, **_measures(some)})
    table.note(f"{given.sets} sets, two runs of each")
    if given.plot is not None:
        everything = pd.concat([t for t, _ in tables])
        figure = draw_calibration(
            everything["score"].to_numpy(),
            everything["truth"].to_numpy(),
            weights=everything["n_members"].to_numpy(float),
            title="Class scores of shapes never trained on",
        )
        _write_small(io.BytesIO(figure_to_png(figure, dpi=160)), given.plot)


def relion(given: argparse.Namespace) -> None:
    """Score the classes that RELION 3.1.3 makes of a stack."""
    out = given.work / given.path.name
    if not (out / "out" / "run_it025_optimiser.star").exists():
        if shutil.which("relion_refine") is None:
            sys.exit("relion_refine is not installed (Debian: apt install relion)")
        (out / "out").mkdir(parents=True, exist_ok=True)
        for file in ("particles.star", "particles.mrcs"):
            shutil.copyfile(given.path / file, out / file)
        command = ["relion_refine", "--i", "particles.star", "--o", "out/run", *RELION_3.split()]
        command += ["--iter", "25", "--K", str(STACK_OPTIONS["classes"])]
        measured(command, threads=1, folder=out)
    run = out / "out"
    label_run(run, given.path).to_csv(run / "labels.csv", index=False)
    scorer = read_scorer(given.weights)
    table = Table(_COLUMNS, is_json=False)
    table.add({"runs": given.path.name, **_measures([_judged(run, scorer)])})
    table.add({"runs": "as a bare stack", **_measures([_judged(run, scorer, is_bare=True)])})


def averages(given: argparse.Namespace) -> None:
    """Draw real averages by score."""
    _select(given, given.path, given.work / "averages")


def apoferritin(given: argparse.Namespace) -> None:
    """Pick real micrographs loosely, classify, and draw the classes by score."""
    out = given.work / "apoferritin"
    lens = ["--voltage", "300", "--spherical-aberration", "2.7"]
    size = ["--min-diameter", "110", "--max-diameter", "140"]
    table = str(out / "ctf" / "micrographs_ctf.star")
    for command in (
        ["ctf", "estimate", str(given.path / "micrographs.star"), "--out", str(out / "ctf"), *lens],
        ["pick", "log", table, "--out", str(out / "pick"), "--mode", "relion", *size,
         "--adjust-threshold", "-0.5"],
        ["extract", table, str(out / "pick"), "--out", str(out / "extract"), "--box-size", "144",
         "--rescale", "72"],
        ["class2d", "em", str(out / "extract" / "particles.star"), "--out", str(out / "classes"),
         "--classes", "20", "--diameter", "125", "--no-junk"],
    ):  # fmt: skip
        _cryopick(command)
    _select(given, out / "classes", out / "select")


def speed(given: argparse.Namespace) -> None:
    """Time the scores of 100 classes."""
    runs = sorted(p.parent for p in given.path.glob("set_*/labels.csv"))
    scorer = read_scorer(given.weights)
    n_classes = 0
    used = 0.0
    for run in runs:
        classification = read_classification(run)
        pixels = averages_of_run(classification)
        start = time.process_time()
        inputs = class_inputs(
            pixels,
            pixel_size=classification.model.pixel_size,
            mask_diameter=None,
            classification=classification,
        )
        score_classes(inputs, scorer)
        used += time.process_time() - start
        n_classes += len(pixels)
        if n_classes >= 100:
            break
    print(f"{100 * used / n_classes:.2f} CPU-s for 100 classes ({n_classes} timed)")


_COLUMNS: dict[str, int | None] = {
    "runs": None, "classes": 0, "AUC": 3, "small AUC": 3, "particles kept": 3, "of all": 3,
    "junk dropped": 3, "of classes": 3, "unclear kept": 3, "purity before": 3, "after": 3,
}  # fmt: skip


def _judged(
    run: Path, scorer: ClassScorer, *, is_bare: bool = False
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Scores beside the truth, one row for each class, and how many the run itself left out."""
    labels = pd.read_csv(run / "labels.csv")
    inputs = read_inputs(run)
    if is_bare:
        inputs = class_inputs(averages_of_run(read_classification(run)))
    scores = score_classes(inputs, scorer)
    none = labels[labels["class_number"] == 0].iloc[0]
    labels = labels[labels["class_number"] > 0]
    table = labels.assign(
        score=np.nan_to_num(scores.score[labels["class_number"] - 1]),
        truth=labels["purity"] * (SCORE_FLOOR + (1 - SCORE_FLOOR) * labels["quality"]),
    )
    return table, {"true": int(none["n_true"]), "junk": int(none["n_junk"])}


def _measures(judged: list[tuple[pd.DataFrame, dict[str, int]]]) -> dict[str, Any]:
    table = pd.concat([t for t, _ in judged])
    true, junk = table["n_true"], table["n_junk"]
    kept = table["score"] >= _THRESHOLD
    out_true = sum(left["true"] for _, left in judged)
    out_junk = sum(left["junk"] for _, left in judged)
    is_good = (true > junk).to_numpy()
    score = table["score"].to_numpy()
    is_clear = (table["n_unclear"] <= table["n_members"] / 2).to_numpy()
    large = (table["n_members"] >= _FEWEST).to_numpy() & is_clear
    return {
        "classes": len(table),
        "AUC": _auc(score[large], is_good[large]),
        "small AUC": _auc(score[is_clear], is_good[is_clear]),
        "particles kept": true[kept].sum() / true.sum(),
        "of all": true[kept].sum() / (true.sum() + out_true),
        "junk dropped": 1 - junk[kept].sum() / (junk.sum() + out_junk),
        "of classes": 1 - junk[kept].sum() / junk.sum(),
        "unclear kept": table["n_unclear"][kept].sum() / max(1, table["n_unclear"].sum()),
        "purity before": true.sum() / table["n_members"].sum(),
        "after": true[kept].sum() / table["n_members"][kept].sum(),
    }


def _auc(score: NDArray[np.float64], is_good: NDArray[np.bool_]) -> float:
    """Chance that a good class scores above a junk one; ties count a half."""
    if is_good.all() or not is_good.any():
        return float("nan")
    return measure_agreement(score, is_good, np.ones(len(score))).auc


def _select(given: argparse.Namespace, classes: Path, out: Path) -> None:
    command = ["select", "classes", str(classes), "--out", str(out), "--overwrite"]
    if given.weights is not None:
        command += ["--weights", str(given.weights)]
    _cryopick(command)
    if given.plot is not None:
        _write_small(out / "class_scores.png", given.plot)


def _write_small(source: Path | io.BytesIO, target: Path) -> None:
    """Write a picture for the docs: at most `_WIDTH` px wide, few colours."""
    picture = Image.open(source).convert("RGB")
    if picture.width > _WIDTH:
        picture = picture.resize((_WIDTH, round(_WIDTH * picture.height / picture.width)))
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(_COLOURS).save(target, optimize=True)


def _cryopick(command: list[str]) -> None:
    program = str(Path(sys.executable).parent / "cryopick")
    subprocess.run([program, *command], check=True)


if __name__ == "__main__":
    main()
