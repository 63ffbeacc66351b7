"""The table of fields follows a project that grows, to what a new look at all of it gives."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cryopick.pipeline.field_table import FieldTable
from cryopick.pipeline.project import Project

HEAD = """data_optics

loop_
_rlnOpticsGroup #1
_rlnMicrographPixelSize #2
1 1.5

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
"""


@pytest.fixture
def folder(tmp_path):
    with Project.open(tmp_path / "project", create=True) as project:
        for step, kind in (("ctf", "ctf estimate"), ("picks", "pick log")):
            job = project.new_job(step, step)
            where = project.job_folder(job.number)
            (where / "job.json").write_text(json.dumps({"name": kind}))
            project.set_alias(step, job.number)
    return tmp_path / "project"


def list_fields(folder, *names):
    rows = "".join(f"grid/{n}.mrc 1\n" for n in names)
    aside = folder / "aside"
    aside.write_text(HEAD + rows)
    aside.replace(folder / "micrographs.star")


def tell(folder, step, name, **said):
    error = said.pop("error", "")
    line = {"key": f"grid/{name}", "identity": "1:5000000000 x", "summary": said, "error": error}
    with (folder / step / "ledger.jsonl").open("a") as ledger:
        ledger.write(json.dumps(line) + "\n")


def picked(n):
    return {"n_picks": n, "n_peaks": 2 * n, "mean_fom": 7.0, "threshold": 5.0,
            "valid_fraction": 0.75}  # fmt: skip


def measured(defocus):
    return {"defocus_u": defocus + 50, "defocus_v": defocus - 50, "defocus_angle": 0.0,
            "max_resolution": 4.5, "figure_of_merit": 0.3, "is_trusted": True}  # fmt: skip


def assert_same_as_a_new_look(table, *, but=""):
    fresh = FieldTable(project=table.project)
    fresh.refresh()
    assert table.names == fresh.names
    assert table.ids == fresh.ids
    assert table.errors == fresh.errors
    for name, values in fresh.numbers.items():
        if name == but:
            continue
        assert np.array_equal(table.numbers[name], values, equal_nan=True), name


def test_fields_that_come_later_join_those_before(folder):
    table = FieldTable(project=folder)
    list_fields(folder, "a", "b")
    tell(folder, "ctf", "a", **measured(9000))
    table.refresh()
    assert table.numbers["defocus"][0] == 9000
    tell(folder, "picks", "c", **picked(9))  # told of before it is listed
    table.refresh()
    list_fields(folder, "a", "b", "c")
    tell(folder, "picks", "a", **picked(4))

    assert table.refresh() == {0, 2}
    assert table.numbers["picks"].tolist()[::2] == [4, 9]
    assert np.isnan(table.numbers["picks"][1])
    assert table.numbers["background"][0] == 0.25
    assert table.numbers["time"][0] == 5.0
    assert table.refresh() == set()
    assert_same_as_a_new_look(table)


def test_a_field_that_is_refused_and_tried_again_has_one_state(folder):
    table = FieldTable(project=folder)
    list_fields(folder, "a", "b")
    tell(folder, "picks", "b", **picked(7))
    table.refresh()
    tell(folder, "picks", "b", error="It is gone.")
    table.refresh()
    assert table.errors == {1: ("picks", "It is gone.")}
    assert np.isnan(table.numbers["picks"][1])
    tell(folder, "picks", "b", **picked(8))
    table.refresh()

    assert not table.errors
    assert table.numbers["picks"][1] == 8
    assert_same_as_a_new_look(table)


def test_a_list_that_lost_a_field_is_read_anew(folder):
    table = FieldTable(project=folder)
    list_fields(folder, "a", "b", "c")
    for name, n in (("a", 1), ("b", 2), ("c", 3)):
        tell(folder, "picks", name, **picked(n))
    table.refresh()
    list_fields(folder, "a", "c")

    assert table.refresh() is None
    assert table.numbers["picks"].tolist() == [1, 3]
    assert_same_as_a_new_look(table)


def test_a_ledger_that_was_written_anew_takes_the_place_of_the_old(folder):
    table = FieldTable(project=folder)
    list_fields(folder, "a", "b")
    tell(folder, "picks", "a", **picked(1))
    tell(folder, "picks", "b", **picked(2))
    table.refresh()
    (folder / "picks" / "ledger.jsonl").unlink()
    tell(folder, "picks", "a", **picked(6))

    assert table.refresh() is None
    assert table.numbers["picks"][0] == 6
    assert np.isnan(table.numbers["picks"][1])
    assert_same_as_a_new_look(table, but="time")  # of the file, which stays true


def test_a_line_that_is_being_written_does_not_count_yet(folder):
    table = FieldTable(project=folder)
    list_fields(folder, "a")
    path = folder / "picks" / "ledger.jsonl"
    tell(folder, "picks", "a", **picked(5))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    table.refresh()
    assert np.isnan(table.numbers["picks"][0])
    with path.open("ab") as ledger:
        ledger.write(whole[len(whole) // 2 :])
    table.refresh()

    assert table.numbers["picks"][0] == 5
