"""Micrographs and coordinates that arrive, and what is taken of them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import CryopickError, FormatError
from cryopick.io.mrc import write_mrc
from cryopick.pipeline import consensus_feed
from cryopick.pipeline.consensus_feed import ConsensusFeed
from cryopick.pipeline.consensus_plan import CtfCheck
from cryopick.tables.relion import write_picks_file

SETS = ("one", "two")


@pytest.fixture
def clock(monkeypatch, tmp_path):
    """Let time go on at will; files are as old as the clock says."""
    monkeypatch.chdir(tmp_path)
    now = [1_000_000_000.0]
    monkeypatch.setattr(consensus_feed.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(consensus_feed.time, "time", lambda: now[0])
    for name in (*SETS, "mics"):
        Path(name).mkdir()
    return now


def later(clock, seconds=10.0):
    clock[0] += seconds


def add_micrograph(number, clock):
    path = Path(f"mics/m{number}.mrc")
    write_mrc(path, np.zeros((64, 64), np.float32), pixel_size=2.0)
    os.utime(path, (clock[0], clock[0]))


def add_picks(name, number, places):
    table = pd.DataFrame(np.array(places, float).reshape(-1, 2), columns=["x", "y"])
    write_picks_file(Path(name) / f"m{number}_autopick.star", table)


def make_feed(**given):
    return ConsensusFeed(
        [Path(s) for s in SETS], ["mics"], Path("out"), set_pixel_sizes=(None, None), **given
    )


def names(waiting):
    return sorted(Path(n).stem for n in waiting.names)


def test_a_micrograph_is_ready_when_every_picker_has_seen_it_and_nothing_changes(clock):
    add_micrograph(1, clock)
    add_micrograph(2, clock)
    add_picks("one", 1, [(10, 10)])
    add_picks("two", 1, [])  # looked, and found nothing
    add_picks("one", 2, [(30, 30)])
    feed = make_feed()

    assert names(feed.look()) == []  # it may still be written
    later(clock)
    waiting = feed.look()
    assert names(waiting) == ["m1"]
    assert waiting.missing == {"one": 0, "two": 1}

    add_picks("two", 1, [(11, 10)])  # written once more
    assert names(feed.look()) == []
    later(clock)
    assert names(feed.look()) == ["m1"]


def test_at_the_end_one_picker_is_enough(clock):
    add_micrograph(1, clock)
    add_micrograph(2, clock)
    add_micrograph(3, clock)
    add_picks("one", 1, [(10, 10)])
    add_picks("two", 2, [(30, 30)])
    feed = make_feed()

    assert names(feed.look(is_last=True)) == ["m1", "m2"]  # nobody has looked at the third


def test_what_was_taken_is_frozen_and_survives_a_kill(clock):
    add_micrograph(1, clock)
    add_picks("one", 1, [(10, 10), (40, 40)])
    add_picks("two", 1, [(12, 10)])
    feed = make_feed()
    taken = feed.take(feed.look(is_last=True).names, radius=10.0)
    assert taken[0].found.positions.tolist() == [[11.0, 10.0], [40.0, 40.0]]

    add_picks("two", 1, [(50, 50)])
    with Path("out/arrivals.jsonl").open("ab") as handle:
        handle.write(b'{"micrograph": "mics/m')  # killed while it wrote
    again = make_feed()
    assert names(again.look(is_last=True)) == []
    assert again.changed == {again.taken[0]}
    kept = again.fields()
    assert kept[0].found.positions.tolist() == taken[0].found.positions.tolist()
    assert kept[0].found.has_vote.tolist() == [[True, True], [True, False]]
    assert Path("out/arrivals.jsonl").read_bytes().count(b"\n") == 1


def test_sets_and_micrographs_may_come_later(clock):
    Path("two").rmdir()
    feed = make_feed()
    assert names(feed.look()) == []
    with pytest.raises(CryopickError):
        feed.look(is_last=True)

    add_micrograph(1, clock)
    Path("two").mkdir()
    add_picks("one", 1, [(10, 10)])
    add_picks("two", 1, [(10, 10)])
    feed.look()
    later(clock)
    assert names(feed.look()) == ["m1"]


def test_a_micrograph_that_is_still_written_is_waited_for(clock):
    add_micrograph(1, clock)
    whole = Path("mics/m1.mrc").read_bytes()
    Path("mics/m1.mrc").write_bytes(whole[:2000])
    os.utime("mics/m1.mrc", (clock[0], clock[0]))
    for name in SETS:
        add_picks(name, 1, [(10, 10)])
    feed = make_feed()
    feed.look()
    later(clock)
    assert names(feed.look()) == []

    Path("mics/m1.mrc").write_bytes(whole)
    os.utime("mics/m1.mrc", (clock[0], clock[0]))
    assert names(feed.look()) == []
    later(clock)
    assert names(feed.look()) == ["m1"]


def test_a_broken_one_is_refused_in_the_end(clock):
    for number in (1, 2):
        add_micrograph(number, clock)
        for name in SETS:
            add_picks(name, number, [(10, 10)])
    Path("mics/m1.mrc").write_bytes(Path("mics/m1.mrc").read_bytes()[:2000])
    feed = make_feed()

    assert names(feed.look(is_last=True)) == ["m2"]
    assert [Path(n).stem for n in feed.refused] == ["m1"]


def test_with_flipped_phases_a_micrograph_waits_for_its_ctf(clock):
    add_micrograph(1, clock)
    for name in SETS:
        add_picks(name, 1, [(10, 10)])
    feed = make_feed(check=CtfCheck(None))
    assert names(feed.look(is_last=True)) == []
    assert "must give the CTF of every micrograph" in feed.refused["mics/m1.mrc"]


def test_a_damaged_list_is_said(clock):
    Path("out").mkdir()
    Path("out/arrivals.jsonl").write_text("[]\n")
    with pytest.raises(FormatError, match="list of arrivals"):
        make_feed()


def test_what_was_taken_must_stay_listed(clock):
    add_micrograph(1, clock)
    for name in SETS:
        add_picks(name, 1, [(10, 10)])
    feed = make_feed()
    feed.take(feed.look(is_last=True).names, radius=10.0)
    add_micrograph(2, clock)
    Path("mics/m1.mrc").unlink()
    for name in SETS:
        add_picks(name, 2, [(10, 10)])

    feed.look(is_last=True)
    with pytest.raises(FormatError, match="only grow"):
        feed.fields()
