from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
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
from cryopick.tables.cryosparc import read_cs_particles
from cryopick.tables.relion import read_particles, read_picks, write_particles

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
    lines = [line for path in texts for line in path.read_text().splitlines()]
    assert [line for line in lines if "work/" in line and line[:1] != "#"] == []  # commands may
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


def test_cryosparc_gets_the_selected_particles_at_their_positions(work, cryopick, tmp_path):
    out = tmp_path / "cs"

    ended = cryopick("project", "export", work, "--layout", "cryosparc", "--out", out)

    assert ended.code == 0, ended
    assert "--micrographs" not in ended.out + ended.err
    assert "positions" not in ended.out + ended.err
    ours, theirs = _particles(work / "selection"), read_cs_particles(out / "particles.cs").rows
    assert len(theirs) == len(ours) > 5
    np.testing.assert_allclose(theirs[["x", "y"]], ours[["x", "y"]], atol=0.05)


def _particles(folder):
    return read_particles(folder / "particles.star").rows


def _n_selected(work):
    return len(_particles(work / "selection"))


@pytest.fixture
def other(made, tmp_path, monkeypatch):
    """A copy of the project, to be changed, in which the run has given its names."""
    shutil.copytree(made, tmp_path / "made", symlinks=True)
    monkeypatch.chdir(tmp_path / "made")
    with Project.open(Path("work")) as project:
        project.finish_job(2)
        project.set_alias("pick", 2)
    return Path("work")


def add_copy(work, number, step, identity, n_particles=None, **values):
    """A job like another one; with only the first particles if said."""
    with Project.open(work) as project:
        job = project.new_job(step, identity, **values)
        folder = project.job_folder(job.number)
        shutil.copytree(
            project.job_folder(number),
            folder,
            ignore=shutil.ignore_patterns("step.json"),
            dirs_exist_ok=True,
        )
        if n_particles is not None:
            table = read_particles(folder / "particles.star")
            few = replace(table, rows=table.rows.iloc[:n_particles])
            write_particles(folder / "particles.star", few)
        project.finish_job(job.number)
    return job.number


def exported(cryopick, work, layout="cryosparc"):
    out = work.resolve().parent / f"{layout}{len(list(work.resolve().parent.iterdir()))}"
    ended = cryopick("project", "export", work, "--layout", layout, "--out", out, "--json")
    assert ended.code == 0, ended
    return out, " / ".join(json.loads(ended.out)["notes"])


def test_the_particles_are_those_of_the_alias_not_of_the_latest_job(other, cryopick):
    n_selected = _n_selected(other)
    later = add_copy(other, 5, "selection", "later", 3, upstream={"classes": "classes"})

    out, notes = exported(cryopick, other)
    with Project.open(other) as project:
        project.set_alias("selection", later)
    after, _ = exported(cryopick, other)

    assert len(read_cs(out / "particles.cs")) == n_selected != 3
    assert "not a selection" not in notes
    assert "outdated" not in notes
    assert len(read_cs(after / "particles.cs")) == 3


def test_a_selection_that_is_outdated_is_exported_and_said_to_be(other, cryopick):
    later = add_copy(other, 4, "classes", "later", upstream={"extract": "extract"})
    with Project.open(other) as project:
        project.set_alias("classes", later)

    for layout in ("relion", "scipion", "cryosparc"):
        _, notes = exported(cryopick, other, layout)
        assert (
            "the particles are those of job 5 (selection), outdated: made from a classes that "
            f"job {later} has replaced"
        ) in notes


@pytest.mark.parametrize("is_failed", [False, True])
def test_without_a_selection_the_classes_are_exported_and_that_is_said(other, cryopick, is_failed):
    with Project.open(other) as project:
        project.remove_alias("selection")
        if is_failed:  # and the name stands for it
            job = project.new_job("selection", "later", upstream={"classes": "classes"})
            project.finish_job(job.number, error="classes must be good; got none. Look at them.")
            project.set_alias("selection", job.number)

    out, notes = exported(cryopick, other)

    assert "those of job 4 (classes), which is not a selection: false picks" in notes
    table = max((other / "classes").glob("run_it*_data.star"))
    assert len(read_cs(out / "particles.cs")) == len(read_particles(table))


def test_positions_are_kept_without_a_ctf_job_and_where_they_cannot_be_it_is_said(other, cryopick):
    for table in (other / "jobs").glob("*/micrographs_ctf.star"):
        table.unlink()
    shutil.copy("mics.star", other / "micrographs.star")  # as a run leaves it

    with_table, _ = exported(cryopick, other)
    Path("Movies/f1.mrc").unlink()
    without, notes = exported(cryopick, other)

    ours = _particles(other / "selection")
    theirs = read_cs_particles(with_table / "particles.cs").rows
    np.testing.assert_allclose(theirs[["x", "y"]], ours[["x", "y"]], atol=0.05)
    assert "x" not in read_cs_particles(without / "particles.cs").rows
    assert "positions in micrographs are left out: Movies/f1.mrc must be a file" in notes
    assert "--micrographs" not in notes


def test_scipion_gets_the_picks_that_the_particles_were_cut_at(other, cryopick):
    later = add_copy(other, 2, "first_picks", "later", upstream={"ctf": "ctf"})
    table = next((other / "jobs" / f"{later:04d}_first_picks").rglob("autopick.star"))
    table.write_text("data_\n")  # cannot be read
    with Project.open(other) as project:
        project.set_alias("first_picks", later)

    out, _ = exported(cryopick, other, "scipion")

    assert len(list(out.glob("coordinates/**/*.pos"))) == 3


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
