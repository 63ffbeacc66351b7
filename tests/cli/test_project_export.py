from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_world import ALONE, BOX, DIAMETERS, make_field, refused, write_table
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.io.cryosparc import read_cs
from cryopick.io.mrc import read_mrc
from cryopick.io.star import read_star
from cryopick.pipeline.project import Project
from cryopick.tables.relion import read_particles, read_picks

pytest_plugins = ("command_world",)

NAMES = re.compile(r"(?:\d+@)?((?:Import|CtfFind|AutoPick|Extract|Class2D|Select)/[^\s:]+)")
OPTICS = ("rlnOpticsGroupName", "rlnOpticsGroup", "rlnMicrographPixelSize")
OPTICS += ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
PICKS = "work/jobs/0002_pick/autopick.star"
CLASSES = ["--classes", "2", "--diameter", "150", "--iterations", "2", "--no-junk"]
CLASSES += ["--threads", "1"]
STEPS = {
    "ctf": (["ctf", "estimate", "mics.star", *ALONE], {}),
    "pick": (["pick", "log", "work/ctf/micrographs_ctf.star", *DIAMETERS, *ALONE], {"ctf": "ctf"}),
    "extract": (
        ["extract", "work/ctf/micrographs_ctf.star", PICKS, *BOX, *ALONE],
        {"ctf": "ctf", "pick": "pick"},
    ),
    "classes": (
        ["class2d", "em", "work/extract/particles.star", *CLASSES],
        {"extract": "extract"},
    ),
    "selection": (["select", "classes", "work/classes", "--classes", "1"], {"classes": "classes"}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project from three fields to selected particles, with micrographs beside it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "Movies").mkdir()
    for n in range(3):
        make_field(folder / "Movies" / f"f{n}.mrc", seed=n, shape=(400, 440))
    rows = [f"Movies/f{n}.mrc 1" for n in range(3)]
    optics = {"optics": ("og1 1 6.0 300 2.7 0.1",), "optics_columns": OPTICS}
    write_table(folder / "mics.star", rows, **optics)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with Project.open(Path("work"), create=True) as project:
            for step, (words, upstream) in STEPS.items():
                job = project.new_job(step, step, upstream=upstream)
                out = ["--out", str(project.job_folder(job.number))]
                ended = CliRunner().invoke(app, [*words, *out])
                assert ended.exit_code == 0, ended.output
                project.finish_job(job.number)
                project.set_alias(step, job.number)
            project.remove_alias("pick")  # it is exported, because others are made from it
    return folder


@pytest.fixture
def work(made, monkeypatch):
    monkeypatch.chdir(made)
    return Path("work")


@pytest.fixture
def relion(work, cryopick, tmp_path):
    out = tmp_path / "relion"
    ended = cryopick("project", "export", work, "--layout", "relion", "--out", out, "--json")
    assert ended.code == 0, ended
    assert json.loads(ended.out)["written"] == [
        "Import/job001",
        "CtfFind/job002",
        "AutoPick/job003",
        "Extract/job004",
        "Class2D/job005",
        "Select/job006",
    ]
    return out


def test_every_name_in_the_tables_holds_from_the_exported_folder(relion, monkeypatch):
    monkeypatch.chdir(relion)
    texts = [p for p in Path().rglob("*.star") if ".Nodes" not in p.parts]
    texts += list(Path().rglob("coords_suffix_*"))
    named = {name for path in texts for name in NAMES.findall(path.read_text())}
    files = {name for name in named if not name.endswith(("/", "/run", "/rank"))}  # no root

    assert len(files) > 25
    assert [name for name in files if not Path(name).exists()] == []
    assert not any("work/" in path.read_text() for path in texts)
    particles = read_particles(Path("Extract/job004/particles.star"))
    assert set(particles.rows["micrograph"]) <= {f"Import/job001/Movies/f{n}.mrc" for n in range(3)}


def test_the_particles_and_picks_are_those_of_the_project(relion, made):
    for ours, theirs in (("extract", "Extract/job004"), ("selection", "Select/job006")):
        before = read_particles(made / "work" / ours / "particles.star").rows
        after = read_particles(relion / theirs / "particles.star").rows
        paths = ["image", "micrograph"]
        pd.testing.assert_frame_equal(before.drop(columns=paths), after.drop(columns=paths))
    for n in range(3):
        name = f"Movies/f{n}"
        assert (relion / f"Import/job001/{name}.mrc").samefile(made / f"{name}.mrc")
        stack = relion / f"Extract/job004/{name}.mrcs"
        assert stack.is_symlink()
        assert stack.samefile(made / f"work/extract/{name}.mrcs")


def test_copies_stand_alone(work, cryopick, tmp_path):
    out = tmp_path / "copied"

    cryopick("project", "export", work, "--layout", "relion", "--out", out, "--copy")

    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert (out / "Import/job001/Movies/f1.mrc").read_bytes() == Path("Movies/f1.mrc").read_bytes()


@pytest.mark.relion
def test_relion_opens_the_pipeline_and_makes_a_job_of_an_exported_one(relion):
    if not shutil.which("relion_pipeliner"):
        pytest.skip("needs relion_pipeliner")
    before = read_star(relion / "default_pipeline.star")

    def pipeliner(*words):
        ended = subprocess.run(
            ["relion_pipeliner", *words], cwd=relion, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr

    pipeliner("--check_job_completion")
    after = read_star(relion / "default_pipeline.star")  # as RELION wrote it
    for name, table in before.items():
        pd.testing.assert_frame_equal(after[name], table)
    for process in ("Extract/job004", "Class2D/job005"):
        pipeliner("--addJobFromStar", f"{process}/job.star")

    pipeline = read_star(relion / "default_pipeline.star")
    edges = pipeline["pipeline_input_edges"]
    used = set(edges[edges["rlnPipeLineEdgeProcess"] == "Class2D/job008/"].iloc[:, 0])
    assert len(pipeline["pipeline_processes"]) == 8
    options = read_star(relion / "Extract/job007/job.star")["joboptions_values"]
    values = dict(options.itertuples(index=False))
    assert values["coords_suffix"] == "AutoPick/job003/coords_suffix_autopick.star"
    assert used == {"Extract/job004/particles.star"}


@pytest.mark.relion
def test_relion_extracts_the_exported_picks_and_refines_the_exported_particles(relion):
    if not shutil.which("relion_preprocess") or not shutil.which("relion_refine"):
        pytest.skip("needs relion_preprocess and relion_refine")
    extraction = "relion_preprocess --i CtfFind/job002/micrographs_ctf.star --coord_dir "
    extraction += "AutoPick/job003/ --coord_suffix _autopick.star --part_star Again/particles.star "
    extraction += "--part_dir Again/ --extract --extract_size 40"
    refinement = "relion_refine --i Extract/job004/particles.star --o Again/run --iter 1 --K 1 "
    refinement += "--particle_diameter 150 --ctf --pad 1 --j 1 --flatten_solvent --zero_mask"
    for command in (extraction, refinement):
        ended = subprocess.run(command.split(), cwd=relion, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr

    theirs = read_particles(relion / "Again/particles.star").rows
    ours = read_particles(relion / "Extract/job004/particles.star").rows
    assert len(theirs) == len(ours) > 5
    np.testing.assert_allclose(np.sort(theirs["x"]), np.sort(ours["x"]), atol=1)
    assert read_mrc(relion / "Again/run_it001_classes.mrcs").shape[-2:] == (40, 40)


def test_scipion_gets_particles_and_one_file_of_positions_for_each_field(work, cryopick, tmp_path):
    out = tmp_path / "scipion"

    ended = cryopick("project", "export", work, "--layout", "scipion", "--out", out, "--json")

    assert ended.code == 0, ended
    assert (out / "particles.xmd").read_text().count("@") == _n_selected(work)
    positions = sorted(out.glob("coordinates/**/*.pos"))
    picks = read_picks(Path("work/jobs/0002_pick/autopick.star")).rows
    assert [p.stem for p in positions] == ["f0", "f1", "f2"]
    lines = [line for p in positions for line in p.read_text().splitlines()]
    assert sum(bool(re.match(r" *[\d-]+ +[\d-]+", line)) for line in lines) == len(picks)


def test_cryosparc_gets_the_selected_particles(work, cryopick, tmp_path):
    out = tmp_path / "cs"

    ended = cryopick("project", "export", work, "--layout", "cryosparc", "--out", out)

    assert ended.code == 0, ended
    assert len(read_cs(out / "particles.cs")) == _n_selected(work)


def _n_selected(work):
    return len(read_particles(work / "selection" / "particles.star"))


def test_nothing_is_written_over_and_an_empty_project_is_refused(work, cryopick, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    Project.open(tmp_path / "empty", create=True).close()
    out = ["--layout", "relion", "--out"]

    refused(cryopick("project", "export", work, *out, tmp_path / "mine"), "new or an empty folder")
    refused(
        cryopick("project", "export", tmp_path / "empty", *out, tmp_path / "x"),
        "must hold a finished job with an alias",
    )
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["a.txt"]
    assert not (tmp_path / "x").exists()
