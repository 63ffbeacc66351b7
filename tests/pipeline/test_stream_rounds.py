"""A round of a stream is whole or not there."""

from __future__ import annotations

import pytest

from cryopick.errors import FormatError
from cryopick.pipeline.stream_rounds import StreamRounds


def make(rounds, text):
    folder = rounds.begin()
    (folder / "a.txt").write_text(text)
    (folder / "state.npz").write_text(text)
    (folder / "table.star").write_text(text)
    return rounds.commit(folder, {"said": text})


def opened(out, **given):
    return StreamRounds(out, passing=("state.npz",), lasting=("table.star",), **given)


def test_current_is_the_last_whole_round(tmp_path):
    rounds = opened(tmp_path)
    assert rounds.last is None
    make(rounds, "one")
    make(rounds, "two")

    assert (tmp_path / "current" / "a.txt").read_text() == "two"
    assert (tmp_path / "current" / "state.npz").exists()
    assert not (tmp_path / "rounds/0001/state.npz").exists()
    assert (tmp_path / "rounds/0001/a.txt").read_text() == "one"


def test_a_round_that_was_not_committed_is_made_again(tmp_path):
    make(opened(tmp_path), "one")
    (opened(tmp_path).begin() / "a.txt").write_text("half")

    rounds = opened(tmp_path)

    assert rounds.last is not None
    assert (rounds.last.number, rounds.last.values["said"]) == (1, "one")
    assert not (tmp_path / "rounds/0002").exists()
    assert make(rounds, "two").number == 2


def test_killed_before_the_link_was_moved_it_is_moved_at_the_next_start(tmp_path):
    rounds = opened(tmp_path)
    make(rounds, "one")
    make(rounds, "two")
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("rounds/0001")

    opened(tmp_path)

    assert (tmp_path / "current" / "a.txt").read_text() == "two"


def test_a_broken_record_is_told(tmp_path):
    folder = make(opened(tmp_path), "one").folder
    (folder / "round.json").write_text("{")

    with pytest.raises(FormatError, match="must be the record of a round"):
        opened(tmp_path)


def test_rounds_of_other_parameters_are_removed(tmp_path):
    make(opened(tmp_path, identity={"classes": 5}), "one")

    assert opened(tmp_path, identity={"classes": 5}).last is not None
    assert opened(tmp_path, identity={"classes": 6}).last is None
    assert list((tmp_path / "rounds").iterdir()) == []


def test_of_many_rounds_ever_fewer_are_kept_whole(tmp_path):
    rounds = opened(tmp_path)
    for number in range(1, 21):
        make(rounds, str(number))

    whole = {p.parent.name for p in (tmp_path / "rounds").glob("*/a.txt")}
    assert whole == {f"{n:04d}" for n in (1, 2, 4, 8, 16, 17, 18, 19, 20)}
    assert len(list((tmp_path / "rounds").glob("*/table.star"))) == 20
    assert len(list((tmp_path / "rounds").glob("*/state.npz"))) == 1
    assert len(opened(tmp_path).rounds) == 20


def test_what_was_not_cleared_when_it_was_killed_is_cleared_at_the_next_start(tmp_path):
    rounds = opened(tmp_path)
    made = [make(rounds, str(number)).folder for number in range(1, 9)]
    for folder, name in ((made[2], "a.txt"), (made[2], "state.npz"), (made[5], "state.npz")):
        (folder / name).write_text("left")

    opened(tmp_path)

    assert len(list((tmp_path / "rounds").glob("*/state.npz"))) == 1
    assert not (made[2] / "a.txt").exists()
    assert (made[5] / "a.txt").exists()
