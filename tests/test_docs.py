"""Every command in README.md and docs/*.md runs as written, page by page, on simulated data."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from cryopick.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(?:bash|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PARAMETERS = re.compile(r"^```yaml\n# ([\w.-]+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
TEXT = re.compile(r"^```text\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")


def commands(page):
    """The shell commands of a page in order; output in ``console`` blocks is left out."""
    found = []
    for block in BLOCK.findall(page.read_text()):
        lines = block.replace("\\\n", " ").splitlines()
        prompted = [line[2:] for line in lines if line.startswith("$ ")]
        found += prompted or [line for line in lines if line.strip()]
    return [shlex.split(line, comments=True) for line in found]


def cryopick(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def succeed(*words):
    result = cryopick(*words)
    assert result.exit_code == 0, f"cryopick {shlex.join(map(str, words))}\n{result.output}"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Files under the names that the pages use, all made by cryopick itself."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        simulation = "--number 2 --width 1024 --height 1024 --particles 35 --ice-blobs 0"
        simulation += " --aggregates 0 --carbon-fraction 0 --min-defocus 15000 --workers 1"
        succeed("simulate", "micrographs", *simulation.split(), "--out", ".")
        picking = ["--min-diameter", "150", "--max-diameter", "200", "--out", "AutoPick/job005"]
        succeed("pick", "log", "micrographs_ctf.star", *picking)
        shutil.copytree("micrographs", "Micrographs")
        picks = "AutoPick/job005/autopick.star"
        succeed("convert", picks, "CBOX", "--to", "cryolo-cbox", "--box-size", 128)
        succeed("convert", picks, "topaz.txt", "--to", "topaz")
        boxes = ["--box-size", "128", "--rescale", "32", "--out", "Extract/job006"]
        succeed("extract", "micrographs_ctf.star", picks, *boxes)
        succeed("convert", "Extract/job006/particles.star", "J20/particles_selected.cs")
        shutil.copy("J20/particles_selected.cs", "J20/passthrough.cs")
    return folder


def run_in(folder, words):
    """Run a command of a page; programs other than cryopick are only checked."""
    if words[0] == "cryopick":
        result = cryopick(*words[1:])
        return result.exit_code, result.output
    if words[0] == "make":
        argv = ["make", "-n", "--no-print-directory", *words[1:]]
    elif words[0] == "python":
        flags = [w for w in words[2:] if w.startswith("--")]
        script = ROOT / words[1]
        has_all = all(f'"{flag}"' in script.read_text() for flag in flags)
        return (0 if has_all else 1), f"options of {script}"
    elif words[:2] == ["pip", "install"]:
        argv = ["test", "-f", str(ROOT / words[2] / "pyproject.toml")]
    else:
        pytest.fail(f"a page names a program that this test does not know: {words[0]}")
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_runs_as_written(page, project, tmp_path, monkeypatch):
    shutil.copytree(project, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    for name, text in PARAMETERS.findall(page.read_text()):
        Path(name).write_text(text)

    for words in commands(page):
        code, output = run_in(tmp_path, words)
        assert code == 0, f"{shlex.join(words)}\n{output}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_options_of_commands_that_take_long_exist(page):
    lines = [t for block in TEXT.findall(page.read_text()) for t in block.splitlines()]
    for line in (t for t in lines if t.startswith("cryopick ")):
        command, words = typer.main.get_command(app), shlex.split(line)[1:]
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        assert command.make_context(line, words).params, line


def test_the_readme_names_the_two_commands_and_the_steps_of_a_run():
    words = [" ".join(w) for w in commands(ROOT / "README.md")]

    assert {"make demo", "make test"} <= set(words)
    for step in ("run", "pick log", "extract", "select subset", "convert", "show", "evaluate"):
        assert any(w.startswith(f"cryopick {step}") for w in words), step


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_to_files(page):
    for target in LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_page_of_options_is_what_the_parameters_say():
    script = ROOT / "scripts" / "make_options_page.py"
    written = runpy.run_path(str(script))["options_page"]()

    assert (ROOT / "docs" / "options.md").read_text() == written, f"run python {script.name}"


def test_every_pin_satisfies_what_the_project_asks_for():
    requirements = pytest.importorskip("packaging.requirements")
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[name.lower().replace("_", "-")] = version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["cluster"], *extras["dev"]]

    for text in (t for t in wanted if t != "cryopick[cluster]"):
        wish = requirements.Requirement(text)
        assert wish.specifier.contains(pins[wish.name.lower()]), text


def test_every_dependency_is_imported_and_every_import_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["cluster"]]
    declared = {re.split(r"[<>=!~ ]", text)[0].lower() for text in wanted}
    source = "\n".join(p.read_text() for p in (ROOT / "src").rglob("*.py"))
    modules = set(re.findall(r"^\s*(?:from|import) ([A-Za-z_]\w*)", source, re.MULTILINE))
    third_party = modules - set(sys.stdlib_module_names) - {"cryopick"}
    owners = metadata.packages_distributions()
    imported = {owners[m][0].lower() for m in third_party if m in owners}

    assert imported == declared - {"imagecodecs"}  # which tifffile imports


def test_make_demo_and_make_test_begin_with_the_environment(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)

    for target, script in (("demo", "scripts/demo"), ("test", "scripts/check")):
        plan = subprocess.run(
            ["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        places = [plan.index(step) for step in ("-m venv", "pip install", script)]
        assert places == sorted(places)
        assert os.access(ROOT / script, os.X_OK)


def test_the_demo_writes_only_where_git_does_not_look():
    written = re.findall(r"demo/(?:data|project)", (ROOT / "scripts" / "demo").read_text())

    assert written
    assert "/demo/" in (ROOT / ".gitignore").read_text().split()


def test_results_for_machines_are_one_json_object(project, monkeypatch):
    monkeypatch.chdir(project)

    result = cryopick("evaluate", "picks", "AutoPick/job005", "--truth", "truth.json", "--json")

    assert json.loads(result.stdout)["n_truth"] > 0
