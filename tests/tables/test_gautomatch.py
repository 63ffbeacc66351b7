"""Gautomatch's STAR: RELION's columns, classes from 0."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cryopick.tables.gautomatch import read_gautomatch, write_gautomatch

FILE = """
data_

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnAnglePsi #3
_rlnClassNumber #4
_rlnAutopickFigureOfMerit #5
  100.5   50.0   90.0    0   0.25
    7.0    8.0    0.0    3   0.50
"""


def test_class_numbers_are_counted_from_one(tmp_path: Path) -> None:
    (tmp_path / "a_automatch.star").write_text(FILE)

    rows = read_gautomatch(tmp_path / "a_automatch.star", micrograph="a.mrc").rows

    assert rows["class_number"].tolist() == [1, 4]
    assert rows["x"].tolist() == [100.5, 7.0]
    assert rows["psi"].tolist() == [90.0, 0.0]
    assert rows["fom"].tolist() == [0.25, 0.5]


def test_picks_come_back_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "a_automatch.star").write_text(FILE)
    rows = read_gautomatch(tmp_path / "a_automatch.star", micrograph="a.mrc").rows

    write_gautomatch(tmp_path / "b_automatch.star", rows)

    back = read_gautomatch(tmp_path / "b_automatch.star", micrograph="a.mrc").rows
    pd.testing.assert_frame_equal(back, rows)


def test_picks_of_no_class_are_written_as_the_first(tmp_path: Path) -> None:
    rows = pd.DataFrame({"x": [1.0], "y": [2.0], "class_number": [0]})

    write_gautomatch(tmp_path / "a_automatch.star", rows)

    back = read_gautomatch(tmp_path / "a_automatch.star", micrograph="a.mrc").rows
    assert back["class_number"].tolist() == [1]
