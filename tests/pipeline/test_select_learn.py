"""Learning from folders of choices: weights that hold for a run not seen, and refusals."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import logit
from typer.testing import CliRunner

from cryopick.cli.select import select_app
from cryopick.errors import (
    CryopickError,
    DataError,
    FormatError,
    OutputError,
    ParameterError,
    ProjectError,
)
from cryopick.io.mrc import write_mrc
from cryopick.io.weights import read_weights, write_weights
from cryopick.pipeline.scored_classes import read_scored_classes, write_scored_classes
from cryopick.pipeline.select_learn import learn_selection
from cryopick.selection.class_choice import choose_by_score, choose_these
from cryopick.selection.class_features import GROUPS, class_inputs
from cryopick.selection.class_network import ClassNetwork
from cryopick.selection.class_scorer import (
    KIND,
    ClassScorer,
    read_scorer,
    score_classes,
    to_weights,
)
from cryopick.selection.select_classes_parameters import SelectClassesParameters

FILES = ("class_scores.npz", "result.json", "agreement.png")
RUNS, CLASSES = 4, 16  # of the last run nothing is learned


SEEDS = (4, 7)  # of networks whose scores, together, say little about roundness


def averages(seed):
    """Ellipses at all angles, and which of them are round; the last one is empty."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((32, 32)) - 16
    is_round = rng.random(CLASSES) < 0.5
    images = np.zeros((CLASSES, 32, 32), np.float32)
    for k in range(CLASSES - 1):
        ratio = rng.uniform(1.0, 1.2) if is_round[k] else rng.uniform(1.6, 2.4)
        angle, size = rng.uniform(0, np.pi), rng.uniform(3.5, 4.5)
        along = x * np.cos(angle) + y * np.sin(angle)
        across = y * np.cos(angle) - x * np.sin(angle)
        blob = np.exp(-(along**2 / ratio + across**2 * ratio) / (2 * size**2))
        images[k] = blob + 0.05 * rng.normal(size=blob.shape)
    is_round[-1] = False
    return images, is_round


def spread_out(networks):
    """Calibration by which networks that have learned nothing score about from 0.1 to 0.9."""
    bare = ClassScorer(networks=networks, calibration=np.array([[1.0, 1.0], [0.0, 0.0]]))
    inputs = class_inputs(averages(0)[0], pixel_size=4.0, mask_diameter=110.0)
    found = score_classes(inputs, bare)
    logits = logit(np.stack([found.purity, found.quality])[:, np.isfinite(found.score)])
    slope = 1.5 / logits.std(axis=1)
    return np.stack([slope, 0.5 - slope * np.median(logits, axis=1)])


def write_choices(folder, inputs, scores, is_chosen):
    counts = inputs.features["particle_count"].to_numpy(np.float64)
    write_scored_classes(folder, inputs, scores, choose_these(is_chosen, scores.score, counts))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders ``round0`` ... of a person who likes round classes, and ``agree0`` ..."""
    folder = tmp_path_factory.mktemp("learn")
    torch.set_num_threads(1)
    networks = tuple(ClassNetwork(GROUPS, seed=k).eval() for k in SEEDS)
    scorer = ClassScorer(networks=networks, calibration=spread_out(networks))
    write_weights(folder / "weights.npz", to_weights(scorer, {"made_by": "a test"}))
    for run in range(RUNS):
        images, is_round = averages(run)
        inputs = class_inputs(images, pixel_size=4.0, mask_diameter=110.0)
        scores = score_classes(inputs, scorer)
        write_choices(folder / f"round{run}", inputs, scores, is_round)
        write_choices(folder / f"agree{run}", inputs, scores, scores.score >= 0.5)
        if run == 0:
            counts = inputs.features["particle_count"].to_numpy(np.float64)
            by_score = choose_by_score(scores.score, counts, SelectClassesParameters())
            write_scored_classes(folder / "scored", inputs, scores, by_score)
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def learn(*folders, out="taste", **given):
    given = {"weights": Path("weights.npz")} | given
    return learn_selection([Path(f) for f in folders], Path(out), **given).values


def score_run(weights, run=RUNS - 1):
    images, is_round = averages(run)
    inputs = class_inputs(images, pixel_size=4.0, mask_diameter=110.0)
    return score_classes(inputs, read_scorer(Path(weights))).score, is_round


def select(*arguments):
    return CliRunner().invoke(select_app, list(map(str, arguments)))


def test_a_taste_learned_from_three_runs_holds_for_the_fourth(project):
    values = learn("round0", "round1", "round2")

    before, is_round = score_run("weights.npz")
    after, _ = score_run("taste/class_scores.npz")
    known = np.isfinite(after)
    assert known.sum() == CLASSES - 1
    assert np.mean((before >= 0.5) == is_round, where=known) < 0.8
    assert np.mean((after >= 0.5) == is_round, where=known) > 0.9
    assert values["is_changed"]
    assert values["after"]["auc"] > 0.95
    assert values["before"]["auc"] < 0.7
    assert (values["n_runs"], values["n_classes"]) == (3, 3 * (CLASSES - 1))
    assert values["n_selected"] == sum(averages(run)[1].sum() for run in range(3))
    assert [r["n_classes"] for r in values["runs"]] == 3 * [CLASSES - 1]
    agreed = sum(r["n_agree_after"] for r in values["runs"]) / values["n_classes"]
    assert values["after"]["accuracy"] == pytest.approx(agreed, abs=1e-5)  # runs of one size
    assert json.loads(Path("taste/result.json").read_text()) == values


def test_the_weights_say_what_they_were_learned_from_and_name_no_files(project):
    values = learn("round0", "round1")

    notes = dict(read_weights(Path("taste/class_scores.npz"), kind=KIND, versions=(1,)).notes)
    assert notes["made_by"] == "a test"
    for name in ("n_runs", "n_classes", "n_selected", "before", "after", "freedom"):
        assert notes["learned"][name] == values[name]
    assert "round0" not in json.dumps(notes)


def test_choices_that_the_score_makes_itself_change_nothing(project):
    values = learn("agree0", "agree1", "agree2")

    assert not values["is_changed"]
    assert values["before"] == values["after"]
    assert values["before"]["accuracy"] == 1
    before, _ = score_run("weights.npz")
    np.testing.assert_array_equal(score_run("taste/class_scores.npz")[0], before)


def test_the_same_command_gives_the_same_files(project):
    learn("round0", "round1")
    files = {n: Path("taste", n).read_bytes() for n in FILES}

    learn("round0", "round1")

    assert {n: Path("taste", n).read_bytes() for n in files} == files


def test_the_order_of_the_folders_does_not_count(project):
    learn("round0", "round1", out="one")
    learn("round1", "round0", out="other")

    one, _ = score_run("one/class_scores.npz")
    np.testing.assert_array_equal(score_run("other/class_scores.npz")[0], one)


def test_a_taste_in_the_weights_given_is_replaced_and_that_is_said(project):
    learn("round0", "round1", out="first")

    values = learn("agree0", "agree1", out="second", weights=Path("first/class_scores.npz"))

    assert "is replaced" in values["warnings"][0]
    before, _ = score_run("weights.npz")
    np.testing.assert_array_equal(score_run("second/class_scores.npz")[0], before)


def test_weights_may_be_named_by_their_folder(project):
    learn("round0", "round1", "round2")

    again = learn("round0", "round1", "round2", out="again", weights=Path("taste"))
    words = ("classes", "run.mrcs", "--minimum-score", 0)
    write_mrc(Path("run.mrcs"), averages(3)[0], pixel_size=4.0)
    by_folder = select(*words, "--out", "a", "--weights", "taste")
    by_file = select(*words, "--out", "b", "--weights", "taste/class_scores.npz")

    assert "is replaced" in again["warnings"][0]  # so the taste was read
    assert by_folder.exit_code == by_file.exit_code == 0, by_folder.output
    first, second = (read_scored_classes(Path(f)).table["score"] for f in "ab")
    np.testing.assert_array_equal(first, second)


def test_choices_of_a_single_run_are_learned_from_with_a_warning(project):
    values = learn("round0")

    assert values["n_runs"] == 1
    assert "All choices are of one run" in values["warnings"][0]


def test_another_job_in_the_folder_is_not_overwritten_without_being_told(project):
    learn("round0", "round1")

    with pytest.raises(ProjectError, match="--overwrite") as refused:
        learn("round0", "round2")
    assert "with choices round0, round1 instead of round0, round2." in str(refused.value)
    os.utime("round1/class_scores.star", (1, 1))
    with pytest.raises(ProjectError, match="with choices round0, round1 before a change"):
        learn("round0", "round1")

    assert learn("round0", "round2", overwrite=True)["n_runs"] == 2


@pytest.mark.parametrize(
    ("folders", "given", "error", "sentence"),
    [
        (["scored"], {}, DataError, "scored must hold classes that a person has chosen; got a"),
        (["round0", "round0/"], {}, ParameterError, "must hold choices of another run"),
        (["round0", "agree0"], {}, ParameterError, "agree0 must hold .*; got the classes of round"),
        (
            ["nowhere"],
            {},
            FormatError,
            "nowhere must be a folder of select classes; got no such fol",
        ),
        (["empty"], {}, FormatError, "got an empty folder. Choose first with cryopick select cl"),
        (["round0", "run"], {}, FormatError, "got a folder without class_scores.star. Choose f"),
        (["weights.npz"], {}, FormatError, "got a file. Choose first with cryopick select clas"),
        (["round0"], {"out": "round0"}, OutputError, "must be another folder"),
        (["round0"], {"out": "."}, OutputError, "must be another folder"),
        (["round0"], {"out": "weights.npz/below"}, OutputError, "below must lie in a folder"),
        (["round0"], {"weights": Path("round0/class_scores.star")}, FormatError, "weights"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(project, folders, given, error, sentence):
    Path("empty").mkdir()
    Path("run").mkdir()
    Path("run/run_it025_model.star").touch()

    with pytest.raises(error, match=sentence):
        learn(*folders, **given)

    assert not Path("taste").exists()


def test_measures_of_another_version_are_refused(project):
    path = Path("round0/class_scores.star")
    path.write_text(path.read_text().replace("cryopick_norm_spread", "cryopick_other"))

    with pytest.raises(CryopickError, match=r"norm_spread.*Run cryopick select classes again"):
        learn("round0", "round1")


def test_the_command_says_what_was_won_and_how_to_use_it(project):
    done = select("learn", "round0", "round1", "round2", "--out", "taste", "--weights",
                  "weights.npz")  # fmt: skip

    assert done.exit_code == 0, done.output
    values = json.loads(Path("taste/result.json").read_text())
    after, before = (f"{100 * values[k]['accuracy']:.0f} %" for k in ("after", "before"))
    *_, told, use = done.stdout.splitlines()
    assert told.startswith(
        f"Agrees with your choices for {after} of the classes it has not seen (before: {before})"
    )
    assert use == "Use: cryopick select classes RUN --weights taste/class_scores.npz."


def test_the_command_says_plainly_that_nothing_changes(project):
    arguments = ("learn", "agree0", "agree1", "--out", "taste", "--weights", "weights.npz")

    told, as_json = select(*arguments), select(*arguments, "--json")

    assert "Your choices change nothing: the score agrees with them for 100 %" in told.stdout
    assert json.loads(as_json.stdout)["is_changed"] is False


def test_the_command_needs_folders():
    assert select("learn", "--out", "taste").exit_code == 2
