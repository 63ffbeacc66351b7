from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace

import pytest

from cryopick.errors import OutputError, ProjectError
from cryopick.io.disk_space import require_space
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_clean import find_removable, remove_jobs
from cryopick.pipeline.project_records import write_step
from cryopick.pipeline.project_schema import SCHEMA, ProjectDescription, migrate
from cryopick.pipeline.project_status import read_status
from cryopick.pipeline.project_verify import verify_project


@pytest.fixture
def project(tmp_path):
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


def test_what_is_recorded_of_a_job_is_read_again_by_others(project):
    record = project.new_job(
        "pick", "b", upstream={"ctf": "a"}, parameters={"diameter": (1, 2)}, inputs=["mics.star"]
    )
    (project.job_folder(1) / "job.json").write_text('{"results": ["autopick.star", "absent.star"]}')
    (project.job_folder(1) / "autopick.star").write_text("data_\n")
    project.finish_job(record.number, result={"n_picks": 5})

    found = Project.open(project.folder, writes=False).job(1)

    assert found.folder_name == "0001_pick"
    assert (found.state, found.identity, found.upstream) == ("done", "b", {"ctf": "a"})
    assert (found.parameters, found.inputs) == ({"diameter": [1, 2]}, ("mics.star",))
    assert found.result == {"n_picks": 5}
    assert found.files == {"autopick.star": 6}
    assert {"cryopick", "python"} <= set(found.versions)


def test_a_job_is_found_by_what_it_depends_on_and_one_that_is_done_comes_first(project):
    done = add(project, "pick", "same")
    project.new_job("pick", "same")
    stopped = project.new_job("pick", "other").number

    assert project.find_job("pick", "same").number == done
    assert project.find_job("pick", "other").number == stopped
    assert project.find_job("extract", "same") is None
    assert project.find_job("pick", "third") is None


def test_a_job_that_failed_is_taken_up_again_in_its_own_folder(project):
    number = project.new_job("extract", "e").number
    project.finish_job(number, error="particles must have room; got none. Free some.")
    failed = project.find_job("extract", "e")

    project.resume_job(failed.number)
    again = project.finish_job(failed.number, result={"n": 1})

    assert (failed.state, failed.error[:9]) == ("failed", "particles")
    assert (again.number, again.state, again.error) == (number, "done", "")
    assert list(project.jobs()) == [number]


def test_numbers_go_on_after_the_jobs_that_were_removed(project):
    add(project, "ctf", "1")
    add(project, "ctf", "2")
    project.set_alias("ctf", 1)

    remove_jobs(project, find_removable(project))

    assert list(project.jobs()) == [1]
    assert project.new_job("ctf", "3").number == 3


@pytest.mark.parametrize("how", ["alias", "alias, opened again", "input", "input in place"])
def test_the_number_of_a_job_deleted_by_hand_never_stands_for_another(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path if how == "input in place" else tmp_path / "p"
    name = "jobs/0003_extract" if how == "input in place" else "p/jobs/0003_extract"
    with Project.open(folder, create=True) as project:
        for step in ("ctf", "pick", "extract"):
            add(project, step, step, alias=how.startswith("alias"))
        if how.startswith("input"):  # of a job with a lower number, which went on with it
            inputs = ["/elsewhere/jobs/0009_pick", f"{name}/particles.star"]
            write_step(project.job_folder(2), replace(project.job(2), inputs=tuple(inputs)))
    shutil.rmtree(folder / "jobs/0003_extract")
    if how == "alias, opened again":
        Project.open(folder).close()
    with Project.open(folder) as project:
        assert project.new_job("selection", "s").number == 4
        assert "extract" not in project.aliases()


def test_aliases_of_jobs_that_are_gone_are_taken_back_with_a_note(project):
    for step in ("ctf", "pick"):
        add(project, step, step)
    project.set_alias("best", 2)
    project.close()
    shutil.rmtree(project.folder / "jobs/0002_pick")

    reader = Project.open(project.folder, writes=False)
    before = reader.aliases()
    with Project.open(project.folder) as again:
        assert again.aliases() == {"ctf": 1}
        assert len(again.notes) == 2
        assert "Alias best stood for job 2, whose folder is gone" in again.notes[0]
        number = add(again, "extract", "e")
    with Project.open(project.folder) as quiet:
        assert quiet.notes == []

    assert before == {"best": 2, "ctf": 1, "pick": 2}  # who only reads changes nothing
    assert number == 3
    assert not os.path.lexists(project.folder / "best")
    assert verify_project(project.folder) == []


def test_aliases_are_kept_while_the_disk_with_the_jobs_is_away(project):
    add(project, "ctf", "c")
    project.close()
    jobs, away = project.folder / "jobs", project.folder.parent / "away"
    jobs.rename(away)

    Project.open(project.folder).close()
    away.rename(jobs)

    with Project.open(project.folder) as again:
        assert (again.aliases(), again.notes) == ({"ctf": 1}, [])


def test_many_threads_that_claim_numbers_get_different_ones(project):
    numbers = []

    def claim(step):
        numbers.extend(project.new_job(step, f"{step}{n}").number for n in range(8))

    threads = [threading.Thread(target=claim, args=(s,)) for s in ("ctf", "pick", "extract")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(numbers)) == 24
    assert len(project.jobs()) == 24


@pytest.mark.parametrize("name", ["Pick", "pick-all", "", "../pick", "pick now"])
def test_a_step_whose_name_makes_no_folder_is_refused(project, name):
    with pytest.raises(ProjectError, match="name of a step must be of small letters"):
        project.new_job(name, "a")
    assert project.jobs() == {}


def test_an_alias_is_a_link_to_its_job_and_follows_it(project):
    add(project, "pick", "a")
    add(project, "pick", "b")
    project.set_alias("best", 1)

    assert str((project.folder / "pick").readlink()) == "jobs/0002_pick"
    assert (project.folder / "best" / "step.json").samefile(project.job_folder(1) / "step.json")
    assert json.loads((project.folder / "aliases.json").read_bytes()) == {"best": 1, "pick": 2}

    project.remove_alias("best")
    assert not os.path.lexists(project.folder / "best")
    with pytest.raises(ProjectError, match="alias best must be there"):
        project.remove_alias("best")


@pytest.mark.parametrize(
    "name", ["jobs", "index.sqlite", "report", "..", "a/b", ".hidden", "notes", "project.json"]
)
def test_an_alias_with_the_name_of_a_file_is_refused(project, name):
    add(project, "pick", "a")
    (project.folder / "notes").mkdir()
    (project.folder / "report").write_text("mine")

    with pytest.raises(ProjectError, match="an alias must be a name that no file"):
        project.set_alias(name, 1)
    assert project.aliases() == {"pick": 1}


def test_the_name_of_a_step_stands_for_jobs_of_that_step_only(project):
    add(project, "ctf", "a")
    add(project, "pick", "b")

    with pytest.raises(ProjectError, match=r"alias ctf must stand for a job of the step"):
        project.set_alias("ctf", 2)
    with pytest.raises(ProjectError, match="no job 7"):
        project.set_alias("mine", 7)


def test_links_that_were_lost_are_made_again_and_the_file_is_enough_without_them(tmp_path):
    with Project.open(tmp_path, create=True) as project:
        add(project, "pick", "a")
    (tmp_path / "pick").unlink()
    (tmp_path / "gone").symlink_to("jobs/0009_gone")

    assert Project.open(tmp_path, writes=False).aliases() == {"pick": 1}
    faults = verify_project(tmp_path)
    Project.open(tmp_path).close()

    assert len(faults) == 2
    assert str((tmp_path / "pick").readlink()) == "jobs/0001_pick"
    assert not os.path.lexists(tmp_path / "gone")
    assert verify_project(tmp_path) == []


def test_choices_are_only_added_and_a_line_that_was_cut_off_does_not_spoil_the_next(project):
    project.add_decision("threshold", value=5.0)
    path = project.folder / "decisions.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"when": "2026-')
    project.add_decision("reject", micrograph="a.mrc")

    assert [d.what for d in project.decisions()] == ["threshold", "reject"]
    assert project.decisions()[1].values == {"micrograph": "a.mrc"}
    assert path.read_bytes().startswith(whole)


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


def test_a_project_opened_for_reading_changes_nothing(tmp_path):
    with Project.open(tmp_path, create=True) as project:
        add(project, "pick", "a")
    (tmp_path / "index.sqlite").unlink()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}

    with Project.open(tmp_path, writes=False) as project:
        status = read_status(project)
        verify_project(tmp_path)
        for change in (
            lambda: project.new_job("pick", "b"),
            lambda: project.finish_job(1),
            lambda: project.set_alias("b", 1),
            lambda: project.add_decision("b"),
            project.update_index,
        ):
            with pytest.raises(ProjectError, match="opened for writing"):
                change()

    assert "index.sqlite is missing" in status.notes[0]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_room_that_no_disk_has_is_refused_in_one_sentence(tmp_path):
    require_space(tmp_path, 1)

    with pytest.raises(OutputError, match=r"must have 1e\+06 TB free on its disk; got .*B\. Free"):
        require_space(tmp_path, 10**18)


def test_parameters_of_the_last_run_are_kept(project):
    assert project.run_parameters() is None

    project.write_run_parameters({"min_diameter": 150})

    assert project.run_parameters() == {"min_diameter": 150}
