"""A round of a stream is whole or not there."""

from __future__ import annotations

import pytest

from cryopick.errors import FormatError
from cryopick.pipeline.stream_rounds import StreamRounds


def make(rounds, text):
    folder = rounds.begin()
    (folder / "a.txt").write_text(text)
    (folder / "state.npz").write_text(text)
    return rounds.commit(folder, {"said": text}, passing=("state.npz",))


def test_current_is_the_last_whole_round(tmp_path):
    rounds = StreamRounds(tmp_path)
    assert rounds.last is None
    make(rounds, "one")
    make(rounds, "two")

    assert (tmp_path / "current" / "a.txt").read_text() == "two"
    assert (tmp_path / "current" / "state.npz").exists()
    assert not (tmp_path / "rounds/0001/state.npz").exists()
    assert (tmp_path / "rounds/0001/a.txt").read_text() == "one"


def test_a_round_that_was_not_committed_is_made_again(tmp_path):
    make(StreamRounds(tmp_path), "one")
    (StreamRounds(tmp_path).begin() / "a.txt").write_text("half")

    rounds = StreamRounds(tmp_path)

    assert rounds.last is not None
    assert (rounds.last.number, rounds.last.values["said"]) == (1, "one")
    assert not (tmp_path / "rounds/0002").exists()
    assert make(rounds, "two").number == 2


def test_killed_before_the_link_was_moved_it_is_moved_at_the_next_start(tmp_path):
    rounds = StreamRounds(tmp_path)
    make(rounds, "one")
    make(rounds, "two")
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("rounds/0001")

    StreamRounds(tmp_path)

    assert (tmp_path / "current" / "a.txt").read_text() == "two"


def test_a_broken_record_is_told(tmp_path):
    folder = make(StreamRounds(tmp_path), "one").folder
    (folder / "round.json").write_text("{")

    with pytest.raises(FormatError, match="must be the record of a round"):
        StreamRounds(tmp_path)


def test_rounds_of_other_parameters_are_removed(tmp_path):
    make(StreamRounds(tmp_path, identity={"classes": 5}), "one")

    assert StreamRounds(tmp_path, identity={"classes": 5}).last is not None
    assert StreamRounds(tmp_path, identity={"classes": 6}).last is None
    assert list((tmp_path / "rounds").iterdir()) == []
