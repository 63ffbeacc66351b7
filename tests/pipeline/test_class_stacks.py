"""Averages that tables name: each is read from where it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from classification_world import PIXEL, SIZE
from selection_world import averages, make_weights

from cryopick.errors import OutputError
from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.io.star import write_star
from cryopick.pipeline.class2d_references import read_references
from cryopick.pipeline.select_classes import select_classes
from cryopick.selection.select_classes_parameters import SelectClassesParameters


@pytest.fixture
def two_runs(tmp_path, monkeypatch):
    """Folders ``two/a`` and ``two/b`` with other averages in stacks of the same name."""
    monkeypatch.chdir(tmp_path)
    drawn = averages().numpy()
    for name, images in (("a", drawn[:2]), ("b", drawn[3:])):
        Path("two", name).mkdir(parents=True)
        write_mrc(Path("two", name, "class_averages.mrcs"), images, pixel_size=PIXEL)
    return drawn


def write_table(path: str, *folders: str) -> Path:
    names = [f"{k}@{f}/class_averages.mrcs" for f in folders for k in (1, 2)]
    write_star(Path(path), {"": pd.DataFrame({"rlnReferenceImage": names})})
    return Path(path)


def references(path: Path, count: int) -> np.ndarray:
    return read_references(path, n_classes=count, box_size=SIZE, pixel_size=PIXEL).numpy()


@pytest.mark.parametrize("place", ["joined.star", "two/a/joined.star", "two/b/joined.star"])
def test_a_table_of_two_stacks_of_one_name_is_read_from_both(two_runs, place):
    joined = write_table(place, "two/a", "two/b")

    np.testing.assert_array_equal(references(joined, 4), two_runs[[0, 1, 3, 4]])


def test_a_stack_that_was_moved_with_its_table_is_found_beside_it(two_runs):
    Path("away").mkdir()
    Path("two/b/class_averages.mrcs").rename("away/class_averages.mrcs")
    moved = write_table("away/class_averages.star", "two/b")
    stale = write_table("away/stale.star", "two/a")  # the old place holds another run
    joined = write_table("away/joined.star", "two/a", "two/b")

    for table in (moved, stale):
        np.testing.assert_array_equal(references(table, 2), two_runs[3:])
    np.testing.assert_array_equal(references(joined, 4), two_runs[[0, 1, 3, 4]])


def test_a_selection_from_a_table_is_not_written_over_its_stacks(two_runs):
    joined = write_table("joined.star", "two/a", "two/b")
    weights = make_weights(Path("weights.npz"))
    before = read_mrc(Path("two/b/class_averages.mrcs"))

    with pytest.raises(OutputError, match="must be another folder than that of the input"):
        select_classes(
            joined,
            Path("two/b"),
            SelectClassesParameters(classes="1"),
            weights=weights,
            overwrite=True,
        )

    np.testing.assert_array_equal(read_mrc(Path("two/b/class_averages.mrcs")), before)
