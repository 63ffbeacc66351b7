"""crYOLO's files: corners in fractions of a pixel, all boxes kept, sizes in Angstrom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import FormatError
from cryopick.tables.cryolo import read_cbox, read_cryolo_box, write_cbox, write_cryolo_box

CBOX = """
data_global

_cbox_format_version 1.0

data_cryolo

loop_
_CoordinateX #1
_CoordinateY #2
_CoordinateZ #3
_Width #4
_Height #5
_Depth #6
_EstWidth #7
_EstHeight #8
_Confidence #9
_NumBoxes #10
_Angle #11
4472.25 3834.5 <NA> 200.0 200.0 <NA> 208.0 204.0 0.145 <NA> <NA>
2088.0 3783.0 <NA> 200.0 200.0 <NA> <NA> <NA> 0.9 <NA> <NA>

data_cryolo_include

loop_
_slice_index #1
"""


def test_cbox_gives_centres_confidence_and_size(tmp_path: Path) -> None:
    (tmp_path / "a.cbox").write_text(CBOX)

    picks = read_cbox(tmp_path / "a.cbox", micrograph="a.mrc", pixel_size=0.5)

    assert picks.rows["x"].tolist() == [4572.25, 2188.0]
    assert picks.rows["y"].tolist() == [3934.5, 3883.0]
    assert picks.rows["fom"].tolist() == [0.145, 0.9]  # the unlikely one is kept
    np.testing.assert_equal(picks.rows["diameter"].to_numpy(), [103.0, np.nan])
    assert picks.attributes == {"box_size": 200}


def test_size_stays_in_pixels_where_the_pixel_size_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.cbox").write_text(CBOX)

    rows = read_cbox(tmp_path / "a.cbox", micrograph="a.mrc").rows

    assert "diameter" not in rows
    assert rows["est_width"][0] == 208
    assert rows["est_height"][0] == 204


@pytest.mark.parametrize("box_size", [64, 63])
def test_cbox_corner_is_half_a_box_from_the_centre(tmp_path: Path, box_size: int) -> None:
    rows = pd.DataFrame({"x": [100.0], "y": [50.25], "fom": [0.5], "diameter": [120.0]})

    write_cbox(tmp_path / "a.cbox", rows, box_size=box_size, pixel_size=1.5)

    values = next(
        line.split() for line in (tmp_path / "a.cbox").read_text().splitlines() if "<NA>" in line
    )
    assert float(values[0]) + float(values[3]) / 2 == 100
    assert float(values[1]) + float(values[4]) / 2 == 50.25
    assert values[6] == values[7] == "80.0"
    back = read_cbox(tmp_path / "a.cbox", micrograph="a.mrc", pixel_size=1.5).rows
    pd.testing.assert_frame_equal(back[["x", "y", "fom", "diameter"]], rows)


def test_cbox_without_boxes_has_no_picks(tmp_path: Path) -> None:
    write_cbox(tmp_path / "a.cbox", pd.DataFrame({"x": [], "y": []}), box_size=64)

    assert len(read_cbox(tmp_path / "a.cbox", micrograph="a.mrc")) == 0


@pytest.mark.parametrize("box_size", [64, 63])
def test_box_file_keeps_fractions_of_a_pixel(tmp_path: Path, box_size: int) -> None:
    rows = pd.DataFrame({"x": [100.3], "y": [50.25], "fom": [0.5]})

    write_cryolo_box(tmp_path / "a.box", rows, box_size=box_size)
    back = read_cryolo_box(tmp_path / "a.box", micrograph="a.mrc").rows

    pd.testing.assert_frame_equal(back[["x", "y", "fom"]], rows)


def test_star_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.cbox").write_text("data_\n\nloop_\n_rlnCoordinateX #1\n1.0\n")

    with pytest.raises(FormatError, match="must have a block cryolo"):
        read_cbox(tmp_path / "a.cbox", micrograph="a.mrc")
