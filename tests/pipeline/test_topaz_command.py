"""``cryopick pick topaz`` as a person types it, and as the pages write it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import typer.main
from topaz_world import FIND_ONE, stand_in
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.cli.console import EXIT_SOME_FAILED
from cryopick.errors import ProjectError

pytest_plugins = ("topaz_world",)

_README = Path(__file__).parents[2] / "README.md"
_SIZES = ("--diameter", "125", "--downscale", "2", "--threads", "1")
_TRAIN = (
    'printf "epoch\\titer\\tsplit\\tloss\\tauprc\\n1\\t1\\ttest\\t1\\t0.4\\n"\n'
    "echo > model_epoch1.sav\n"
)


def call(*words):
    return CliRunner().invoke(app, ["pick", "topaz", *words])


def commands_of_the_readme():
    lines = _README.read_text().splitlines()
    return [line for line in lines if line.startswith("cryopick pick topaz")]


@pytest.mark.parametrize("line", commands_of_the_readme())
def test_the_options_of_the_readme_exist(line):
    command = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]

    assert command.make_context(line, words).params["out"]


def test_the_readme_shows_the_three_commands():
    assert {line.split()[3] for line in commands_of_the_readme()} == {"setup", "train", "pick"}


def test_training_says_what_it_took_for_granted(topaz_project):
    given = ("micrographs_ctf.star", "--labels", "labels.star", "--out", "train", *_SIZES)
    result = call("train", *given, "--epochs", "1", "--executable", stand_in(_TRAIN))

    assert result.exit_code == 0, result.output
    assert "particles, 1.5 times the labelled ones; Topaz 0.3.20 was told" in result.stdout
    assert "Epoch 1 was taken (average precision 0.400 per test pixel)" in result.stdout
    assert "train/model.sav" in result.stdout


def test_picking_prints_counts_json_and_refusals(topaz_project):
    Path("bad.mrc").write_bytes(b"no micrograph")
    given = ("--out", "pick", *_SIZES, "--pixel-size", "4", "--executable", stand_in(FIND_ONE))
    fields = sorted(str(p) for p in Path("micrographs").glob("*.mrc"))

    spoken = call("pick", *fields, "bad.mrc", *given)
    printed = call("pick", *fields, *given, "--json")

    assert spoken.exit_code == EXIT_SOME_FAILED
    assert "4 picks in 4 micrographs, 1 each on average: pick/autopick.star" in spoken.stdout
    assert "Refused bad.mrc: " in spoken.stderr
    assert json.loads(printed.stdout)["n_picks"] == 4


def test_another_model_in_the_same_folder_is_refused(topaz_project):
    given = ("micrographs_ctf.star", "--out", "pick", *_SIZES, "--executable", stand_in(FIND_ONE))
    call("pick", *given)

    result = call("pick", *given, "--model", "resnet8_u32")

    assert isinstance(result.exception, ProjectError)
    assert "instead of resnet8_u32" in str(result.exception)


def test_the_same_topaz_under_another_path_goes_on(topaz_project):
    given = ("micrographs_ctf.star", "--out", "pick", *_SIZES)

    call("pick", *given, "--executable", stand_in(FIND_ONE))
    again = call("pick", *given, "--executable", stand_in(FIND_ONE, name="moved"))

    assert again.exit_code == 0, again.output
    assert len(Path("seen").read_text().split()) == 4
