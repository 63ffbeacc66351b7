"""Topaz's table: layout, scale and names."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cryopick.errors import FormatError
from cryopick.tables.topaz import read_topaz, write_topaz


def test_table_is_laid_out_as_topaz_writes_it(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "micrograph": ["Movies/a.b.mrc", "Movies/c.tiff"],
            "x": [400.0, 8.0],
            "y": [200.0, 12.0],
            "fom": [1.5, -0.25],
        }
    )

    write_topaz(tmp_path / "p.txt", rows, scale=4)

    assert (tmp_path / "p.txt").read_text() == (
        "image_name\tx_coord\ty_coord\tscore\na.b\t100\t50\t1.5\nc\t2\t3\t-0.25\n"
    )


def test_positions_of_a_reduced_image_are_scaled_up(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("image_name\tx_coord\ty_coord\n001\t100\t50\n")

    picks = read_topaz(tmp_path / "p.txt", scale=4)

    assert picks.rows.to_dict("list") == {"micrograph": ["001"], "x": [400.0], "y": [200.0]}


def test_other_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("name\tx\ty\na\t1\t2\n")

    with pytest.raises(FormatError, match="must have a column image_name; got name, x, y"):
        read_topaz(tmp_path / "p.txt")
