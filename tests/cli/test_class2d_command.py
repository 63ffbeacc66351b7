from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_world import refused

from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.io.star import read_star

pytest_plugins = ("command_world",)

N = 90
SIMULATE = (
    f"--number {N} --box-size 32 --pixel-size 8 --phantoms asymmetric --phantom-diameter 150 "
    "--junk-fraction 0 --snr 1 --workers 1 --threads 1 --seed 3"
)
EM = ("class2d", "em", "set/particles.star", "--diameter", 150, "--threads", 1)
FEW = ("--classes", 3, "--iterations", 3)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    from typer.testing import CliRunner

    from cryopick.cli.app import app

    folder = tmp_path_factory.mktemp("simulated") / "set"
    words = ["simulate", "particles", "--out", str(folder), *SIMULATE.split()]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def folder(simulated, tmp_path, monkeypatch):
    """A copy of the particles in ``set``."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(simulated, tmp_path / "set")
    return tmp_path


def test_a_run_prints_its_classes_and_names_its_files(folder, cryopick):
    ended = cryopick(*EM, *FEW, "--out", "em")

    assert ended.code == 0, ended
    lines = ended.out.splitlines()
    assert lines[0].split()[:3] == ["class", "particles", "soft"]
    table = [line.split() for line in lines[1:] if line.split()[0].isdigit()]
    sizes = [int(row[1]) for row in table if len(row) == 7]
    junk = json.loads(Path("em/result.json").read_text())["n_junk"]
    assert sum(sizes) + junk == N
    assert sizes == sorted(sizes, reverse=True)
    assert f"{N} particles" in ended.out
    for word in ended.out.replace(",", " ").replace(";", " ").split():
        if word.startswith("em/"):
            assert Path(word.rstrip(".")).exists(), word
    assert "Memory: " in ended.err
    assert "Warning: 30 particles per class are few" in ended.err


def test_the_outcome_for_machines_is_that_of_the_file(folder, cryopick):
    ended = cryopick(*EM, *FEW, "--out", "em", "--json")

    values = json.loads(ended.out)
    assert (ended.code, ended.err) == (0, "")
    assert values == json.loads(Path("em/result.json").read_text())
    assert values["warnings"] == [
        "30 particles per class are few; fewer --classes show more.",
        "3 iterations are too few to settle; take at least 8.",
    ]
    rows = read_star(Path(values["particles"]))["particles"]
    assert len(rows) == values["n_particles"] == N
    assert "cryopickJunkProbability" in rows.columns
    again = cryopick(*EM, *FEW, "--out", "em", "--json")
    assert json.loads(again.out) == values


def test_without_classes_there_are_as_many_as_references(folder, cryopick):
    write_mrc(Path("averages.mrcs"), read_mrc(Path("set/particles.mrcs"))[:4], pixel_size=8.0)
    words = ("--references", "averages.mrcs", "--iterations", 1, "--out", "em", "--json")

    assert json.loads(cryopick(*EM, *words).out)["n_classes"] == 4
    refused(
        cryopick(*EM, *words, "--classes", 3, "--overwrite"),
        "must hold 3 averages, as --classes says; got 4",
    )


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (
            "set/particles.mrcs",
            ("got a stack of images", "Give the STAR file that names this stack."),
        ),
        ("set/a.mrc.gz", ("got a stack of images",)),
        (
            "set/selected.cs",
            ("got a file of cryoSPARC", "with: cryopick convert set/selected.cs selected.star."),
        ),
        ("set/none.mrcs", ("must be a readable file",)),
    ],
)
def test_what_is_given_instead_of_the_table_is_told_with_the_way_on(folder, cryopick, given, parts):
    for name in ("a.mrc.gz", "selected.cs"):
        (folder / "set" / name).write_bytes(b"\x93NUMPY")

    ended = cryopick("class2d", "em", given, "--diameter", 150, "--out", "em")

    refused(ended, given, *parts)


def test_a_run_that_was_stopped_finds_its_copy_on_scratch(folder, cryopick):
    words = (*EM, *FEW, "--out", "em", "--scratch", "fast", "--json")
    refused(cryopick(*words, "--memory", 0.1), "memory must be at least")
    (copy,) = Path("fast").rglob("*.npy")
    made = copy.stat().st_mtime_ns

    refused(cryopick(*words, "--memory", 0.1), "memory must be at least")
    assert copy.stat().st_mtime_ns == made
    assert cryopick(*words).code == 0
    assert not list(Path("fast").iterdir())


def test_a_run_is_shown_by_its_folder(folder, cryopick):
    cryopick(*EM, *FEW, "--out", "em", "--json")

    ended = cryopick("show", "em", "--max-images", 2, "--out", "em.png")

    assert ended.out.startswith("2 of 3 classes of em, the largest first")
    assert Path("em.png").read_bytes().startswith(b"\x89PNG")
    refused(
        cryopick("show", "set", "--out", "set.png"),
        "set must be a file, or the folder of a 2D classification",
        "such as set/particles.mrcs",
    )
    refused(cryopick("show", "em", "--picks", "em", "--out", "a.png"), "picks must come with")


def test_the_command_line_is_in_the_optimiser_file(folder, cryopick):
    cryopick(*EM, *FEW, "--out", "em", "--json")

    (path,) = Path("em").glob("*_optimiser.star")
    assert "class2d em set/particles.star" in path.read_text()


def test_an_image_left_out_ends_with_code_3(folder, cryopick):
    images = np.array(read_mrc(Path("set/particles.mrcs")))
    images[4] = 1.0
    write_mrc(Path("set/particles.mrcs"), images, pixel_size=8.0)

    ended = cryopick(*EM, *FEW, "--out", "em")

    assert ended.code == 3
    assert "Warning: image 5 of particles.mrcs must hold different numbers" in ended.err
    assert f"{N - 1} particles" in ended.out
    assert "1 left out" in ended.out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--classes", N + 1), ("classes must be at most the number of particles",)),
        (("--references", "nothing.mrcs"), ("nothing.mrcs",)),
        (("--no-update",), ("--no-update must come with averages",)),
        (("--continue",), ("must hold a run to continue",)),
        (("--device", "cuda:99"), ("device must be on this machine",)),
        (("--device", "tpu"), ("device must be cpu, cuda, mps",)),
    ],
    ids=lambda value: value[0].strip("-") if isinstance(value[0], str) else "",
)
def test_what_cannot_be_done_is_one_sentence(folder, cryopick, words, parts):
    kept = ("--classes", 3) if "--classes" not in words else ()

    refused(cryopick(*EM, *kept, *words, "--out", "em", "--json"), *parts)


def test_other_parameters_need_overwrite_and_more_iterations_continue(folder, cryopick):
    assert cryopick(*EM, *FEW, "--out", "em", "--json").code == 0
    other = (*EM, "--classes", 2, "--iterations", 3, "--out", "em", "--json")

    refused(cryopick(*other), "classes 3 instead of 2", "add --overwrite")
    more = cryopick(*EM, "--classes", 3, "--iterations", 5, "--out", "em", "--json", "--continue")
    assert json.loads(more.out)["iteration"] > 3
    assert cryopick(*other, "--overwrite").code == 0
    assert not list(Path("em").glob("run_it005*"))
