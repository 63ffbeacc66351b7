"""STAR files: what is read, what comes back after writing, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import FormatError, OutputError
from cryopick.io.star import read_star, read_star_labels, write_star

RELION = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnImagePixelSize #3
opticsGroup1            1     1.000000
"the second"            2     1.400000


# version 30001

data_particles

loop_
_rlnCoordinateX #1
_rlnImageName #2
_rlnOpticsGroup #3
_rlnCtfBfactor #4
 1184.000000 000001@Extract/job003/a.mrcs            1          inf
   12.500000 000002@Extract/job003/a.mrcs            2         -nan
   -0.000012 000003@Extract/job003/b.mrcs            2     1.5e-05

""".replace("\n", " \n")  # as RELION ends its lines


@pytest.fixture
def star(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "table.star"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def message(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        read_star(path)
    return str(caught.value)


def test_relion_tables_are_read_with_their_types(star):
    blocks = read_star(star(RELION))

    assert list(blocks) == ["optics", "particles"]
    assert blocks["optics"]["rlnOpticsGroupName"].tolist() == ["opticsGroup1", "the second"]
    particles = blocks["particles"]
    assert particles["rlnOpticsGroup"].dtype == np.int64
    assert particles["rlnCoordinateX"].tolist() == [1184.0, 12.5, -0.000012]
    np.testing.assert_array_equal(particles["rlnCtfBfactor"], [np.inf, np.nan, 1.5e-5])
    assert particles["rlnImageName"].iloc[2] == "000003@Extract/job003/b.mrcs"


def test_labels_without_numbers_comments_tabs_and_windows_line_ends_are_read(star):
    text = "# mine\r\ndata_\r\n\r\nloop_\r\n_a\r\n_b\r\n1\t2\r\n# between\r\n\r\n 3   4  # tail\r\n"

    table = read_star(star(text))[""]

    assert table.to_dict("list") == {"a": [1, 3], "b": [2, 4]}


def test_pairs_are_one_row(star):
    text = 'data_general\n\n_rlnVersion  5\n_rlnOutputRootName "my run/a"\n_rlnTau 2.5\n\n'

    table = read_star(star(text))["general"]

    assert table.to_dict("records") == [
        {"rlnVersion": 5, "rlnOutputRootName": "my run/a", "rlnTau": 2.5}
    ]


def test_names_that_look_like_numbers_stay_text(star):
    text = "data_\nloop_\n_rlnMicrographName\n_rlnGroupName\n_id\n007 01 007\n008 02 008\n"

    table = read_star(star(text), text=["id"])[""]

    assert table.to_dict("list") == {
        "rlnMicrographName": ["007", "008"],
        "rlnGroupName": ["01", "02"],
        "id": ["007", "008"],
    }


def test_a_column_is_numeric_only_if_all_its_values_are(star):
    rows = "".join(f"{n} {n} +{n}\n" for n in range(50_000)) + "0.5 1_0 +1.5\n"

    table = read_star(star("data_\nloop_\n_a\n_b\n_c\n" + rows))[""]

    assert table["a"].dtype == np.float64
    assert table["b"].iloc[-1] == "1_0"
    assert table["c"].iloc[-1] == 1.5


def test_quotes_far_down_a_table_are_taken_off(star):
    rows = 'a"b 1\n' * 1_000_000 + "\"c d\" 2\n'#e' 3\n"

    table = read_star(star("data_\nloop_\n_a\n_b\n" + rows))[""]

    assert table["a"].iloc[[0, -2, -1]].tolist() == ['a"b', "c d", "#e"]
    assert table["b"].sum() == 1_000_005


def test_an_empty_loop_is_an_empty_table(star):
    blocks = read_star(star("data_a\n\nloop_\n_x #1\n_y #2\n\ndata_b\n\nloop_\n_z\n1\n"))

    assert blocks["a"].shape == (0, 2)
    assert blocks["b"]["z"].tolist() == [1]


def test_rows_that_begin_like_headers_are_rows(star):
    text = "data_a\nloop_\n_m\n_n\ndata_1/a.mrc 1\n_b/c.mrc 2\n\ndata_b\nloop_\n_m\ndata_2/a.mrc\n"

    blocks = read_star(star(text))

    assert blocks["a"]["m"].tolist() == ["data_1/a.mrc", "_b/c.mrc"]
    assert blocks["b"]["m"].tolist() == ["data_2/a.mrc"]


@pytest.mark.parametrize("n_before", [0, 3, 70_000])  # the last lies in the second chunk
def test_a_short_row_is_refused_with_line_and_column(star, n_before):
    good = "1.0 a.mrc 100000000000000000000000000000000000000000000000000000000000 4\n"
    text = "data_\nloop_\n_x\n_m\n_rlnVoltage\n_w\n" + good * n_before + "1.0 a.mrc\n" + good

    found = message(star(text))

    assert f"line {7 + n_before}, must have 4 values; got 2" in found
    assert "column 3 (rlnVoltage)" in found


def test_a_long_row_is_refused_with_line_and_column(star):
    found = message(star("data_\n\nloop_\n_x #1\n_y #2\n1 2\n3 4 five\n"))

    assert "line 7, must have 2 values; got 3: 'five' in column 3" in found


def test_every_cut_is_refused_or_leaves_whole_rows(star):
    whole = read_star(star(RELION))
    refused = []

    for length in range(len(RELION)):
        path = star(RELION[:length])
        try:
            blocks = read_star(path)
        except FormatError as error:
            refused.append(str(error))
            continue
        for name, table in blocks.items():
            if len(table):
                expected = whole[name].iloc[: len(table)]
                pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    assert len(refused) > len(RELION) // 2
    assert all("table.star, line " in sentence for sentence in refused)


def test_a_file_by_hand_may_lack_its_last_line_end(star):
    table = read_star(star("data_\nloop_\n_x\n_y\n1 2.50\n3 4.75"))[""]

    assert table["y"].tolist() == [2.5, 4.75]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1, must begin with a data_ block; got nothing"),
        ("hello\n", "line 1, must begin with a data_ block; got hello"),
        ("data_a\nloop_\n_x\n1\n\ndata_a\nloop_\n_x\n1\n", "line 6, must begin a block with a new"),
        ("data_a\nloop_\n_x\n_x\n1 2\n", "line 4, must name each column once; got x twice"),
        ("data_a\n_x 1\n_y\n", "line 3, must be one label and one value; got 1 words"),
        ("data_a\n_x 1\nloop_\n_y\n2\n", "line 3, must be a label"),
        (b"data_a\nloop_\n_x\n1\n\0\0\0", "line 5, must hold text only; got a zero byte"),
        (b"data_a\nloop_\n_x\n1\n\xff\n", "line 5, must be UTF-8 text"),
        ("data_a\nloop_\n1 2\n", "line 3, must have 0 values; got 2"),
    ],
)
def test_what_is_no_star_file_is_refused_with_its_line(star, text, expected):
    assert expected in message(star(text))


def test_a_missing_file_is_one_sentence(tmp_path):
    assert "got no such file" in message(tmp_path / "none.star")


def test_tables_come_back_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "whole": [1.0, -2.0, 3e15, 0.0],
            "exact": [0.1 + 0.2, 1e-300, -1e20, np.pi],
            "odd": [np.nan, np.inf, -np.inf, 1.0],
            "count": [1, -(2**60), 3, 0],
            "text": ["a  b", "", "it's\tit", 'say "x"'],
            "number_like": ["1", "2", "3", "4"],
            "mixed": ["007", "x", "#1", "a#1"],
            "drawn": rng.normal(size=4),
        }
    )
    path = tmp_path / "t.star"

    write_star(path, {"mine": table, "": table.iloc[:0], "one": table.iloc[:1]}, as_pairs=["one"])

    blocks = read_star(path)
    pd.testing.assert_frame_equal(blocks["mine"], table, check_exact=True)
    pd.testing.assert_frame_equal(blocks["one"], table.iloc[:1], check_dtype=False)
    assert list(blocks[""].columns) == list(table.columns)
    assert len(blocks[""]) == 0


def test_many_rows_come_back_in_order(tmp_path):
    n = 120_001
    table = pd.DataFrame({"name": [f"m{k}" for k in range(n)], "x": np.arange(n) / 7})

    write_star(tmp_path / "t.star", {"": table})

    pd.testing.assert_frame_equal(read_star(tmp_path / "t.star")[""], table, check_exact=True)


def test_flags_missing_texts_and_categories_are_written_as_text(tmp_path):
    table = pd.DataFrame({"flag": [True, False], "name": ["a", None]})
    table["group"] = pd.Categorical(["p", "q"])

    write_star(tmp_path / "t.star", {"": table})

    back = read_star(tmp_path / "t.star")[""]
    assert back.to_dict("list") == {"flag": [1, 0], "name": ["a", ""], "group": ["p", "q"]}


def test_a_text_of_two_lines_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "t.star"
    write_star(path, {"": pd.DataFrame({"a": ["old"]})})

    with pytest.raises(OutputError, match="one line"):
        write_star(path, {"": pd.DataFrame({"a": ["new\nline"]})})

    assert read_star(path)[""]["a"].tolist() == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["t.star"]


def test_labels_are_read_without_rows(star):
    labels = read_star_labels(star(RELION))

    assert labels["particles"] == [
        "rlnCoordinateX",
        "rlnImageName",
        "rlnOpticsGroup",
        "rlnCtfBfactor",
    ]


def test_starfile_reads_the_same_tables(star, tmp_path):
    starfile = pytest.importorskip("starfile")
    ours = read_star(star(RELION))
    write_star(tmp_path / "ours.star", ours)

    theirs = starfile.read(tmp_path / "ours.star", always_dict=True)

    for name, table in ours.items():
        pd.testing.assert_frame_equal(theirs[name], table, check_dtype=False)


@pytest.mark.data
def test_every_star_file_of_the_test_data_survives_a_round_trip(test_data, tmp_path):
    paths = sorted(test_data.rglob("*.star"))
    assert paths

    for path in paths:
        blocks = read_star(path)
        write_star(tmp_path / "t.star", blocks)
        back = read_star(tmp_path / "t.star")
        assert list(back) == list(blocks), path
        for name, table in blocks.items():
            pd.testing.assert_frame_equal(back[name], table, check_exact=True, obj=str(path))
