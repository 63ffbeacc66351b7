"""The unattended run on simulated fields: what it finds, and what another run of it does."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from run_world import (
    DIAMETER,
    QUICK,
    TABLE,
    changed,
    job_files,
    leftovers,
    new_steps,
    results_of,
    run,
)

from cryopick.errors import ProjectError
from cryopick.io.mrc import read_mrc
from cryopick.pipeline.evaluate import evaluate_pick_files, read_truth
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_verify import verify_project
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.run_steps import box_size_for
from cryopick.tables.relion import read_particles

pytest_plugins = ("run_world",)

TRAINED = RunParameters(diameter=DIAMETER, training_steps=40, **QUICK)
STEPS = [
    *("first_picks", "first_particles", "first_classes", "first_selection", "training"),
    *("picks", "particles", "classes", "selection"),
]


@pytest.fixture(scope="module")
def made(run_fields, tmp_path_factory):
    """A folder with the project of a whole run, not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "data").symlink_to(run_fields)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = run(parameters=TRAINED)
    assert result.halted is None, result.halted
    assert new_steps(result) == STEPS
    return folder


@pytest.fixture
def project(made, run_folder):
    """A copy of it beside the fields, in the working folder."""
    shutil.copytree(made / "project", "project", symlinks=True)
    return Path("project")


def scores(folder):
    return evaluate_pick_files(folder, Path("data/truth.json")).picks.total


def test_the_particles_are_found_and_those_after_training_are_no_worse(project):
    before, after = scores(project / "first_picks"), scores(project / "picks")

    assert after.recall > 0.95
    assert after.precision > 0.85
    assert after.f1 > before.f1 - 0.02
    assert after.average_precision > before.average_precision - 0.005
    assert after.centring_error < 0.05 * DIAMETER


def test_the_final_particles_are_particles_white_and_in_good_classes(project):
    particles = read_particles(project / "selection" / "particles.star")
    truth = read_truth(Path("data/truth.json")).rows

    rows = particles.rows.assign(stem=[Path(n).stem for n in particles.rows["micrograph"]])
    is_true = []
    for stem, mine in rows.groupby("stem"):
        at = truth[[Path(n).stem == stem for n in truth["micrograph"]]][["x", "y"]].to_numpy()
        way = mine[["x", "y"]].to_numpy()[:, None] - at
        is_true += (np.hypot(*way.T).min(0) < 0.3 * DIAMETER / 4).tolist()
    assert len(is_true) > 100
    assert np.mean(is_true) > 0.95
    images = read_mrc(Path(rows["image"][0]))
    middle = images.shape[-1] // 2
    core = images[:, middle - 6 : middle + 6, middle - 6 : middle + 6]
    assert core.mean() > images[:, :2].mean() + 0.5
    assert images.shape[-1] == QUICK["rescale"]


def test_results_lie_in_jobs_and_the_names_of_the_steps_lead_there(project):
    numbers = {name: k + 1 for k, name in enumerate(STEPS)}

    for name, number in numbers.items():
        assert (project / name).readlink() == Path(f"jobs/{number:04d}_{name}")
    with Project.open(project, writes=False) as opened:
        assert opened.aliases() == numbers
        assert {job.state for job in opened.jobs().values()} == {"done"}
        assert opened.run_parameters() == {**TRAINED.to_dict(), "pixel_size": None}
    assert verify_project(project) == []
    assert not leftovers(project)
    assert box_size_for(1.2 * DIAMETER, pixel_size=4) == 84  # of the particles, before shrinking


def test_the_same_again_does_nothing(project):
    before = job_files(project)
    (project / "report.html").unlink()

    result = run(parameters=TRAINED)

    assert new_steps(result) == []
    assert [step.name for step in result.steps] == STEPS
    assert job_files(project) == before
    assert result.report.exists()


def test_another_threshold_redoes_what_follows_and_the_first_finds_its_results_again(project):
    before, results = job_files(project), results_of(project)
    foms = read_particles(project / "particles" / "particles.star").rows["fom"]
    threshold = float(foms.quantile(0.2))

    result = run(parameters=changed(TRAINED, threshold=threshold))

    assert new_steps(result) == ["particles", "classes", "selection"]
    after = read_particles(project / "particles" / "particles.star").rows["fom"]
    assert (after > threshold).all()
    assert len(after) == (foms > threshold).sum()
    assert before.items() <= job_files(project).items()

    again = run(parameters=TRAINED)

    assert new_steps(again) == []
    now = results_of(project)
    assert {name: now[name] for name in results} == results


def test_no_index_is_needed(project):
    with Project.open(project):
        pass
    before = contents_of_index(project)
    (project / "index.sqlite").unlink()

    run(parameters=TRAINED)

    assert contents_of_index(project) == before
    assert len(before) > 20


def contents_of_index(project):
    with Project.open(project):
        pass
    with sqlite3.connect(project / "index.sqlite") as base:
        return sorted(base.iterdump())


def test_a_second_manager_is_told_who_manages_the_project(project):
    before = job_files(project)
    with Project.open(project, command="the first"):
        with pytest.raises(ProjectError, match=rf"process {os.getpid()}, since .*: the first"):
            run(parameters=TRAINED)
        other = "import sys; from cryopick.cli.app import main; sys.argv[0] = 'cryopick'; main()"
        words = ["run", TABLE, "--out", "project", "--diameter", "180"]
        ended = subprocess.run(
            [sys.executable, "-c", other, *words], capture_output=True, text=True, check=False
        )

    assert ended.returncode == 1
    assert "must be managed by one run at a time; got host" in ended.stderr
    assert job_files(project) == before


def test_a_run_goes_on_from_another_folder(project, monkeypatch):
    before = job_files(project)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")

    result = run(f"../{TABLE}", parameters=TRAINED, out="../project")

    assert new_steps(result) == []
    monkeypatch.chdir("..")
    assert job_files(project) == before
