"""EMAN's files: what they say, and that a box lies around the pixel that was picked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import FormatError
from cryopick.tables.eman import read_box, read_eman_json, write_box, write_eman_json

PICKS = pd.DataFrame({"micrograph": "a.mrc", "x": [100.0, 40.4], "y": [50.0, 60.6]})


@pytest.mark.parametrize("box_size", [64, 63])
def test_box_written_for_a_point_has_the_point_in_its_middle(tmp_path: Path, box_size: int) -> None:
    micrograph = np.zeros((200, 300))
    micrograph[50, 100] = 1

    write_box(tmp_path / "a.box", PICKS[:1], box_size=box_size)

    left, low, width, height = map(int, (tmp_path / "a.box").read_text().split())
    cut = micrograph[low : low + height, left : left + width]
    assert cut.shape == (box_size, box_size)
    assert np.unravel_index(cut.argmax(), cut.shape) == (box_size // 2, box_size // 2)


@pytest.mark.parametrize("box_size", [64, 63])
def test_box_of_a_known_corner_is_read_as_its_middle(tmp_path: Path, box_size: int) -> None:
    (tmp_path / "a.box").write_text(f"68\t18\t{box_size}\t{box_size}\t0.5\n")

    picks = read_box(tmp_path / "a.box", micrograph="a.mrc")

    middle = box_size // 2
    assert picks.rows.to_dict("list") == {
        "micrograph": ["a.mrc"],
        "x": [68.0 + middle],
        "y": [18.0 + middle],
        "fom": [0.5],
    }
    assert picks.attributes == {"box_size": box_size}


def test_positions_are_rounded_to_the_nearest_pixel(tmp_path: Path) -> None:
    write_box(tmp_path / "a.box", PICKS, box_size=64)

    picks = read_box(tmp_path / "a.box", micrograph="a.mrc")

    assert picks.rows["x"].tolist() == [100, 40]
    assert picks.rows["y"].tolist() == [50, 61]


def test_line_without_a_box_is_refused_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "a.box").write_text("1 2 3 4\n5 6 7\n")

    with pytest.raises(FormatError, match="line 2 must hold x, y, width and height"):
        read_box(tmp_path / "a.box", micrograph="a.mrc")


def test_info_file_keeps_what_else_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a_info.json"
    path.write_text(json.dumps({"quality": 5, "boxes": [[100, 50, "manual"], [7, 8, "ref", 0.5]]}))

    picks = read_eman_json(path, micrograph="a.mrc")
    write_eman_json(tmp_path / "b_info.json", picks.rows, others=picks.attributes)

    assert picks.rows["x"].tolist() == [100, 7]
    assert picks.rows["y"].tolist() == [50, 8]
    assert json.loads((tmp_path / "b_info.json").read_text()) == json.loads(path.read_text())


def test_json_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a_info.json").write_text("[1, 2]")

    with pytest.raises(FormatError, match="must be a JSON object with a list of boxes"):
        read_eman_json(tmp_path / "a_info.json", micrograph="a.mrc")
