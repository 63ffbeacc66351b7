"""A file is taken when all of it is there, and once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cryopick.io.mrc import write_mrc
from cryopick.pipeline.session_watch import Watch
from cryopick.tables.micrographs import open_micrographs


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    return Path("in")


def watch(*inputs, clock, settle=2.0):
    def read(name):
        return open_micrographs([name], pixel_size=1.0)

    return Watch(inputs=inputs or ("in",), read_table=read, settle=settle, clock=clock)


def image_bytes(suffix, side=64):
    path = Path(f"made{suffix}")
    pixels = np.random.default_rng(1).normal(size=(side, side)).astype(np.float32)
    if suffix == ".mrc":
        write_mrc(path, pixels, pixel_size=1.0)
    elif suffix == ".tif":
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray((pixels * 20 + 128).clip(0, 255).astype(np.uint8)).save(path)
    content = path.read_bytes()
    path.unlink()
    return content


def look_twice(watcher, clock, wait=2.5):
    """Look, wait until files have settled, and look again."""
    first = watcher.look().complete
    clock.now += wait
    return [*first, *watcher.look().complete]


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".png"])
def test_a_file_written_in_pieces_is_taken_when_the_last_is_there(folder, clock, suffix):
    content, watcher = image_bytes(suffix), watch(clock=clock)
    path = folder / f"a{suffix}"
    pieces = np.array_split(np.frombuffer(content, np.uint8), 5)
    with path.open("wb") as handle:
        for piece in pieces[:-1]:
            handle.write(piece.tobytes())
            handle.flush()
            assert look_twice(watcher, clock) == []  # it stood still, but stops too early
        assert watcher.look().waiting[0].why
        handle.write(pieces[-1].tobytes())

    assert watcher.look().complete == ()  # it has just changed
    clock.now += 2.5
    assert watcher.look().complete == (str(path),)
    clock.now += 100
    assert watcher.look().complete == ()


def test_a_file_of_full_length_is_not_taken_while_it_changes(folder, clock):
    path = folder / "a.mrc"
    path.write_bytes(image_bytes(".mrc"))
    watcher = watch(clock=clock)

    for second in range(5):
        os.utime(path, (second + 1, second + 1))
        path.write_bytes(path.read_bytes())  # the same, written anew: the time of change is now
        stamp = path.stat().st_mtime_ns
        os.utime(path, ns=(stamp + second + 1, path.stat().st_ctime_ns + 10**12 * (second + 1)))
        assert watcher.look().complete == ()
        clock.now += 1.5

    clock.now += 2.5
    assert watcher.look().complete == (str(path),)


def test_a_renamed_file_is_taken_at_once(folder, clock):
    hidden = folder / ".a.mrc"
    hidden.write_bytes(image_bytes(".mrc"))
    watcher = watch(clock=clock)
    assert watcher.look().complete == ()
    time.sleep(0.05)  # more than the step of the clock of a file system
    hidden.rename(folder / "a.mrc")

    assert watcher.look().complete == (str(folder / "a.mrc"),)


def test_a_renamed_file_that_stops_too_early_is_not_taken(folder, clock):
    hidden = folder / ".a.mrc"
    hidden.write_bytes(image_bytes(".mrc")[:-1])
    hidden.rename(folder / "a.mrc")

    assert look_twice(watch(clock=clock), clock) == []


def test_other_files_and_folders_are_passed_over(folder, clock):
    (folder / "a.mrc").write_bytes(image_bytes(".mrc"))
    for name in ("a.xml", "a.mdoc", ".b.mrc", "notes.txt"):
        (folder / name).write_text("no image")
    (folder / "c.mrc").mkdir()

    assert look_twice(watch(clock=clock), clock) == [str(folder / "a.mrc")]


def test_a_list_that_grows_brings_what_it_names_when_that_is_there(folder, clock):
    for name in "ab":
        (folder / f"{name}.mrc").write_bytes(image_bytes(".mrc"))
    names = Path("list.csv")
    names.write_text("number,micrograph\n1,in/a.mrc\n2,in/b.m")  # half of a line
    watcher = watch("list.csv", clock=clock)

    assert look_twice(watcher, clock) == ["in/a.mrc"]
    names.write_text("number,micrograph\n1,in/a.mrc\n2,in/b.mrc\n3,in/c.mrc\n")
    assert look_twice(watcher, clock) == ["in/b.mrc"]
    assert [w.name for w in watcher.look().waiting] == ["in/c.mrc"]
    (folder / "c.mrc").write_bytes(image_bytes(".mrc"))
    assert look_twice(watcher, clock) == ["in/c.mrc"]


STAR = """data_optics
loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnMicrographPixelSize #3
1 opticsGroup1 1.0

data_micrographs
loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
in/a.mrc 1
"""


def test_a_star_file_that_is_half_written_counts_as_it_was(folder, clock):
    for name in "abc":
        (folder / f"{name}.mrc").write_bytes(image_bytes(".mrc"))
    table = Path("list.star")
    table.write_text(STAR)
    watcher = watch("list.star", clock=clock)
    assert look_twice(watcher, clock) + look_twice(watcher, clock) == ["in/a.mrc"]

    table.write_text(STAR[:120])
    assert look_twice(watcher, clock) == []
    assert "list.star" in watcher.look().trouble
    table.write_text(STAR + "in/b.mrc 1\nin/c.mrc 1\n")
    assert look_twice(watcher, clock) + look_twice(watcher, clock) == ["in/b.mrc", "in/c.mrc"]
    assert watcher.look().trouble == ""


def test_a_folder_that_is_not_there_yet_is_waited_for(folder, clock):
    watcher = watch("later/*.mrc", clock=clock)
    assert watcher.look().complete == ()
    Path("later").mkdir()
    Path("later/a.mrc").write_bytes(image_bytes(".mrc"))

    assert look_twice(watcher, clock) == ["later/a.mrc"]
