from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_world import ALONE, BOX, DIAMETERS, leftovers, refused, write_table
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.errors import OutputError
from cryopick.pipeline.project import Project

pytest_plugins = ("command_world",)


def run_job(project, step, identity, words, **values):
    """A job as a runner makes it, with a command at work in its folder."""
    record = project.new_job(step, identity, **values)
    folder = project.job_folder(record.number)
    ended = CliRunner().invoke(app, [*words, "--out", str(folder), *ALONE])
    assert ended.exit_code == 0, ended.output
    project.finish_job(record.number)
    project.set_alias(step, record.number)


@pytest.fixture(scope="module")
def made(fields, tmp_path_factory):
    """A project with two pickings, the first outdated, and an extraction from the second."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "fields").symlink_to(fields)
    write_table(folder / "mics.star", [f"fields/f{n}.mrc 1" for n in range(3)])
    picking = ["pick", "log", "mics.star", *DIAMETERS]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with Project.open(Path("work"), create=True) as project:
            run_job(project, "pick", "p1", picking, parameters={"false_positives": 1})
            picking += ["--false-positives", "0.5"]
            run_job(project, "pick", "p2", picking, parameters={"false_positives": 0.5})
            extraction = ["extract", "mics.star", "work/pick", *BOX]
            run_job(project, "extract", "e", extraction, upstream={"pick": "p2"})
    return folder / "work"


@pytest.fixture
def work(made, project):
    shutil.copytree(made, project / "work", symlinks=True)
    return Path("work")


def faults(cryopick, work):
    ended = cryopick("project", "verify", work, "--json")
    found = json.loads(ended.out)["faults"]
    assert ended.code == (3 if found else 0)
    return found


def test_status_lists_jobs_with_their_items_and_says_what_is_outdated_and_why(work, cryopick):
    ended = cryopick("project", "status", work)
    lines = ended.out.splitlines()
    found = json.loads(cryopick("project", "status", work, "--json").out)

    assert [(j["step"], j["n_done"], j["n_failed"]) for j in found["jobs"]] == [
        ("pick", 3, 0),
        ("pick", 3, 0),
        ("extract", 3, 0),
    ]
    assert lines[1] == "Nobody manages it now."
    assert lines[4].split()[:5] == ["1", "pick", "done,", "outdated", "3"]
    assert lines[-1] == "Job 1 is outdated: replaced by job 2: false_positives 1 instead of 0.5."
    assert (ended.code, ended.err) == (0, "")


def test_status_tells_failed_items_a_stopped_job_and_who_manages_the_project(work, cryopick):
    with Project.open(work, command="cryopick run") as project:
        number = project.new_job("pick", "p3").number
        (project.job_folder(number) / "ledger.jsonl").write_text(
            '{"key": "a", "identity": "", "summary": {}, "error": "a must be whole"}\n'
        )
        held = cryopick("project", "status", work).out.splitlines()
        project.finish_job(project.new_job("extract", "e2").number, error="x must y; got z. Do")
    left = cryopick("project", "status", work).out.splitlines()

    assert held[1].startswith(f"Managed by host {os.uname().nodename}, process {os.getpid()}")
    assert held[1].endswith("cryopick run.")
    assert held[7].split()[:5] == ["4", "pick", "running", "0", "1"]
    assert left[7].split()[2] == "stopped"
    assert "Job 5 failed: x must y; got z. Do" in left


def test_a_whole_project_has_no_fault(work, cryopick):
    assert faults(cryopick, work) == []
    assert "are whole" in cryopick("project", "verify", work).out


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda w: (w / "jobs/0002_pick/fields/f1_autopick.star").unlink(), "fields/f1 is missing"),
        (lambda w: (w / "jobs/0003_extract/particles.star").unlink(), "job 3 is missing"),
        (lambda w: _cut(w / "jobs/0003_extract/fields/f2.mrcs"), "data bytes"),
        (lambda w: _cut(w / "jobs/0002_pick/autopick.star"), "bytes instead of"),
        (lambda w: (w / "jobs/0001_pick/step.json").write_text("{"), "record of its job"),
        (lambda w: (w / "jobs/0001_pick/.a.star.4194305.tmp").touch(), "left by a process"),
        (lambda w: (w / "jobs/notes").mkdir(), "no folder of a job"),
        (lambda w: shutil.copytree(w / "jobs/0002_pick", w / "jobs/0002_z"), "has 2 folders"),
        (lambda w: (w / "aliases.json").write_text('{"mine": 9}'), "job 9, which is missing"),
        (lambda w: (w / "aliases.json").write_text("[]"), "say the number of a job"),
        (lambda w: (w / "pick").unlink(), "leads to nowhere"),
        (lambda w: (w / "index.sqlite").unlink(), "index.sqlite is missing"),
        (lambda w: (w / "index.sqlite").write_text("x" * 5000), "cannot be read"),
        (lambda w: (w / "decisions.jsonl").write_text('{"when'), "1 of 1 lines"),
    ],
)
def test_verify_finds_what_is_damaged(work, cryopick, damage, said):
    damage(work)

    found = faults(cryopick, work)

    assert any(said in sentence for sentence in found), found


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def test_rebuild_makes_a_lost_index_again_and_clears_leftovers(work, cryopick):
    (work / "index.sqlite").unlink()
    (work / "jobs/0001_pick/peaks/.a.star.4194305.tmp").touch()

    ended = cryopick("project", "rebuild", work)

    assert ended.out == "Indexed 3 jobs with 9 items.\n"
    assert faults(cryopick, work) == []


def test_aliases_of_a_job_deleted_by_hand_are_taken_back_and_that_is_said(work, cryopick):
    shutil.rmtree(work / "jobs/0003_extract")

    ended = cryopick("project", "rebuild", work)

    assert "Alias extract stood for job 3, whose folder is gone" in ended.err
    assert ended.out == "Indexed 2 jobs with 6 items.\n"
    assert faults(cryopick, work) == []
    assert cryopick("project", "rebuild", work).err == ""


def test_a_name_is_given_to_a_job_and_taken_back(work, cryopick):
    named = cryopick("project", "alias", work, "first", 1)
    inside = sorted(p.name for p in (work / "first").iterdir())
    taken = cryopick("project", "alias", work, "first", "--remove")

    assert named.out == "work/first leads to work/jobs/0001_pick.\n"
    assert "autopick.star" in inside
    assert taken.code == 0
    assert not os.path.lexists(work / "first")
    refused(cryopick("project", "alias", work, "first"), "NUMBER must be given")
    refused(cryopick("project", "alias", work, "first", 8), "no job 8")
    refused(cryopick("project", "alias", work, "index.sqlite", 1), "an alias must be a name")


def test_clean_shows_what_goes_and_needs_a_yes_where_nobody_can_be_asked(work, cryopick):
    asked = cryopick("project", "clean", work)
    assert asked.code == 1
    assert asked.err.startswith(
        "Job 1 (pick), replaced by job 2: false_positives 1 instead of 0.5: "
    )
    assert "kB, goes." in asked.err
    assert "--yes must be given where nobody can be asked" in asked.err
    assert (work / "jobs" / "0001_pick").exists()

    ended = cryopick("project", "clean", work, "--yes", "--json")

    assert json.loads(ended.out)["removed"] == [1]
    assert json.loads(ended.out)["bytes"] > 1000
    assert sorted(p.name for p in (work / "jobs").iterdir()) == ["0002_pick", "0003_extract"]
    assert faults(cryopick, work) == []
    assert cryopick("project", "clean", work).out == "Removed 0 jobs.\n"


@pytest.mark.parametrize(
    "words", [["status"], ["verify"], ["rebuild"], ["clean"], ["alias", "a", 1]]
)
def test_a_folder_that_is_no_project_is_refused(project, cryopick, words):
    command, *rest = words
    before = sorted(Path().iterdir())

    refused(cryopick("project", command, ".", *rest), ". must be a project; got a folder with ")
    refused(cryopick("project", command, "absent", *rest), "got no such folder")
    assert sorted(Path().iterdir()) == before


def test_a_project_that_another_manages_can_be_read_but_not_changed(work, cryopick):
    with Project.open(work, command="cryopick run"):
        for words in (["rebuild"], ["clean", "--yes"], ["alias", "a", 1]):
            command, *rest = words
            ended = cryopick("project", command, work, *rest)
            refused(ended, "must be managed by one run at a time", "cryopick run")
        assert faults(cryopick, work) == []


def test_a_project_on_a_read_only_disk_can_be_read_but_not_changed(work, read_only, cryopick):
    if os.geteuid():
        pytest.skip("needs the right to mount")
    subprocess.run(["mount", "--bind", "work", str(read_only)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(read_only)], check=True)
        status = cryopick("project", "status", read_only)
        assert faults(cryopick, read_only) == []
        for words in (["rebuild"], ["clean", "--yes"], ["alias", "a", 1]):
            command, *rest = words
            refused(cryopick("project", command, read_only, *rest), "lie on a writable disk")
    finally:
        subprocess.run(["umount", str(read_only)], check=True)
    assert status.code == 0
    assert status.err == ""


def test_a_full_disk_ends_in_one_sentence_and_what_was_there_stays(small_disk):
    folder = small_disk / "work"
    with Project.open(folder, create=True) as project:
        project.finish_job(project.new_job("ctf", "a").number)
    with Project.open(folder) as project:
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as handle:
            while True:
                handle.write(bytes(512))
                handle.flush()
        changes = (
            lambda: project.new_job("pick", "b"),
            lambda: project.set_alias("ctf", 1),
            lambda: project.write_run_parameters({"a": "b" * 5000}),
            lambda: project.finish_job(1, result={"a": "b" * 5000}),
        )
        for change in changes:
            with pytest.raises(
                OutputError, match=r"free on its disk; got|room left on its disk; got"
            ):
                change()
        assert project.job(1).is_done
        assert project.aliases() == {}
    filler.unlink()
    with Project.open(folder) as project:
        assert project.new_job("pick", "b").number == 2
        project.update_index()
    assert leftovers(folder) == []


def test_a_limit_of_file_sizes_ends_in_one_sentence(tmp_path):
    with Project.open(tmp_path / "work", create=True) as project:
        number = project.new_job("ctf", "a").number
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
        try:
            with pytest.raises(OutputError, match="within the size limit of files; got"):
                project.finish_job(number, result={"a": "b" * 5000})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert project.job(number).state == "running"
    assert leftovers(tmp_path) == []


def test_the_commands_load_no_numerical_library_that_takes_long(work):
    script = "import sys\nfrom cryopick.cli.app import main\n"
    script += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    script += "sys.exit(len({'torch', 'pandas', 'scipy'} & set(sys.modules)))"
    for command in ("status", "verify"):
        words = [sys.executable, "-c", script, "project", command, str(work)]
        assert subprocess.run(words, capture_output=True).returncode == 0


def test_a_person_is_asked_on_a_terminal(work, cryopick, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    kept = cryopick("project", "clean", work)
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    gone = cryopick("project", "clean", work)

    assert (kept.code, gone.code) == (0, 0)
    assert "Removed 1 job." in gone.out
