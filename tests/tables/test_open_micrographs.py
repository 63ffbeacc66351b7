"""Opening micrographs: STAR files, globs, pixel sizes, duplicates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import FormatError, ParameterError, TableError
from cryopick.io.mrc import write_mrc
from cryopick.tables.micrographs import micrograph_path, open_micrographs, pixel_sizes
from cryopick.tables.model import Micrographs
from cryopick.tables.relion import write_micrographs


def field(path, pixel_size):
    write_mrc(path, np.zeros((4, 6), np.float32), pixel_size=pixel_size)
    return str(path)


def two_groups(path):
    optics = pd.DataFrame({"optics_group": [1, 2], "pixel_size": [1.5, 0.8], "voltage": 300.0})
    rows = pd.DataFrame({"micrograph": ["a.mrc", "b.mrc", "c.mrc"], "optics_group": [2, 1, 2]})
    write_micrographs(path, Micrographs(rows=rows, optics=optics))
    return str(path)


def test_groups_of_different_pixel_sizes_are_all_kept(tmp_path):
    micrographs = open_micrographs([two_groups(tmp_path / "m.star")])

    assert pixel_sizes(micrographs).tolist() == [0.8, 1.5, 0.8]


def test_options_override_the_table(tmp_path):
    micrographs = open_micrographs(
        [two_groups(tmp_path / "m.star")], pixel_size=2.0, voltage=200.0, amplitude_contrast=0.1
    )

    assert pixel_sizes(micrographs).tolist() == [2.0] * 3
    assert micrographs.optics["voltage"].tolist() == [200.0] * 2
    assert micrographs.optics["amplitude_contrast"].tolist() == [0.1] * 2


def test_images_take_their_pixel_size_from_their_headers(tmp_path):
    names = [field(tmp_path / f"{n}.mrc", s) for n, s in zip("abc", (3.0, 1.5, 3.0), strict=True)]

    micrographs = open_micrographs([str(tmp_path / "*.mrc")])

    assert micrographs.rows["micrograph"].tolist() == names
    assert micrographs.rows["optics_group"].tolist() == [1, 2, 1]
    assert pixel_sizes(micrographs).tolist() == [3.0, 1.5, 3.0]


def test_a_folder_stands_for_its_images(tmp_path):
    names = [field(tmp_path / n, 1.5) for n in ("a.mrc", "b.mrc")]
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / ".c.mrc").write_text("")

    assert open_micrographs([str(tmp_path)]).rows["micrograph"].tolist() == names


@pytest.mark.parametrize("name", ["a.mrc", "a.png", "a.tif"])
def test_images_without_a_pixel_size_need_the_option(tmp_path, name):
    path = tmp_path / name
    if name == "a.mrc":
        field(path, 0.0)
    else:
        path.write_bytes(b"")
    with pytest.raises(ParameterError, match="Give it with --pixel-size"):
        open_micrographs([str(path)])

    assert pixel_sizes(open_micrographs([str(path)], pixel_size=1.2)).tolist() == [1.2]


def test_a_truncated_image_does_not_hold_up_the_others(tmp_path):
    broken = tmp_path / "a.mrc"
    field(broken, 1.5)
    broken.write_bytes(broken.read_bytes()[:1030])
    field(tmp_path / "b.mrc", 2.5)

    assert pixel_sizes(open_micrographs([str(tmp_path)])).tolist() == [2.5, 2.5]
    with pytest.raises(FormatError, match="data bytes"):
        open_micrographs([str(broken)])


def test_names_that_would_share_their_results_are_refused(tmp_path):
    for folder in ("job001", "job002"):
        field(tmp_path / folder / "a.mrc", 1.5)

    with pytest.raises(TableError, match="must name each micrograph once; got a 2 times"):
        open_micrographs([str(tmp_path / "job*" / "*.mrc")])


@pytest.mark.parametrize(
    ("inputs", "options", "expected"),
    [
        ([], {}, "must name at least one file"),
        (["none*.mrc"], {}, r"none\*.mrc must fit at least one file"),
        (["a.star", "b.mrc"], {}, "must be one STAR file or images"),
        (["a.mrc"], {"pixel_size": 0.0}, "pixel_size must be above 0 A"),
        (["a.mrc"], {"pixel_size": float("nan")}, "pixel_size must be above 0 A"),
    ],
)
def test_bad_inputs_are_refused_in_one_sentence(inputs, options, expected):
    with pytest.raises(ParameterError, match=expected):
        open_micrographs(inputs, **options)


def test_micrographs_are_found_from_the_folder_of_their_table(tmp_path):
    field(tmp_path / "Movies" / "a.mrc", 1.5)
    table = tmp_path / "CtfFind" / "job003" / "micrographs_ctf.star"

    assert micrograph_path("Movies/a.mrc", table) == tmp_path / "Movies" / "a.mrc"
