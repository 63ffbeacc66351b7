from __future__ import annotations

import json
import sqlite3
import tracemalloc

import numpy as np
import pytest

from cryopick.pipeline.project import Project
from cryopick.pipeline.project_index import Index, ItemCounts
from cryopick.pipeline.project_verify import verify_project


def line(key, error="", **summary):
    values = {"key": key, "identity": "1:2", "summary": summary, "error": error}
    return json.dumps(values) + "\n"


def append(project, number, *lines):
    with (project.job_folder(number) / "ledger.jsonl").open("a") as ledger:
        ledger.writelines(lines)


def dump(index):
    with index:
        return list(index.dump())


@pytest.fixture
def project(tmp_path):
    with Project.open(tmp_path / "project", create=True) as opened:
        yield opened


def test_an_index_that_grew_with_the_project_equals_one_made_from_its_files(project):
    rng = np.random.default_rng(3)
    for round_ in range(30):
        jobs = list(project.jobs())
        match rng.integers(6) if jobs else 0:
            case 0:
                project.new_job(str(rng.choice(["ctf", "pick"])), f"i{round_}")
            case 1:
                keys = rng.integers(20, size=5)
                lines = [line(f"m{k}", "bad" if k % 3 == 0 else "") for k in keys]
                append(project, int(rng.choice(jobs)), *lines)
            case 2:
                project.finish_job(int(rng.choice(jobs)), result={"n": round_})
            case 3:
                number = int(rng.choice(jobs))
                project.set_alias(project.job(number).step, number)
            case 4:
                project.add_decision("reject", micrograph=f"m{round_}")
            case 5:  # cut off by a kill; the job takes the rest of the line away
                number = int(rng.choice(jobs))
                torn = line("torn")[: int(rng.choice([9, -1]))]
                append(project, number, torn)
                project.update_index()
                path = project.job_folder(number) / "ledger.jsonl"
                path.write_bytes(path.read_bytes()[: -len(torn)])
        if round_ % 3:
            project.update_index()
    project.update_index()

    grown = dump(project.read_index())
    Index.rebuild(project.folder)

    assert dump(project.read_index()) == grown
    assert dump(Index.from_files(project.folder)) == grown
    assert any(row.startswith("items") for row in grown)


def test_the_last_line_of_an_item_counts(project):
    number = project.new_job("pick", "a").number
    append(project, number, line("a"), line("b", "b.mrc must be whole"), line("c"))
    project.update_index()
    append(project, number, line("b"), line("c", "gone"))
    project.update_index()

    with project.read_index() as index:
        assert index.counts() == {number: ItemCounts(n_done=2, n_failed=1)}
        assert list(index.items(number, state="failed")) == [("c", "failed", "gone")]
        assert [name for name, _, _ in index.items(number)] == ["a", "b", "c"]


def test_a_line_counts_when_its_end_is_written(project):
    number = project.new_job("pick", "a").number
    append(project, number, line("a"), line("b")[:-1])
    project.update_index()
    with project.read_index() as index:
        before = index.counts()[number]
    append(project, number, "\n")

    with project.read_index() as index:
        assert (before, index.counts()[number]) == (ItemCounts(1, 0), ItemCounts(2, 0))


def test_a_ledger_that_was_begun_anew_replaces_what_was_known_of_it(project):
    number = project.new_job("pick", "a").number
    append(project, number, line("a"), line("b"))
    project.update_index()
    path = project.job_folder(number) / "ledger.jsonl"
    other = path.with_name("other")
    other.write_text(line("c") + line("d") + line("e"))
    other.replace(path)
    project.update_index()

    with project.read_index() as index:
        assert [name for name, _, _ in index.items(number)] == ["c", "d", "e"]


def test_a_reader_sees_what_the_index_has_not_taken_in_yet_and_does_not_write_it(project):
    number = project.new_job("pick", "a").number
    append(project, number, line("a"))
    project.update_index()
    path = project.folder / "index.sqlite"
    before = path.read_bytes()
    append(project, number, line("b"))
    project.set_alias("pick", number)

    with project.read_index() as index:
        assert index.note == ""
        assert index.counts() == {number: ItemCounts(2, 0)}
    assert path.read_bytes() == before


@pytest.mark.parametrize("break_it", ["missing", "text", "half", "other tables", "no tables"])
def test_a_broken_index_is_made_anew_by_the_manager_with_a_sentence(project, break_it):
    number = project.new_job("pick", "a").number
    append(project, number, *(line(f"m{n}") for n in range(3000)))
    project.update_index()
    whole = dump(project.read_index())
    path = project.folder / "index.sqlite"
    project.close()
    if break_it == "missing":
        path.unlink()
    elif break_it == "text":
        path.write_text("what is this?" * 1000)
    elif break_it == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE meta (name, value)" if "other" in break_it else "VACUUM")
        other.close()

    with Project.open(project.folder, writes=False).read_index() as seen:
        assert "the files were read instead." in seen.note
        assert seen.counts() == {number: ItemCounts(3000, 0)}
    with Project.open(project.folder) as again:
        again.update_index()
        notes = again.notes
        assert dump(again.read_index()) == whole

    assert notes == (
        []
        if break_it == "missing"
        else [f"{path} was broken, and has been made anew from the files."]
    )


@pytest.mark.parametrize("how", ["opened", "rebuilt"])
def test_a_writer_killed_within_a_transaction_leaves_an_index_that_is_put_right(project, how):
    number = project.new_job("pick", "a").number
    append(project, number, line("a"))
    project.close()
    path = project.folder / "index.sqlite"
    before = dump(Index.for_reading(project.folder))
    killed = sqlite3.connect(path)
    killed.execute("PRAGMA cache_size = 0")  # pages go to the file at once
    killed.execute("BEGIN")
    rows = [(9, f"x{n}" * 100, "s", "done", "") for n in range(3000)]
    killed.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?)", rows)
    half, journal = path.read_bytes(), path.with_name("index.sqlite-journal")
    played_back = journal.read_bytes()
    killed.rollback()
    killed.close()
    path.write_bytes(half)
    journal.write_bytes(played_back)

    assert dump(Index.for_reading(project.folder)) == before
    if how == "rebuilt":  # with what has come since: old pages must not get into the new file
        append(project, number, *(line(f"b{n}") for n in range(500)))
        before = dump(Index.from_files(project.folder))
        Index.rebuild(project.folder)
    with Project.open(project.folder) as again:
        again.update_index()
        assert again.notes == []
    assert not journal.exists()
    assert dump(Index.for_reading(project.folder)) == before


def test_an_index_with_other_rows_than_the_files_say_is_found(project):
    number = project.new_job("pick", "a").number
    append(project, number, line("a"))
    project.close()
    with sqlite3.connect(project.folder / "index.sqlite") as connection:
        connection.execute("UPDATE items SET state = 'failed'")
    connection.close()

    (fault,) = verify_project(project.folder)

    assert "has 1 rows that the files do not say, and lacks 1." in fault


def test_ten_thousand_items_are_indexed_in_the_memory_of_a_batch(project):
    numbers = [project.new_job("pick", f"{n}").number for n in range(2)]
    project.update_index()

    def peak_of(number, n_items):
        append(
            project, number, *(line(f"session/field_{n:06d}", n_picks=n) for n in range(n_items))
        )
        tracemalloc.start()
        project.update_index()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    few, many = peak_of(numbers[0], 4_000), peak_of(numbers[1], 20_000)

    assert many < 1.3 * few
    with project.read_index() as index:
        assert index.counts()[numbers[1]] == ItemCounts(20_000, 0)
