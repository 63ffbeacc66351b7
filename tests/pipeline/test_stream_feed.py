"""Particles are taken up once, when they are whole, in an order that survives a stop."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import TableError
from cryopick.io.mrc import write_mrc
from cryopick.pipeline.stream_feed import ARRIVALS, ParticleFeed
from cryopick.pipeline.stream_source import StreamStandard
from cryopick.tables.model import Particles
from cryopick.tables.relion import write_particles


def write(name, count, *, images=None, box=8, pixel_size=2.0):
    """Write a table and its stack, as long ago as it takes to count as whole."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    stack = path.with_suffix(".mrcs")
    number = count if images is None else images
    write_mrc(stack, np.zeros((number, box, box), np.float32), pixel_size=pixel_size)
    rows = {"image": str(stack), "image_index": range(count), "optics_group": 1}
    optics = {"optics_group": [1], "optics_group_name": ["a"], "pixel_size": [pixel_size]}
    table = Particles(
        rows=pd.DataFrame(rows), optics=pd.DataFrame({**optics, "box_size": [box]}), source=None
    )
    write_particles(path, table)
    settle(path)
    return path


def settle(path, *, age=10.0):
    then = time.time() - age
    os.utime(path, (then, then))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()


def feed(*inputs, **given):
    return ParticleFeed(inputs, Path("out"), **given)


def images_of(found, first=0, stop=None):
    rows = found.take(first, len(found) if stop is None else stop, target=Path("out/p.star")).rows
    return [f"{Path(n).stem}:{i}" for n, i in zip(rows["image"], rows["image_index"], strict=True)]


def test_a_table_that_grows_is_read_on():
    write("p.star", 3)
    found = feed("p.star")
    assert found.poll() == 3
    assert found.poll() == 0

    write("p.star", 5)
    settle(Path("p.star"), age=9.0)

    assert found.poll() == 2
    assert images_of(found) == [f"p:{i}" for i in range(5)]
    assert images_of(found, 2, 4) == ["p:2", "p:3"]


def test_a_table_that_is_being_written_waits(monkeypatch):
    monkeypatch.setattr("cryopick.pipeline.stream_feed._SETTLED", 600.0)  # however busy we are
    write("p.star", 3)
    settle(Path("p.star"), age=1.0)
    found = feed("p.star")

    assert found.poll() == 0
    assert found.poll(is_last=True) == 3


def test_an_input_may_come_later():
    found = feed("later.star", "folder")
    assert found.poll() == 0

    write("later.star", 2)
    write("folder/a.star", 1)

    assert found.poll() == 3


def test_rows_wait_for_their_images():
    write("p.star", 5, images=2)
    found = feed("p.star")
    assert found.poll() == 2

    write("p.star", 5)
    assert found.poll() == 3
    assert found.refused == {}


def test_at_the_end_what_is_not_whole_is_refused_in_a_sentence():
    write("p.star", 5, images=2)
    Path("broken.star").write_text(
        "data_particles\n\nloop_\n_rlnImageName #1\n_rlnDefocusU #2\nx\n"
    )
    found = feed("p.star", "broken.star")

    assert found.poll(is_last=True) == 2

    assert "no image for row 3" in found.refused["p.star"]
    assert set(found.refused) == {"p.star", "broken.star"}
    assert all(len(s.splitlines()) == 1 for s in found.refused.values())


def test_a_folder_gives_its_tables_of_particles_by_name():
    write("f/b.star", 2)
    write("f/a.star", 1)
    Path("f/micrographs.star").write_text("data_\n\nloop_\n_rlnMicrographName #1\nm.mrc\n")
    found = feed("f")

    assert found.poll(is_last=True) == 3
    assert images_of(found) == ["a:0", "b:0", "b:1"]
    assert found.refused == {}


def test_a_particle_named_twice_is_taken_once():
    write("f/a.star", 3)
    found = feed("f/a.star", "f")
    assert found.poll() == 3

    text = Path("f/a.star").read_text()
    Path("f/again.star").write_text(text)
    settle(Path("f/again.star"))

    assert found.poll() == 0
    assert found.n_twice == 3


def test_started_again_it_goes_on_in_the_same_order():
    write("f/b.star", 2)
    first = feed("f")
    first.poll()
    write("f/a.star", 2)
    first.poll()
    order = images_of(first)
    assert order == ["b:0", "b:1", "a:0", "a:1"]
    with Path("out", ARRIVALS).open("ab") as handle:
        handle.write(b'{"table": "f/a.st')  # killed

    second = feed("f")

    assert images_of(second) == order
    assert second.poll() == 0
    write("f/c.star", 1)
    assert second.poll() == 1
    assert images_of(feed("f")) == [*order, "c:0"]


def test_a_table_with_other_rows_than_before_is_refused():
    write("p.star", 3)
    found = feed("p.star")
    found.poll()
    other = Path("p.star").read_text().replace("000002@", "000001@")
    Path("p.star").write_text(other)
    settle(Path("p.star"), age=20.0)

    assert found.poll() == 0
    assert "must only grow" in found.refused["p.star"]
    with pytest.raises(TableError, match="must hold what was taken from it"):
        feed("p.star")


def test_a_table_that_does_not_fit_is_refused_and_the_rest_goes_on():
    def check(table):
        if table.optics["pixel_size"].iloc[0] != 2.0:
            raise TableError("it", must="have pixels of 2 A", got="3 A", remedy="Rescale it")

    write("f/a.star", 2, pixel_size=3.0)
    write("f/b.star", 2)
    found = feed("f", check=check)

    assert found.poll() == 2
    assert list(found.refused) == ["f/a.star"]
    assert found.poll() == 0


def test_rows_that_come_before_others_named_twice_are_not_lost():
    write("a.star", 3)
    write("b.star", 2)
    text = Path("a.star").read_text()
    Path("again.star").write_text(text)
    settle(Path("again.star"))
    found = feed("a.star", "again.star")
    assert (found.poll(), found.n_twice) == (3, 3)

    head, _, tail = text.partition("000001@a.mrcs")
    row = "000001@b.mrcs" + tail.splitlines()[0]
    Path("again.star").write_text(f"{head}{row}\n000001@a.mrcs{tail}")
    settle(Path("again.star"), age=9.0)

    assert (found.poll(), found.n_twice) == (1, 3)
    assert images_of(found) == ["a:0", "a:1", "a:2", "b:0"]


def test_particles_named_twice_are_counted_alike_after_a_restart():
    write("f/a.star", 3)
    text = Path("f/a.star").read_text()
    write("f/b.star", 2)
    both = text + "".join(f"{line}\n" for line in Path("f/b.star").read_text().splitlines()[-2:])
    Path("f/again.star").write_text(both)
    settle(Path("f/again.star"))
    found = feed("f/a.star", "f")
    found.poll()

    again = feed("f/a.star", "f")
    again.poll()

    assert (len(found), found.n_twice) == (5, 4)
    assert (len(again), again.n_twice) == (5, 4)


def test_tables_that_the_stream_itself_writes_are_not_taken():
    write("out/rounds/0001/data.star", 3)
    write("out/a.star", 1)
    found = feed("out")

    assert found.poll() == 1
    assert found.n_twice == 0


def test_a_box_that_is_known_by_the_stack_alone_is_the_first_ones_after_a_restart():
    write("b.star", 3, box=8)
    first = feed("b.star")
    first.poll()
    write("a.star", 3, box=12)

    standard = StreamStandard(needs_ctf=False)
    again = feed("a.star", "b.star", check=standard.check, check_stack=standard.check_stack)

    assert again.poll() == 0
    assert "must have the box of the particles before, 8 px; got 12 px" in again.refused["a.star"]
