"""What a step of a run says names no option that the run lacks without the command that has it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import typer.main

import cryopick
from cryopick.cli.app import app
from cryopick.errors import DataError
from cryopick.io.mrc import write_mrc
from cryopick.pipeline.run import run_project
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.run_sentences import reword, reword_error

NETWORK, TOPAZ = RunParameters(), RunParameters(picker="topaz")
RAISED = [  # modules whose sentences can end a step, the step, and the run
    (("ctf/*.py", "pipeline/ctf_estimate.py"), "ctf", NETWORK),
    (("picking/diameter.py", "picking/blob*.py", "pipeline/picking*.py"), "diameter", NETWORK),
    (("picking/blob*.py", "pipeline/picking*.py"), "first_picks", NETWORK),
    (("picking/log.py",), "first_picks", RunParameters(first_picker="log")),
    (("extraction/*.py", "pipeline/extraction*.py"), "first_particles", NETWORK),
    (("class2d/em*.py", "alignment/*.py", "pipeline/class2d*.py"), "first_classes", NETWORK),
    (("pipeline/particle_*.py", "pipeline/memory_plan.py"), "classes", NETWORK),
    (("pipeline/select_classes*.py", "selection/class_scorer.py"), "selection", NETWORK),
    (("pipeline/pick_train*.py", "pipeline/labelled_fields.py"), "training", NETWORK),
    (("picking/topaz_scale.py", "pipeline/topaz_train*.py"), "training", TOPAZ),
    (("picking/network*.py", "pipeline/network_picker.py"), "picks", NETWORK),
    (("pipeline/topaz_fields.py", "pipeline/topaz_p*.py"), "picks", TOPAZ),
    (("picking/template*.py", "pipeline/templates.py"), "picks", RunParameters(picker="template")),
    (("extraction/*.py", "pipeline/extraction*.py"), "particles", NETWORK),
]
OTHERS = ("class2d_stable", "class2d_order")  # commands that no run calls
OPTION = re.compile(r"(?<![\w./-])--[a-z][a-z-]*[a-z](?: \d+)?(?: of `(cryopick [a-z0-9 ]+)`)?")


def sentences(patterns):
    """Texts of the modules, but for docstrings and what parameters say of each other."""
    root = Path(cryopick.__file__).parent
    for path in (p for pattern in patterns for p in sorted(root.glob(pattern))):
        if path.stem.endswith("_parameters") or path.stem.startswith(OTHERS):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and " " in node.value and "\n" not in node.value:
                yield node.value


def options_of(words):
    command = typer.main.get_command(app)
    for word in words.split()[1:]:
        command = command.commands[word]
    return {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}


@pytest.mark.parametrize(("patterns", "step", "parameters"), RAISED)
def test_an_option_in_a_sentence_is_one_of_the_command_that_it_names(patterns, step, parameters):
    found = 0
    for text in sentences(patterns):
        said = reword(text, step=step, parameters=parameters)
        for option in OPTION.finditer(said):
            before = re.findall(r"cryopick [a-z0-9 ]+[a-z0-9]", said[: option.start()])
            command = option[1] or next(iter(before), "cryopick run")
            flag = option[0].split()[0]
            known = options_of(command.rstrip()) if command in COMMANDS else set()
            assert flag in known, (said, command)
            found += 1
    assert found


def all_commands(command, words):
    yield words
    for name, child in getattr(command, "commands", {}).items():
        yield from all_commands(child, f"{words} {name}")


COMMANDS = set(all_commands(typer.main.get_command(app), "cryopick"))


def test_words_of_a_run_take_the_place_of_those_of_its_commands():
    error = DataError(
        "picks/autopick.star",
        must="hold at least one position",
        got="0, with 7 not above --minimum-fom",
        remedy="Lower --minimum-fom",
    )
    reword_error(error, step="particles", parameters=NETWORK)
    assert str(error) == (
        "picks/autopick.star must hold at least one position; got 0, with 7 not above "
        "--threshold. Lower --threshold."
    )
    said = reword("Add --downscale 8, or lower --diameter", step="picks", parameters=TOPAZ)
    assert said == "Add --downscale 8 of `cryopick pick topaz pick`, or lower --diameter"
    path = "a--b/--c.mrc must be there"
    assert reword(path, step="ctf", parameters=NETWORK) == path


def test_a_run_that_halts_names_the_command_that_has_the_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for k in range(2):
        write_mrc(Path(f"m{k}.mrc"), rng.normal(size=(300, 300)).astype(np.float32), pixel_size=1.0)
    parameters = RunParameters(until="ctf", voltage=300.0, spherical_aberration=2.7)

    result = run_project(["m0.mrc", "m1.mrc"], Path("project"), parameters=parameters)

    assert result.halted is not None
    assert "Lower --max-defocus of `cryopick ctf estimate` or leave" in str(result.halted.error)
