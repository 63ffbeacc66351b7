"""``pick consensus`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.pipeline.evaluate import read_truth
from cryopick.tables.relion import read_picks, write_picks_file

pytest_plugins = ("topaz_world",)

WORDS = ("--micrographs", "micrographs_ctf.star", "--diameter", "125", "--workers", "1")


def run(*words):
    return CliRunner().invoke(app, ["pick", "consensus", *map(str, words)])


@pytest.fixture
def sets(topaz_project):
    """All particles; and the upper ones of each field, as another picker might see them."""
    truth = read_truth(Path("truth.json")).rows
    for name, rows in (("all", truth), ("upper", truth[truth["y"] < 300])):
        Path(name).mkdir()
        for micrograph in truth["micrograph"].unique():
            own = rows.loc[rows["micrograph"] == micrograph, ["x", "y"]]
            write_picks_file(Path(name) / f"{Path(micrograph).stem}_autopick.star", own)
    return truth


def test_the_command_joins_sets_and_tells_what_became_of_them(sets):
    done = run("all", "upper", "upper", *WORDS, "--method", "votes", "--quorum", 1, "--out", "out")

    assert done.exit_code == 0, done.output
    assert "all: " in done.output
    assert "upper is no more than upper; they have one vote." in " ".join(done.output.split())
    assert len(read_picks(Path("out"))) > 0.95 * len(sets)

    told = run("all", "upper", *WORDS, "--method", "votes", "--out", "two", "--json")
    numbers = json.loads(told.stdout)
    assert numbers["n_picks"] == len(read_picks(Path("two")))
    assert [p["counted_as"] for p in numbers["pickers"]] == [1, 2]


def test_a_set_in_other_pixels_than_was_said_is_noticed(sets):
    given = ("all", "upper", *WORDS, "--method", "reliability", "--no-particles", "--json")
    right = json.loads(run(*given, "--out", "right").stdout)
    size = 3 * right["radius"]  # A: much more than a pixel
    wrong = run(*given, "--set-pixel-size", size, "--set-pixel-size", size, "--out", "wrong")

    assert [p["n_outside"] for p in right["pickers"]] == [0, 0]
    picked, outside = (
        [p[n] for p in json.loads(wrong.stdout)["pickers"]] for n in ("n_picks", "n_outside")
    )
    assert all(o > 0.8 * n for o, n in zip(outside, picked, strict=True))
    assert "lie outside of their micrographs" in " ".join(wrong.stderr.split())


def test_the_command_lets_networks_judge(sets):
    done = run("all", "upper", *WORDS, "--steps", 0, "--out", "out", "--threads", 1)

    assert done.exit_code == 0, done.output
    picks = read_picks(Path("out"))
    assert picks.rows["fom"].between(0.5, 1).all()
    assert len(picks) > 0.8 * len(sets)


def test_the_command_tells_what_its_networks_are_worth(sets):
    tests = ("--test-positives", "all", "--test-negatives", "upper")
    done = run("all", "upper", *WORDS, "--steps", 1, *tests, "--out", "out", "--threads", 1)
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "models/fold_2_1.npz: average precision" in told
    assert f"Tested on {len(sets)} particles and" in told

    one = run("upper", *WORDS, "--skip-training", "--model", "out", "--out", "one")
    assert one.exit_code == 0, one.output
    assert len(read_picks(Path("one"))) > 0.8 * (sets["y"] < 300).sum()
    assert "upper: " in one.output
    assert "of the particles" not in one.output  # there is nothing to compare it with


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("all",), "SETS must be at least two; got 1"),
        (("all", "upper", "--method", "votes", "--steps", 3), "steps must be given with --method"),
        (
            ("all", "upper", "--method", "votes", "--model", "m"),
            "model must be given with --method",
        ),
        (("all", "nowhere"), "nowhere"),
        (
            ("all", "upper", "--method", "votes", "--stream", "--preliminary"),
            "preliminary must be left out where nothing is trained",
        ),
        (
            ("all", "upper", "--skip-training", "--stream", "--training-batch", 7),
            "training_batch must be left out where nothing is trained",
        ),
        (("all", "upper", "--threshold", -0.5), "threshold must be a probability, or -1; got -0.5"),
        (("all", "upper", "--model", "new", "--skip-training"), "model must name a trained model"),
        (("all", "upper", "--ensemble", 9), "ensemble must be at most 5"),
        (("all", "upper", "--negative-weight", 2), "negative_weight must be given with --neg"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(sets, words, sentence):
    done = run(*words, *WORDS, "--out", "out")

    assert done.exit_code != 0
    assert sentence in " ".join(str(done.exception or done.output).split())
    assert not Path("out").exists()
