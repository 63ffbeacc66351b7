"""``cryopick select classes`` as a user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_world import refused

from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.io.star import read_star
from cryopick.io.weights import write_weights
from cryopick.selection.class_features import GROUPS
from cryopick.selection.class_network import ClassNetwork
from cryopick.selection.class_scorer import ClassScorer, to_weights

pytest_plugins = ("command_world",)

SIMULATE = (
    "--number 120 --box-size 32 --pixel-size 8 --phantoms asymmetric --phantom-diameter 150 "
    "--junk-fraction 0 --snr 1 --workers 1 --threads 1 --seed 3"
)
EM = "--diameter 150 --threads 1 --classes 3 --iterations 2 --no-junk --out em"
WEIGHTS = ("--weights", "weights.npz")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Particles, three classes of them in ``em``, and weights of a network that knows nothing."""
    from typer.testing import CliRunner

    from cryopick.cli.app import app

    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    networks = (ClassNetwork(GROUPS).eval(),)
    scorer = ClassScorer(networks=networks, calibration=np.array([[30.0, 30.0], [0.0, 0.0]]))
    write_weights(folder / "weights.npz", to_weights(scorer, {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in (
            ["simulate", "particles", "--out", "set", *SIMULATE.split()],
            ["class2d", "em", "set/particles.star", *EM.split()],
        ):
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_last_lines_say_what_was_kept_and_where(folder, cryopick):
    ended = cryopick("select", "classes", "em", "--out", "sel", "--classes", "1,3", *WEIGHTS)

    assert ended.code == 0, ended
    rows = read_star(Path("sel/particles.star"))["particles"]
    *table, kept, where = ended.out.splitlines()
    assert table[0].split() == ["class", "score", "particles", "kept"]
    assert sorted(line.split()[0] for line in table[1:]) == ["1", "2", "3"]
    scores = [float(line.split()[1]) for line in table[1:]]
    assert scores == sorted(scores, reverse=True)
    assert kept == f"Kept 2 of 3 classes with {len(rows)} of 120 particles."
    for name in ("particles.star", "class_averages.mrcs", "class_scores.star", "class_scores.png"):
        assert f"sel/{name}" in where
        assert (folder / "sel" / name).exists()


def test_json_is_the_result_alone(folder, cryopick):
    ended = cryopick(
        "select", "classes", "em", "--out", "sel", "--minimum-score", 0, "--json", *WEIGHTS
    )

    assert ended.code == 0, ended
    result = json.loads(ended.out)
    assert ended.err == ""
    assert result == json.loads(Path("sel/result.json").read_text())
    assert result["n_particles_selected"] == 120
    for record in result["classes"]:
        assert 0 < record["score"] < 1
        assert record["why"] == "score"


def test_a_selection_goes_on_to_the_next_classification(folder, cryopick):
    kept = cryopick(
        *("select", "classes", "em", "--out", "sel", "--classes", "1-2", "--recenter"),
        *("--regroup", 2, *WEIGHTS),
    )
    again = cryopick(
        *("class2d", "em", "sel/particles.star", "--references", "sel/class_averages.star"),
        *("--diameter", 150, "--threads", 1, "--iterations", 1, "--no-junk", "--out", "next"),
    )

    assert (kept.code, again.code) == (0, 0), again
    assert json.loads(Path("next/result.json").read_text())["n_classes"] == 2


def test_a_saved_selection_and_a_stack(folder, cryopick):
    write_mrc(Path("averages.mrcs"), read_mrc(next(Path("em").glob("*[0-9]_classes.mrcs"))),
              pixel_size=8.0)  # fmt: skip
    first = cryopick("select", "classes", "em", "--out", "sel", "--classes", 2, *WEIGHTS)
    second = cryopick(
        *("select", "classes", "averages.mrcs", "--out", "more", "--selection", "sel"),
        *("--mask-diameter", 180, "--json", *WEIGHTS),
    )

    assert (first.code, second.code) == (0, 0), second
    result = json.loads(second.out)
    assert result["selected"] == [2]
    assert result["is_by_hand"]
    assert result["particles"] is None


def test_a_threshold_that_no_class_reaches_is_one_sentence(folder, cryopick):
    ended = cryopick("select", "classes", "em", "--out", "sel", "--minimum-score", 1, *WEIGHTS)

    refused(ended, "must be at least 1.00 for it to be kept", "Look at sel/class_scores.png")
    assert Path("sel/class_scores.png").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("set/particles.star", *WEIGHTS), "Give a file of a 2D classification, or its folder"),
        (("nothing", *WEIGHTS), "nothing must be a readable file; got no such file"),
        (("set", *WEIGHTS), "set must hold a 2D classification"),
        (("em", "--weights", "gone.npz"), "gone.npz"),
        (("em", "--selection", "gone.star", *WEIGHTS), "gone.star must be a readable file"),
        (("em", "--minimum-score", "1.1", *WEIGHTS), "minimum_score must be at most 1; got 1.1"),
        (("em", "--classes", "4", *WEIGHTS), "classes must be from 1 to 3"),
        (("em", "--classes", "x", *WEIGHTS), "classes must be numbers from 1 and ranges"),
        (("em", "--mask-diameter", "0", *WEIGHTS), "mask_diameter must be above 0 A; got 0 A"),
        (("set/particles.mrcs", "--regroup", "2", *WEIGHTS), "regroup must come with a run"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(folder, cryopick, words, sentence):
    refused(cryopick("select", "classes", *words, "--out", "sel"), sentence)
    assert not Path("sel").exists()
