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


def test_the_command_lets_networks_judge(sets):
    done = run("all", "upper", *WORDS, "--steps", 0, "--out", "out", "--threads", 1)

    assert done.exit_code == 0, done.output
    picks = read_picks(Path("out"))
    assert picks.rows["fom"].between(0.5, 1).all()
    assert len(picks) > 0.8 * len(sets)


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
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(sets, words, sentence):
    done = run(*words, *WORDS, "--out", "out")

    assert done.exit_code != 0
    assert sentence in " ".join(str(done.exception or done.output).split())
    assert not Path("out").exists()
