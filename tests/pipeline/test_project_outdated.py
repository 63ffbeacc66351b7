"""Which jobs of a project are outdated, why, and which of them may be removed."""

from __future__ import annotations

import json

import pytest
from project_world import add, outdated

from cryopick.pipeline.project_clean import find_removable, remove_jobs
from cryopick.pipeline.project_verify import verify_project

pytest_plugins = ("project_world",)


@pytest.fixture
def project(new_project):
    return new_project


def test_a_job_is_outdated_when_another_is_current_and_it_is_said_what_changed(project):
    add(project, "pick", "1", parameters={"threshold": 4, "mode": "log"})
    add(project, "extract", "2", upstream={"pick": "1"})
    add(project, "pick", "3", parameters={"threshold": 5, "mode": "log"})
    begun = project.new_job("extract", "4", upstream={"pick": "3"}).number

    assert outdated(project) == {
        1: "replaced by job 3: threshold 4 instead of 5",
        2: "made from a pick that job 3 has replaced",
    }

    project.finish_job(begun)
    project.set_alias("extract", begun)
    assert outdated(project)[2] == "replaced by job 4: made from another pick"


def test_what_is_made_from_an_outdated_job_is_outdated_too_down_to_the_last(project):
    add(project, "picks", "p1")
    for step, above in (("particles", "picks"), ("classes", "particles"), ("selection", "classes")):
        add(project, step, step, upstream={above: "p1" if above == "picks" else above})
    begun = project.new_job("export", "x", upstream={"selection": "selection"}).number
    assert outdated(project) == {}
    add(project, "picks", "p2")

    assert outdated(project) == {
        1: "replaced by job 6",
        2: "made from a picks that job 6 has replaced",
        3: "made from job 2 (particles), which is outdated",
        4: "made from job 3 (classes), which is outdated",
        begun: "made from job 4 (selection), which is outdated",
    }

    project.set_alias("picks", 1)  # back to the parameters of before
    assert outdated(project) == {6: "replaced by job 1"}


def test_a_job_is_made_from_the_current_one_of_those_with_an_identity(project):
    add(project, "particles", "same")
    add(project, "classes", "c", upstream={"particles": "same"})
    add(project, "particles", "same")  # made a second time

    assert outdated(project) == {1: "replaced by job 3"}


def redo(project, number, content, **values):
    project.resume_job(number, **values)
    project.finish_job(number, result={"content": content})


def test_a_job_is_outdated_when_that_it_was_made_from_was_done_again_in_place(project):
    add(project, "particles", "p")
    redo(project, 1, "few")
    known = {"particles": "few"}
    add(project, "classes", "c", upstream={"particles": "p"}, upstream_content=known)
    add(project, "training", "t", upstream={"particles": "p"})  # of an earlier version
    add(project, "selection", "s", upstream={"classes": "c"}, upstream_content={"classes": "a"})

    redo(project, 1, "few")  # with the same result
    assert outdated(project) == {}
    redo(project, 1, "more")
    assert outdated(project) == {
        2: "made from job 1 (particles) before that was done again",
        4: "made from job 2 (classes), which is outdated",
    }
    redo(project, 2, "a", upstream_content={"particles": "more"})
    assert outdated(project) == {}
    redo(project, 2, "b")
    assert outdated(project) == {4: "made from job 2 (classes) before that was done again"}


def test_what_a_job_was_made_from_is_kept_and_older_records_say_nothing_of_it(project):
    project.new_job("classes", "c", upstream_content={"particles": "few"})
    project.resume_job(1)
    project.finish_job(1)
    path = project.job_folder(1) / "step.json"
    values = json.loads(path.read_bytes())

    assert values["upstream_content"] == {"particles": "few"}
    assert project.job(1).upstream_content == {"particles": "few"}
    del values["upstream_content"]
    path.write_text(json.dumps(values))
    assert project.job(1).upstream_content == {}


def test_only_outdated_jobs_that_nothing_kept_is_made_of_are_removed(project):
    add(project, "ctf", "c1")
    add(project, "pick", "p1", upstream={"ctf": "c1"})
    add(project, "extract", "e1", upstream={"pick": "p1"})
    add(project, "ctf", "c2")
    add(project, "pick", "p2", upstream={"ctf": "c2"})
    add(project, "extract", "e2", upstream={"pick": "p2"})
    add(project, "pick", "p3", upstream={"ctf": "c2"})
    project.set_alias("liked", 3)  # made of 2, and that of 1

    fate = {job.number: job.needed_by for job in find_removable(project)}
    remove_jobs(project, find_removable(project))

    assert fate == {1: 2, 2: 3, 5: 6}
    assert list(project.jobs()) == [1, 2, 3, 4, 5, 6, 7]
    project.remove_alias("liked")
    remove_jobs(project, find_removable(project))
    assert list(project.jobs()) == [4, 5, 6, 7]
    assert project.decisions()[-1].values["jobs"] == [1, 2, 3]
    project.update_index()
    assert verify_project(project.folder) == []


def test_of_an_item_that_was_done_again_the_files_of_the_last_time_are_promised(project):
    folder = project.job_folder(project.new_job("pick", "a").number)
    lines = [("a", "old.star", ""), ("b", "b.star", ""), ("a", "new.star", ""), ("b", "", "bad")]
    with (folder / "ledger.jsonl").open("w") as ledger:
        for key, file, error in lines:
            summary = {"files": [file]} if file else {}
            line = {"key": key, "identity": "", "summary": summary, "error": error}
            ledger.write(json.dumps(line) + "\n")
    project.update_index()

    (fault,) = verify_project(project.folder)

    assert fault == f"{folder / 'new.star'} of a is missing."
