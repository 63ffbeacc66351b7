"""A project: jobs, their numbers and aliases, choices, and what readers see."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace

import pytest
from project_world import add

from cryopick.errors import OutputError, ProjectError
from cryopick.io.disk_space import require_space
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_clean import find_removable, remove_jobs
from cryopick.pipeline.project_records import write_step
from cryopick.pipeline.project_status import read_status
from cryopick.pipeline.project_verify import verify_project

pytest_plugins = ("project_world",)


@pytest.fixture
def project(new_project):
    return new_project


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
