"""A project that is open for writing, and jobs of it.

A plugin of pytest: a test module takes its fixture with ``pytest_plugins``, and imports the rest
before pytest could rewrite it (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import json

import pytest

from cryopick.pipeline.project import Project
from cryopick.pipeline.project_status import read_status
from cryopick.pipeline.project_verify import verify_project


@pytest.fixture
def new_project(tmp_path):
    with Project.open(tmp_path / "project", create=True) as opened:
        yield opened


def add(project, step, identity, *, alias=True, **values):
    """A job that is done, and the current one of its step."""
    record = project.new_job(step, identity, **values)
    project.finish_job(record.number, result={"n": record.number})
    if alias:
        project.set_alias(step, record.number)
    return record.number


def outdated(project):
    return {job.number: job.outdated for job in read_status(project).jobs if job.outdated}


def make_version_0(folder):
    """A project as `cryopick run` made it before projects had a schema."""
    for step, state in (("pick", "finished"), ("extract", "stopped")):
        (folder / step).mkdir(parents=True)
        job = {"name": f"{step} log", "state": state, "parameters": {"a": 1}, "seconds": 2.5}
        (folder / step / "job.json").write_text(json.dumps(job))
        line = {"key": "a", "identity": "1:2", "summary": {"files": ["a.star"]}, "error": ""}
        (folder / step / "ledger.jsonl").write_text(json.dumps(line) + "\n")
        (folder / step / "a.star").write_text(step)
    (folder / "report.html").write_text("report")


def check_version_0_is_brought_up(folder):
    with Project.open(folder, writes=False) as project:
        jobs = project.jobs()
    assert [(j.folder_name, j.state) for j in jobs.values()] == [
        ("0001_pick", "done"),
        ("0002_extract", "running"),
    ]
    assert jobs[1].parameters == {"a": 1}
    assert (folder / "pick" / "a.star").read_text() == "pick"  # old paths still hold
    assert str((folder / "extract").readlink()) == "jobs/0002_extract"
    assert verify_project(folder) == []
