"""What a score means is said in the file and read from it, and from no other place."""

from __future__ import annotations

import pandas as pd
import pytest

from cryopick.io.star import read_star
from cryopick.tables.pick_scores import (
    LOG_ODDS,
    PROBABILITY,
    RELION_FIGURE,
    UNKNOWN,
    Z_SCORE,
    PickScore,
    read_pick_score,
)
from cryopick.tables.relion import read_picks, write_coordinate_files, write_picks_file

PICKS = pd.DataFrame({"x": [10.0], "y": [20.0], "fom": [0.7]})
ALL = (LOG_ODDS, PROBABILITY, RELION_FIGURE, Z_SCORE, PickScore(meaning="of another program"))


@pytest.mark.parametrize("score", ALL, ids=lambda s: s.meaning)
def test_the_meaning_comes_back_from_file_list_and_folder(tmp_path, score):
    file = tmp_path / "a_autopick.star"
    write_picks_file(file, PICKS, score=score)
    write_coordinate_files(tmp_path / "autopick.star", [("a.mrc", str(file))])

    for path in (file, tmp_path / "autopick.star", tmp_path):
        assert read_picks(path).attributes["score"] == score
        assert read_picks(path).rows["fom"].tolist() == [0.7]


def test_the_meaning_changes_nothing_in_the_table(tmp_path):
    for name, score in (("a.star", UNKNOWN), ("b.star", PROBABILITY)):
        write_picks_file(tmp_path / name, PICKS, score=score)

    (plain,), (told,) = (read_star(tmp_path / n).values() for n in ("a.star", "b.star"))
    pd.testing.assert_frame_equal(plain, told)
    extra = len((tmp_path / "b.star").read_text().splitlines())
    assert extra == len((tmp_path / "a.star").read_text().splitlines()) + 1


def test_files_that_do_not_say_it_have_no_known_score(tmp_path):
    write_picks_file(tmp_path / "a.star", PICKS)
    (tmp_path / "later.star").write_text(
        "data_\n\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n1 2\n\n"
        "# rlnAutopickFigureOfMerit: Probability of a particle\n"
    )

    assert read_pick_score(tmp_path / "a.star") == UNKNOWN
    assert read_pick_score(tmp_path / "later.star") == UNKNOWN
    assert read_pick_score(tmp_path / "missing.star") == UNKNOWN
    assert "score" not in read_picks(tmp_path / "a.star").attributes
