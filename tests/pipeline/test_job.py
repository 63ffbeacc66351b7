from __future__ import annotations

import contextlib
import json
import os
import sys

import pytest

from cryopick.errors import DataError, OutputError, ProjectError
from cryopick.execution.local import LocalExecutor, SerialExecutor
from cryopick.pipeline.growing import KeptLedgers, growing
from cryopick.pipeline.job import Job, Task, identity_of, take_back_items

SERIAL = SerialExecutor(threads=1)


def work(payload):
    folder, name = payload
    with (folder / "calls").open("a") as calls:
        calls.write(name)
    if name == "bad":
        raise DataError(name, must="be good", got="bad", remedy="Leave it out")
    (folder / f"{name}.txt").write_text(name)
    return {"files": [f"{name}.txt"], "length": len(name)}


def run(folder, names="abc", *, executor=SERIAL, identity="1", progress=None, **options):
    options = {"name": "test", "parameters": {"box": 64}} | options
    tasks = [Task(key=n, identity=identity, payload=(folder, n)) for n in names]
    with Job(folder, **options) as job:
        return job.run(executor, work, tasks, progress=progress)


def calls(folder):
    path = folder / "calls"
    return path.read_text() if path.exists() else ""


def lines(folder):
    return (folder / "ledger.jsonl").read_text().splitlines()


def test_done_items_are_not_done_again(tmp_path):
    run(tmp_path, "ab")

    records = run(tmp_path, "abc")

    assert calls(tmp_path) == "abc"
    assert [r.key for r in records] == ["a", "b", "c"]
    assert [r.summary["length"] for r in records] == [1, 1, 1]


def test_items_whose_input_changed_are_done_again(tmp_path):
    run(tmp_path, "ab", identity="1")
    run(tmp_path, "ab", identity="2")

    assert calls(tmp_path) == "abab"


def test_failed_items_are_listed_and_tried_again(tmp_path):
    first = run(tmp_path, ["a", "bad", "c"])
    run(tmp_path, ["a", "bad", "c"])

    assert [r.is_done for r in first] == [True, False, True]
    assert first[1].error == "bad must be good; got bad. Leave it out."
    assert calls(tmp_path) == "abadcbad"


@pytest.mark.parametrize("executor", [SERIAL, LocalExecutor(workers=2, threads=1)])
def test_records_are_in_the_order_of_the_tasks(tmp_path, executor):
    names = [f"n{n}" for n in range(9)]

    records = run(tmp_path, names, executor=executor)

    assert [r.key for r in records] == names
    assert len(lines(tmp_path)) == 9


def test_progress_counts_what_was_done_before(tmp_path):
    told = []
    run(tmp_path, "ab")
    run(tmp_path, "abcd", progress=lambda done, total: told.append((done, total)))

    assert told == [(2, 4), (3, 4), (4, 4)]


def test_a_line_cut_by_a_kill_is_dropped_and_its_item_done_again(tmp_path):
    run(tmp_path, "abc")
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-7])

    run(tmp_path, "abc")

    assert calls(tmp_path) == "abcc"
    assert [json.loads(line)["key"] for line in lines(tmp_path)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "line", [b"\0\0\0\0", b"\xff\xfe", b"{}", b"[1]", b"null", b'{"key": "b", "future": 1}']
)
def test_a_broken_line_means_that_its_item_is_done_again(tmp_path, line):
    run(tmp_path, "abc")
    ledger = tmp_path / "ledger.jsonl"
    whole = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(whole[0] + line + b"\n" + whole[2])

    records = run(tmp_path, "abc")

    assert calls(tmp_path) == "abcb"
    assert all(r.is_done for r in records)


def test_other_parameters_are_refused_and_named(tmp_path):
    run(tmp_path, "a")

    with pytest.raises(ProjectError, match="got `test` with box 64 instead of 32"):
        run(tmp_path, "a", parameters={"box": 32})
    assert calls(tmp_path) == "a"


def test_another_command_is_refused(tmp_path):
    run(tmp_path, "a")

    with pytest.raises(ProjectError, match=r"hold `other` .* got `test`\. Choose another --out"):
        run(tmp_path, "a", name="other")


def test_overwrite_removes_what_the_other_job_made_and_nothing_else(tmp_path):
    (tmp_path / "joined.star").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    run(tmp_path, "ab", results=["joined.star"], overwrite=True)
    (tmp_path / "joined.star").write_text("made")

    run(tmp_path, "c", parameters={"box": 32}, overwrite=True)

    assert sorted(p.name for p in tmp_path.glob("*.*") if p.name != ".lock") == [
        "c.txt",
        "job.json",
        "ledger.jsonl",
        "notes.txt",
    ]


def test_results_of_unknown_origin_are_not_overwritten(tmp_path):
    (tmp_path / "joined.star").write_text("precious")

    with pytest.raises(ProjectError, match=r"got joined\.star of unknown origin"):
        run(tmp_path, "a", results=["joined.star"])

    assert (tmp_path / "joined.star").read_text() == "precious"


def test_a_folder_with_other_files_is_used(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    assert run(tmp_path, "a", results=["joined.star"])[0].is_done


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"name": "test"}', "null"])
def test_a_broken_job_record_never_lets_unknown_results_pass_for_done(tmp_path, content):
    run(tmp_path, "ab")
    (tmp_path / "job.json").write_text(content)

    with pytest.raises(ProjectError, match="Choose another --out, or add --overwrite"):
        run(tmp_path, "ab")
    run(tmp_path, "ab", overwrite=True)

    assert calls(tmp_path) == "abab"


def test_a_ledger_without_its_job_record_is_refused(tmp_path):
    run(tmp_path, "ab")
    (tmp_path / "job.json").unlink()

    with pytest.raises(ProjectError, match=r"ledger\.jsonl of unknown origin"):
        run(tmp_path, "ab")


def test_one_run_at_a_time(tmp_path):
    options = {"name": "test", "parameters": {"box": 64}}
    with (
        Job(tmp_path, **options),
        pytest.raises(ProjectError, match="got a run that is still going"),
        Job(tmp_path, **options),
    ):
        pass
    assert run(tmp_path, "a")[0].is_done


def test_a_refused_job_leaves_the_folder_free_and_its_record_alone(tmp_path):
    run(tmp_path, "a")
    before = (tmp_path / "job.json").read_bytes()

    with pytest.raises(ProjectError):
        run(tmp_path, "a", name="other")

    assert (tmp_path / "job.json").read_bytes() == before
    assert run(tmp_path, "ab")[1].is_done


@pytest.fixture(params=["reaped", "zombie"])
def dead(request):
    process = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)  # has ended, stays a zombie
    if request.param == "reaped":
        os.waitpid(process, 0)
    yield process
    if request.param == "zombie":
        os.waitpid(process, 0)


def test_what_a_killed_run_left_half_written_is_removed(tmp_path, dead):
    (tmp_path / "deep").mkdir()
    half = [tmp_path / f".a.txt.{dead}.tmp", tmp_path / "deep" / f".b.mrcs.{dead}.tmp"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "job.json").write_text("{}")
    kept = [
        tmp_path / f".a.txt.{os.getpid()}.tmp",  # being written now
        tmp_path / "other" / f".c.txt.{dead}.tmp",  # of another job
        tmp_path / "a.tmp",
    ]
    for path in half + kept:
        path.write_text("half")

    run(tmp_path, "a")

    assert [p.exists() for p in half] == [False, False]
    assert [p.exists() for p in kept] == [True, True, True]


def test_the_record_says_how_it_ended(tmp_path):
    run(tmp_path, ["a", "bad"])
    record = json.loads((tmp_path / "job.json").read_text())
    assert (record["state"], record["n_done"], record["n_failed"]) == ("finished", 1, 1)

    with pytest.raises(KeyboardInterrupt), Job(tmp_path, name="test", parameters={"box": 64}):
        raise KeyboardInterrupt
    assert json.loads((tmp_path / "job.json").read_text())["state"] == "stopped"


def test_an_error_is_not_hidden_by_a_record_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(*_):
        raise OutputError("job.json", must="be writable", got="no", remedy="Wait")

    job = Job(tmp_path, name="test", parameters={})
    job.__enter__()
    monkeypatch.setattr("cryopick.pipeline.job.write_json", refuse)

    job.__exit__(ZeroDivisionError)  # raises nothing of its own

    with pytest.raises(OutputError), contextlib.closing(job._lock_handle):
        job.__exit__(None)


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match="must be a folder; got a file"):
        run(tmp_path / "file")
    with pytest.raises(OutputError, match="must lie in a folder"):
        run(tmp_path / "file" / "below")


def test_identity_changes_with_the_file(tmp_path):
    path = tmp_path / "a"
    missing = identity_of(path)
    path.write_text("1")
    first = identity_of(path)
    path.write_text("22")

    assert len({missing, first, identity_of(path)}) == 3
    os.utime(path, ns=(1, 1))
    touched = identity_of(path)
    assert touched != first
    assert touched == identity_of(path)


def test_a_ledger_is_kept_from_portion_to_portion_and_read_again_when_it_was_changed(
    tmp_path, monkeypatch
):
    reads = []
    read = Job._read_ledger
    monkeypatch.setattr(Job, "_read_ledger", lambda job: reads.append(job.folder) or read(job))
    kept, folder = KeptLedgers(), tmp_path / "job"

    def portion(*names):
        done = []

        def do(name):
            if name is KeyboardInterrupt:
                raise name
            done.append(name)
            return {}

        tasks = [Task(key=str(n), identity="1", payload=n) for n in names]
        with growing("portion", ledgers=kept), Job(folder, name="test", parameters={}) as job:
            job.run(SERIAL, do, tasks)
        return done

    assert portion("a", "b") == ["a", "b"]
    reads.clear()
    assert portion("b", "c") == ["c"]
    assert reads == []
    take_back_items(folder, ["b"], why="gone")
    assert portion("a", "b", "c") == ["b"]
    assert len(reads) == 1
    with pytest.raises(KeyboardInterrupt):
        portion("d", KeyboardInterrupt)
    assert portion("d", "e") == ["e"]
    assert len(reads) == 2
