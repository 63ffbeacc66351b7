"""What a run does again after a change, and what it keeps."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_world import (
    DIAMETER,
    GENERAL,
    QUICK,
    TABLE,
    changed,
    job_files,
    new_steps,
    results_of,
    run,
    write_table,
)

from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.io.star import read_star
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.tables.paths import resolve_path
from cryopick.tables.relion import read_micrographs, read_particles, write_micrographs

pytest_plugins = ("run_world",)

TEMPLATE = RunParameters(diameter=DIAMETER, picker="template", subset=3, **QUICK)
AFTER_PICKS = ["picks", "particles", "classes", "selection"]
FIRST = ["first_picks", "first_particles", "first_classes", "first_selection"]


@pytest.fixture(scope="module")
def made(run_fields, tmp_path_factory):
    """A folder with a project of four of the five fields, picked with averages of its own."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "data").symlink_to(run_fields)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = run(write_table("four.star", range(4)), parameters=TEMPLATE)
    assert new_steps(result) == FIRST + AFTER_PICKS
    return folder


@pytest.fixture
def project(made, run_folder):
    """A copy of it beside the fields, in the working folder."""
    shutil.copytree(made / "project", "project", symlinks=True)
    shutil.copy2(made / "four.star", "four.star")
    return Path("project")


def test_an_added_micrograph_is_taken_up_and_the_others_are_kept(project):
    before = job_files(project)

    result = run(TABLE, parameters=TEMPLATE)

    assert new_steps(result) == AFTER_PICKS  # three micrographs were enough for the first picks
    kept = [n for n in before if "sim_" in n]
    assert len(kept) >= 28
    after = job_files(project)
    assert [n for n in kept if after[n] != before[n]] == []
    assert len({n for n in after if "picks/" in n and "sim_00005" in n}) == 2
    assert result.steps[4].facts["n_micrographs"] == 5


def test_a_higher_score_of_classes_redoes_from_the_first_selection(project):
    scores = read_star(project / "first_selection" / "class_scores.star")["classes"]
    score = float(scores["cryopickClassScore"].astype(float).nsmallest(2).mean())

    parameters = changed(TEMPLATE, minimum_score=score, until="particles")

    result = run("four.star", parameters=parameters)

    assert new_steps(result) == ["first_selection", "picks", "particles"]
    assert result.steps[3].facts["n_selected"] == len(scores) - 1


def test_another_ctf_in_the_table_is_taken_up(run_folder):
    parameters = changed(GENERAL, until="particles")
    run(write_table("own.star", [0, 1]), parameters=parameters)
    table = read_micrographs(Path("own.star"))
    rows = table.rows.assign(defocus_u=table.rows["defocus_u"] + 500)
    write_micrographs(Path("own.star"), replace(table, rows=rows))

    result = run("own.star", parameters=parameters)

    assert new_steps(result) == ["picks", "particles"]
    particles = read_star(Path("project/particles/particles.star"))["particles"]
    assert np.isin(particles["rlnDefocusU"].astype(float), rows["defocus_u"]).all()


def test_a_replaced_micrograph_is_worked_on_again(run_folder):
    Path("own").mkdir()
    for path in sorted(Path("data/micrographs").iterdir())[:3]:
        shutil.copy(path, "own")
    parameters = changed(GENERAL, until="particles", ctf="ignore")
    run("own", parameters=parameters)
    before = job_files("project")
    first = Path("own/sim_00001.mrc")
    write_mrc(first, read_mrc(first)[::-1].copy(), pixel_size=4.0)

    result = run("own", parameters=parameters)

    assert new_steps(result) == ["picks", "particles"]
    after = job_files("project")
    assert {n: after[n] for n in before} == before  # what others hold of the old jobs stays
    old, new = (
        Path(f"project/jobs/{job}_picks").rglob("sim_00001_autopick.star")
        for job in ("0001", "0003")
    )
    assert next(iter(old)).read_bytes() != next(iter(new)).read_bytes()


def test_a_result_that_was_lost_is_made_again(run_folder):
    parameters = changed(GENERAL, until="particles")
    run(parameters=parameters)
    before = results_of("project")
    Path("project/particles/particles.star").unlink()

    result = run(parameters=parameters)

    assert new_steps(result) == ["particles"]
    assert results_of("project") == before


def test_a_step_that_failed_is_tried_again_and_a_later_one_goes_on_from_there(run_folder):
    parameters = changed(GENERAL, threshold=1.0)  # no pick is surer than sure
    first = run(parameters=parameters)
    assert first.halted is not None
    assert first.halted.step == "particles"

    again = run(parameters=parameters)
    after = run(parameters=changed(GENERAL, until="particles"))

    assert new_steps(again) == []
    assert str(again.halted.error) == str(first.halted.error)
    assert new_steps(after) == ["particles"]


def test_until_ends_a_run_that_goes_on_later(run_folder):
    first = run(parameters=changed(GENERAL, until="picks"))
    then = run(parameters=changed(GENERAL, until="particles"))

    assert [step.name for step in first.steps] == new_steps(first) == ["picks"]
    assert new_steps(then) == ["particles"]


def test_micrographs_added_from_another_folder_make_the_same_as_all_at_once(
    run_folder, monkeypatch
):
    parameters = changed(GENERAL, until="particles")
    run(parameters=parameters)
    at_once = rows_of("project")
    shutil.rmtree("project")
    run(write_table("fewer.star", range(4)), parameters=parameters)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")

    result = run(f"../{TABLE}", parameters=parameters, out="../project")

    assert result.halted is None
    monkeypatch.chdir("..")
    assert rows_of("project") == at_once
    table = Path("project/particles/particles.star")
    images = [resolve_path(n, table) for n in read_particles(table).rows["image"].unique()]
    assert len(images) == 5
    assert all(path.exists() for path in images)


def rows_of(project):
    """Picks and particles by micrograph, without the folders that their tables name."""
    found = {}
    for path in sorted(Path(project, "picks").rglob("sim_*_autopick.star")):
        found[path.name] = path.read_bytes()
    table = read_star(Path(project, "particles", "particles.star"))["particles"]
    names = ["rlnImageName", "rlnMicrographName"]
    found["particles"] = table.drop(columns=names).to_csv()
    found["names"] = [Path(n).name for n in table["rlnMicrographName"]]
    return found
