"""Which folders are opened as projects, and those of older versions that are brought up."""

from __future__ import annotations

import json

import pytest
from project_world import check_version_0_is_brought_up, make_version_0

from cryopick.errors import ProjectError
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_schema import SCHEMA, ProjectDescription, migrate

pytest_plugins = ("project_world",)


@pytest.fixture
def project(new_project):
    return new_project


@pytest.mark.parametrize("make", ["absent", "empty", "hidden"])
def test_an_empty_folder_becomes_a_project_only_when_asked(tmp_path, make):
    folder = tmp_path / "new"
    if make != "absent":
        folder.mkdir()
    if make == "hidden":
        (folder / ".DS_Store").write_text("")

    with pytest.raises(ProjectError, match="must be a project; got"):
        Project.open(folder)
    assert not (folder / "project.json").exists()
    with Project.open(folder, create=True) as project:
        first = project.description
    with Project.open(folder, create=True) as project:
        assert project.description == first
    assert first.schema == SCHEMA


@pytest.mark.parametrize("writes", [True, False])
def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_is(tmp_path, writes):
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / "file").write_text("mine")

    with pytest.raises(ProjectError, match=r"must be a project.* got a folder with file"):
        Project.open(tmp_path, create=writes, writes=writes)
    with pytest.raises(ProjectError, match=r"must be a project.*got a file"):
        Project.open(tmp_path / "file", create=writes, writes=writes)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "thesis.tex"]


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "x"}', '{"uuid": "1"}'])
def test_a_broken_description_is_refused(tmp_path, text):
    (tmp_path / "project.json").write_text(text)

    with pytest.raises(ProjectError, match=r"project.json must describe a project"):
        Project.open(tmp_path, create=True)


def test_a_newer_schema_is_refused_and_nothing_is_touched(tmp_path):
    Project.open(tmp_path, create=True).close()
    path = tmp_path / "project.json"
    newer = json.loads(path.read_bytes()) | {"schema": SCHEMA + 1, "version": "9.0"}
    path.write_text(json.dumps(newer))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}

    for writes in (True, False):
        with pytest.raises(ProjectError, match=rf"got schema {SCHEMA + 1}, of cryopick 9\.0"):
            Project.open(tmp_path, writes=writes)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


def test_a_project_of_version_0_is_brought_up_with_its_results(tmp_path):
    make_version_0(tmp_path)
    with pytest.raises(ProjectError, match="cryopick project rebuild"):
        Project.open(tmp_path, writes=False)

    Project.open(tmp_path).close()

    check_version_0_is_brought_up(tmp_path)


def test_migrations_are_done_one_after_the_other_and_a_gap_is_refused(tmp_path):
    done = []
    steps = {1: lambda _: done.append(1), 2: lambda _: done.append(2)}
    old = ProjectDescription(schema=1, uuid="u", name="n", created="", version="")

    new = migrate(tmp_path, old, migrations=steps, schema=3)

    assert (done, new.schema, new.uuid) == ([1, 2], 3, "u")
    assert json.loads((tmp_path / "project.json").read_bytes())["schema"] == 3
    with pytest.raises(ProjectError, match="from 2 to 3; got schema 1"):
        migrate(tmp_path, old, migrations={2: steps[2]}, schema=3)
