"""Tables that join portions hold what those made of all micrographs at once would."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.io.star import read_star
from cryopick.pipeline.session_portion import JoinedTable
from cryopick.tables.model import Micrographs
from cryopick.tables.relion import read_micrographs, write_micrographs

OPTICS = pd.DataFrame(
    {"optics_group_name": ["opticsGroup1"], "optics_group": [1], "pixel_size": [1.25]}
)


def table_of(count, *, first=0, defocus=12000.11, **columns):
    numbers = np.arange(first, first + count)
    names = [f"in/field {n}.mrc" if n % 3 == 0 else f"in/_{n}.mrc" for n in numbers]
    rows = {
        "micrograph": pd.Series(names, dtype="str"),
        "optics_group": 1,
        "defocus_u": defocus + numbers * 0.37,
    }
    return Micrographs(rows=pd.DataFrame(rows).assign(**columns), optics=OPTICS)


@pytest.fixture
def joined(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return JoinedTable(Path("joined.star"))


def take(joined, table):
    write_micrographs(Path("part.star"), table)
    return joined.take(Path("part.star"))


def assert_same(path, other):
    one, two = read_star(path), read_star(other)
    assert list(one) == list(two)
    for name in one:
        pd.testing.assert_frame_equal(one[name], two[name])


@pytest.mark.parametrize("cuts", [(10,), (1, 9), (0, 3, 1, 6)])
def test_portions_one_after_the_other_make_the_table_of_all(joined, cuts):
    first = 0
    for count in cuts:
        take(joined, table_of(count, first=first))
        first += count
    joined.write()

    write_micrographs(Path("all.star"), table_of(10))
    assert Path("joined.star").read_bytes() == Path("all.star").read_bytes()


def test_a_row_takes_the_place_of_that_of_the_same_micrograph(joined):
    take(joined, table_of(5))
    take(joined, table_of(1, first=2, defocus=30000.0))
    joined.write()

    rows = read_micrographs(Path("joined.star")).rows
    assert len(rows) == 5
    assert rows["defocus_u"].round(2).tolist()[2] == 30000.74


def test_dropped_micrographs_are_gone_and_some_can_be_written_alone(joined):
    values = take(joined, table_of(6))
    joined.drop(["in/_1", "no such key"])
    joined.write()

    assert joined.write_some(Path("some.star"), ["in/_5", "in/_1", "in/_2"]) == 2
    names = read_micrographs(Path("some.star")).rows["micrograph"].tolist()
    assert names == ["in/_5.mrc", "in/_2.mrc"]
    assert len(read_micrographs(Path("joined.star")).rows) == 5
    assert values["in/_4"]["rlnDefocusU"] == pytest.approx(12001.59)


def test_columns_that_come_later_are_joined_with_those_of_before(joined):
    take(joined, table_of(3))
    take(joined, table_of(2, first=3, phase_shift=[1.5, 2.5]))
    take(joined, table_of(1, first=1, phase_shift=[3.5]))
    joined.write()

    rows = read_micrographs(Path("joined.star")).rows.set_index("micrograph")
    assert len(rows) == 5
    assert np.isnan(rows.loc["in/field 0.mrc", "phase_shift"])
    assert rows.loc["in/_1.mrc", "phase_shift"] == 3.5
    assert rows.loc["in/_4.mrc", "phase_shift"] == 2.5


def test_a_group_of_optics_that_comes_later_joins_the_table(joined):
    take(joined, table_of(3))
    two = pd.concat([OPTICS, OPTICS.assign(optics_group=2, optics_group_name="opticsGroup2")])
    take(joined, replace(table_of(2, first=3, optics_group=2), optics=two))
    joined.write()

    found = read_micrographs(Path("joined.star"))
    assert found.optics["optics_group"].tolist() == [1, 2]
    assert found.rows["optics_group"].tolist() == [1, 1, 1, 2, 2]
