"""Selecting once more: with other weights into the same folder, and from an earlier selection."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from selection_world import COUNTS, make_weights, select

from cryopick.errors import DataError, OutputError, ProjectError
from cryopick.io.star import read_star, write_star
from cryopick.pipeline import select_classes as command
from cryopick.pipeline.scored_classes import read_scored_classes
from cryopick.pipeline.select_learn import learn_selection
from cryopick.selection import class_scorer

pytest_plugins = ("selection_world",)


def contents(folder: str) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in Path(folder).iterdir() if p.name != ".lock"}


def shipped(monkeypatch, path: Path) -> None:
    """Let the package come with these weights."""
    read = class_scorer.read_scorer
    monkeypatch.setattr(command, "read_scorer", lambda _: read(path))


def run_shipped(out: str, *, overwrite: bool = False) -> dict[str, object]:
    source, parameters = Path("Class2D/job003"), command.SelectClassesParameters(minimum_score=0)
    return command.select_classes(source, Path(out), parameters, overwrite=overwrite).values


def test_other_weights_are_another_job_also_those_shipped(project, monkeypatch):
    make_weights(Path("newer.npz"), offset=-8.0)
    select(minimum_score=0)
    shipped(monkeypatch, Path("weights.npz"))
    first = run_shipped("mine")
    before, theirs = contents("sel"), contents("mine")

    shutil.copy("newer.npz", "weights.npz")
    with pytest.raises(ProjectError, match=r"weights weights\.npz .* instead of weights\.npz"):
        select(minimum_score=0)
    shipped(monkeypatch, Path("newer.npz"))  # the package was updated
    with pytest.raises(ProjectError, match=r"weights shipped .* instead of shipped"):
        run_shipped("mine")

    assert contents("sel") == before
    assert contents("mine") == theirs
    updated = run_shipped("mine", overwrite=True)
    assert updated["classes"][0]["score"] != first["classes"][0]["score"]


def test_the_same_weights_under_the_same_name_are_the_same_job(project):
    first = select(minimum_score=0)
    make_weights(Path("weights.npz"))  # written anew, the same values

    assert select(minimum_score=0) == first


def test_results_of_before_do_not_stay_when_no_class_is_kept_any_more(project, monkeypatch):
    select(minimum_score=0.1)
    assert Path("sel/particles.star").exists()
    make_weights(Path("low.npz"), offset=-1000.0)
    low = class_scorer.read_scorer(Path("low.npz"))
    monkeypatch.setattr(command, "score_classes",
                        lambda inputs, _: class_scorer.score_classes(inputs, low))  # fmt: skip

    with pytest.raises(DataError, match=r"must be at least 0.10 for it to be kept; got 0\.0\d for"):
        select(minimum_score=0.1)  # the same job, in which a newer version scores otherwise

    left = set(contents("sel")) - {"job.json"}
    assert left == {
        "backup_selection.star", "class_images.mrcs", "class_scores.png", "class_scores.star"
    }  # fmt: skip
    assert not read_scored_classes(Path("sel")).is_selected.any()


def test_a_run_cut_off_while_it_writes_leaves_no_particles_of_before(project, monkeypatch):
    select(minimum_score=0)

    def full(*_: object, **__: object) -> None:
        raise OutputError("sel", must="have room", got="a full disk", remedy="Make room")

    monkeypatch.setattr(command, "write_scored_classes", full)
    with pytest.raises(OutputError, match="full disk"):
        select(minimum_score=0)

    assert set(contents("sel")) == {"job.json"}
    assert json.loads(Path("sel/job.json").read_text())["state"] == "stopped"


@pytest.mark.parametrize("given", ["auto", "auto/backup_selection.star", "copy"])
def test_a_selection_by_score_stays_one(project, given):
    by_score = select("auto", minimum_score=0, minimum_classes=5)
    select("copy", selection=Path("auto"))

    values = select(selection=Path(given))

    assert values["selected"] == by_score["selected"]
    assert not values["is_by_hand"]
    assert values["threshold"] is None
    whys = {c["number"]: c["why"] for c in values["classes"]}
    assert whys == dict.fromkeys((1, 2, 4, 5), "selected before, by score") | {3: "empty"}
    assert not read_scored_classes(Path("sel")).is_by_hand
    with pytest.raises(DataError, match="chosen; got a selection by score"):
        learn_selection([Path("sel")], Path("taste"), weights=Path("weights.npz"))


def test_a_selection_by_score_that_somebody_changed_is_by_hand(project):
    scores = {c["number"]: c["score"] for c in select("all", minimum_score=0)["classes"]}
    middle = float(np.median([s for s in scores.values() if s is not None]))
    by_score = select("auto", minimum_score=middle)["selected"]
    flags = [int(n in by_score) for n in range(1, 6)]
    flags[by_score[0] - 1] = 0
    rows = pd.DataFrame({"rlnSelected": flags})
    write_star(Path("auto/backup_selection.star"), {"": rows})  # as RELION's display does

    values = select(selection=Path("auto"))

    assert values["is_by_hand"]
    assert values["n_particles_selected"] == COUNTS[by_score[1] - 1]
    words = read_star(Path("sel/class_scores.star"))["classes"]["cryopickSelectedBecause"]
    assert set(words) == {"chosen", "not chosen", "empty"}
