from __future__ import annotations

import subprocess
import sys

import pytest
import typer.main
from typer.testing import CliRunner

from cryopick.cli.app import app

HEAVY = ("torch", "numpy", "scipy", "pandas", "pyarrow", "matplotlib", "mrcfile", "PIL", "tifffile")


def commands(command=None, path=()):
    """All commands as tuples of words, groups included."""
    command = command or typer.main.get_command(app)
    found = [path]
    for name, child in getattr(command, "commands", {}).items():
        found += commands(child, (*path, name))
    return found


def command_at(path):
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    return command


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_help_names_every_option_in_full_with_its_unit(path):
    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80"})

    assert result.exit_code == 0, result.output
    for option in command_at(path).params:
        for flag in (*option.opts, *option.secondary_opts):
            if flag.startswith("--"):
                assert flag in result.output
    for option in command_at(path).params:
        help_text = getattr(option, "help", None) or ""
        unit = help_text[help_text.rfind("[") :] if help_text.endswith("]") else ""
        assert unit in result.output


def test_units_of_pixels_reach_the_screen():
    result = CliRunner().invoke(app, ["extract", "--help"])

    assert "Side of the box cut from the micrograph. [px]" in " ".join(result.output.split())


@pytest.mark.parametrize(
    "path", [(), ("run",), ("pick", "log"), ("class2d", "em"), ("simulate",)], ids=" ".join
)
def test_help_loads_no_heavy_library(path):
    program = (
        "import sys\n"
        "from cryopick.cli.app import main\n"
        f"sys.argv = ['cryopick', *{path!r}, '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert result.stdout.splitlines()[-1] == "LOADED []"


def test_an_unknown_command_says_so():
    result = CliRunner().invoke(app, ["pikc"])

    assert result.exit_code == 2
    assert "No such command 'pikc'" in result.output
