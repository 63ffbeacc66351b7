"""Files of finished steps that somebody has deleted: a run makes them again, and says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from run_world import (
    QUICK,
    changed,
    job_files,
    new_steps,
    results_of,
    run,
    write_table,
)

from cryopick.pipeline.project_verify import verify_project
from cryopick.pipeline.run_parameters import RunParameters

pytest_plugins = ("run_world",)

PARAMETERS = RunParameters(picker="general", training_steps=4, until="particles", **QUICK)
LOST = {
    "diameter.json": "diameter",
    "sim_00002_autopick.star": "picks",
    "sim_00002_peaks.star": "picks",
    "sim_00002.mrcs": "particles",
    "sim_00002_extract.star": "particles",
}


@pytest.fixture(scope="module")
def made(run_fields, tmp_path_factory):
    """A folder with a project of two fields, not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "data").symlink_to(run_fields)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(write_table("two.star", [0, 1]), parameters=PARAMETERS).halted is None
    return folder


@pytest.fixture
def project(made, run_folder):
    """A copy of it beside the fields, in the working folder."""
    shutil.copytree(made / "project", "project", symlinks=True)
    shutil.copy2(made / "two.star", "two.star")
    return Path("project")


@pytest.mark.parametrize("name", LOST)
def test_a_file_that_is_gone_is_made_again_and_nothing_else(project, name):
    made, files = results_of(project), job_files(project)
    next(project.rglob(f"jobs/**/{name}")).unlink()
    said: list[str] = []

    result = run("two.star", parameters=PARAMETERS, say=said.append)

    assert result.halted is None
    assert new_steps(result) == [LOST[name]]
    assert results_of(project) == made
    assert [s for s in said if "are gone from" in s] == said[: name != "diameter.json"]
    after = job_files(project)
    other = [n for n in files if "sim_00001" in n]
    assert len(other) >= 4
    assert {n: after[n] for n in other} == {n: files[n] for n in other}
    assert verify_project(project) == []
    assert new_steps(run("two.star", parameters=PARAMETERS)) == []


def test_what_follows_is_made_from_files_that_are_made_again_first(project):
    shutil.rmtree(project / "jobs" / "0002_picks" / "data")
    for stack in project.rglob("*.mrcs"):
        stack.unlink()
    whole = changed(PARAMETERS, until="classes")

    result = run("two.star", parameters=whole)

    assert result.halted is None
    assert new_steps(result) == ["picks", "particles", "classes"]


def test_files_that_are_gone_from_a_step_that_was_killed_are_made_again(project):
    made = results_of(project)
    job = project / "jobs" / "0003_particles"
    text = (job / "step.json").read_text().replace('"state": "done"', '"state": "running"')
    (job / "step.json").write_text(text)
    ledger = job / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes() + b'{"key": "cut')
    next(job.rglob("sim_00001.mrcs")).unlink()

    result = run("two.star", parameters=PARAMETERS)

    assert new_steps(result) == ["particles"]
    now = [line for line in ledger.read_text().splitlines() if not line.endswith("cut")]
    ledger.write_text("\n".join(now) + "\n")
    assert results_of(project) == made
