"""Learn a person's taste from selections in folders, and write weights that score by it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import DataError, FormatError, OutputError, ParameterError
from cryopick.io.atomic import write_json, writing
from cryopick.io.weights import write_weights
from cryopick.pipeline.job import Job, identity_of
from cryopick.pipeline.scored_classes import (
    IMAGES,
    SCORES,
    WEIGHTS,
    ScoredClasses,
    read_scored_classes,
    weights_file,
)
from cryopick.report.agreement_chart import draw_agreement
from cryopick.report.figures import figure_to_png
from cryopick.selection.class_agreement import THRESHOLD, Agreement
from cryopick.selection.class_features import FEATURES
from cryopick.selection.class_scorer import (
    ClassScorer,
    hidden_values,
    read_notes,
    read_scorer,
    score_classes,
    to_weights,
)
from cryopick.selection.class_taste import JudgedClasses, LearnedTaste, learn_taste
from cryopick.tables.model import require_columns

__all__ = ["Learning", "learn_selection"]

_NAME = "select learn"
CHART, RESULT = "agreement.png", "result.json"
_FEW_SELECTED = 5  # chosen classes, or others: with fewer, the measured agreement is vague


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What was learned; `values` are ready for JSON."""

    values: dict[str, Any]


def learn_selection(
    folders: Sequence[Path],
    out: Path,
    *,
    weights: Path | None = None,
    overwrite: bool = False,
) -> Learning:
    """Learn from classes that a person has chosen how that person would score classes.

    Parameters
    ----------
    folders
        Of ``select classes`` with ``--classes`` or ``--selection``, one for each run.
    out
        Folder of the job.
    weights
        To begin from, or the folder of an earlier job with them; those shipped if
        not given. A taste in them is replaced.
    overwrite
        Replace what another job of this kind left in `out`.

    Returns
    -------
    Learning
        Measurements, files and warnings; also in ``result.json``.

    Raises
    ------
    FormatError
        If a folder is not one of select classes.
    ParameterError
        If a folder or a run is given twice.
    DataError
        If a selection was not made by a person, or there is too little to learn from.
    CryopickError
        If a folder cannot be read, or `out` cannot be written or holds something else.
    """
    out, folders, weights = Path(out), [Path(f) for f in folders], weights_file(weights)
    for folder in folders:
        _require_choices(folder)
    _require_different(folders)
    _protect(out, folders, weights)
    job = Job(
        out,
        name=_NAME,
        parameters={
            "choices": [f"{f} ({identity_of(f / SCORES, f / IMAGES)})" for f in folders],
            "weights": None if weights is None else f"{weights} ({identity_of(weights)})",
        },
        inputs=[str(p) for p in (*folders, weights) if p is not None],
        results=(WEIGHTS, CHART, RESULT),
        overwrite=overwrite,
    )
    job.stored_parameters()  # refuses a folder before there is work
    runs = _read_runs(folders)
    scorer = read_scorer(weights)
    learned = learn_taste([_judge(run, scorer) for run in runs])
    with job:
        return Learning(values=_write(out, folders, learned, scorer, weights))


def _require_choices(folder: Path) -> None:
    if (folder / SCORES).is_file():
        return
    if not folder.exists():
        got = "no such folder"
    elif not folder.is_dir():
        got = "a file"
    else:
        got = f"a folder without {SCORES}" if any(folder.iterdir()) else "an empty folder"
    raise FormatError(
        str(folder),
        must="be a folder of select classes",
        got=got,
        remedy="Choose first with cryopick select classes RUN --classes 1,3,7 --out FOLDER",
    )


def _require_different(folders: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (known := seen.setdefault(folder.resolve(), folder)) is not folder:
            _refuse_twice(folder, known)


def _refuse_twice(folder: Path, known: Path) -> None:
    raise ParameterError(
        str(folder),
        must="hold choices of another run than the other folders do",
        got=f"the classes of {known} again",
        remedy="Leave one of them out",
    )


def _protect(out: Path, folders: Sequence[Path], weights: Path | None) -> None:
    """Refuse to write among the inputs."""
    inputs = [f.resolve() for f in folders]
    if weights is not None:
        inputs.append(Path(weights).resolve().parent)
    if out.resolve() in inputs:
        raise OutputError(
            str(out),
            must="be another folder than those of the input",
            got="one of them",
            remedy="Choose another --out",
        )


def _read_runs(folders: Sequence[Path]) -> list[ScoredClasses]:
    """Read choices; the same classes in two folders would be held out from themselves."""
    runs: list[ScoredClasses] = []
    seen: dict[str, Path] = {}
    for folder in folders:
        run = read_scored_classes(folder)
        remedy = "Run cryopick select classes again"
        require_columns(run.inputs.features, FEATURES, table=str(folder / SCORES), remedy=remedy)
        if not run.is_by_hand:
            raise DataError(
                str(folder),
                must="hold classes that a person has chosen",
                got="a selection by score",
                remedy="Look at its class_scores.png, and choose with cryopick select classes "
                "RUN --classes 1,3,7 --out FOLDER",
            )
        picture = hashlib.sha256(np.ascontiguousarray(run.inputs.images).tobytes()).hexdigest()
        if (known := seen.setdefault(picture, folder)) is not folder:
            _refuse_twice(folder, known)
        runs.append(run)
    return runs


def _judge(run: ScoredClasses, scorer: ClassScorer) -> JudgedClasses:
    bare = replace(scorer, taste=None)
    return JudgedClasses(
        score=score_classes(run.inputs, bare).score,
        hidden=hidden_values(run.inputs, bare),
        is_selected=run.is_selected,
    )


def _write(
    out: Path,
    folders: Sequence[Path],
    learned: LearnedTaste,
    scorer: ClassScorer,
    weights: Path | None,
) -> dict[str, Any]:
    measured = _measurements(learned, n_runs=len(folders))
    notes = {**read_notes(weights), "learned": measured}
    write_weights(out / WEIGHTS, to_weights(replace(scorer, taste=learned.taste), notes))
    _draw(out / CHART, learned)
    values = {
        **measured,
        "runs": [_of_run(f, learned, k) for k, f in enumerate(folders)],
        "weights": str(out / WEIGHTS),
        "chart": str(out / CHART),
        "warnings": _warnings(learned, scorer, n_runs=len(folders)),
        "files": [WEIGHTS, CHART, RESULT],
    }
    write_json(out / RESULT, values)
    return values


def _measurements(learned: LearnedTaste, *, n_runs: int) -> dict[str, Any]:
    """Gather what goes into the weights too: numbers, and no names of files."""
    return {
        "is_changed": learned.taste is not None,
        "n_runs": n_runs,
        "n_classes": learned.n_classes,
        "n_selected": learned.n_selected,
        "before": _numbers(learned.before),
        "after": _numbers(learned.after),
        "freedom": asdict(learned.freedom),
        "trials": [
            {
                **asdict(t.freedom),
                "log_loss": round(t.log_loss, 6),
                "excess": round(t.excess, 6),
                "error": round(t.error, 6),
                "is_good": t.is_good,
            }
            for t in learned.trials
        ],
        "slope": 1.0 if learned.taste is None else learned.taste.slope,
        "offset": 0.0 if learned.taste is None else learned.taste.offset,
    }


def _numbers(agreement: Agreement) -> dict[str, float]:
    return {name: round(value, 6) for name, value in asdict(agreement).items()}


def _of_run(folder: Path, learned: LearnedTaste, number: int) -> dict[str, Any]:
    before, after = learned.score_before[number], learned.score_after[number]
    is_known, is_selected = np.isfinite(before), learned.is_selected[number]
    return {
        "folder": str(folder),
        "n_classes": int(is_known.sum()),
        "n_selected": int(is_selected[is_known].sum()),
        "n_agree_before": int(((before >= THRESHOLD) == is_selected)[is_known].sum()),
        "n_agree_after": int(((after >= THRESHOLD) == is_selected)[is_known].sum()),
    }


def _draw(path: Path, learned: LearnedTaste) -> None:
    before = np.concatenate(learned.score_before)
    after = np.concatenate(learned.score_after)
    is_known = np.isfinite(before)
    panels = [(f"Score as it was (AUC {learned.before.auc:.2f})", before[is_known])]
    if learned.taste is not None:
        title = f"Score with your taste, classes it has not seen (AUC {learned.after.auc:.2f})"
        panels.append((title, after[is_known]))
    is_selected = np.concatenate(learned.is_selected)[is_known]
    with writing(path) as handle:
        handle.write(figure_to_png(draw_agreement(panels, is_selected, threshold=THRESHOLD)))


def _warnings(learned: LearnedTaste, scorer: ClassScorer, *, n_runs: int) -> list[str]:
    found = []
    if scorer.taste is not None:
        found.append(
            "The weights given hold what was learned from other choices; it is replaced, not added "
            "to."
        )
    if n_runs == 1:
        found.append(
            "All choices are of one run: how well they hold for other runs is not measured."
        )
    rarer = min(learned.n_selected, learned.n_classes - learned.n_selected)
    if rarer < _FEW_SELECTED:
        kind = "chosen" if rarer == learned.n_selected else "left out"
        found.append(f"Only {rarer} {'class is' if rarer == 1 else 'classes are'} {kind}.")
    return found
