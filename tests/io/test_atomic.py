"""Files that cannot be written where they should go."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from cryopick.errors import OutputError
from cryopick.io.atomic import find_leftovers, write_json, write_text
from cryopick.io.mrc import MrcStackWriter, write_mrc


def write_stack(path):
    with MrcStackWriter(path, box_size=2, pixel_size=1.0) as writer:
        writer.append(np.zeros((1, 2, 2), np.float32))


@pytest.mark.parametrize("below", ["a.txt", "folder/a.txt"])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "text"),
        lambda path: write_json(path, {}),
        lambda path: write_mrc(path, np.zeros((2, 2), np.float32), pixel_size=1.0),
    ],
)
def test_a_path_below_a_plain_file_is_refused_in_one_sentence(tmp_path, write, below):
    blocking = tmp_path / "file"
    blocking.write_text("kept")

    with pytest.raises(OutputError) as refused:
        write(blocking / below)

    sentence = f"{blocking / below} must lie in a folder; got not a directory. "
    assert str(refused.value) == sentence + "Choose another --out."
    assert blocking.read_text() == "kept"


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "text"),
        lambda path: write_mrc(path, np.zeros((2, 2), np.float32), pixel_size=1.0),
        write_stack,
    ],
)
def test_bytes_reach_the_disk_before_their_name_and_the_name_before_the_end(
    tmp_path, monkeypatch, write
):
    done = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle):
        fsync(handle)
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        done.append("folder" if is_folder else "bytes")

    def note_replace(source, target):
        replace(source, target)
        done.append(f"name {Path(target).name}")

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)

    write(tmp_path / "a.mrcs")

    assert done == ["bytes", "name a.mrcs", "folder"]


def test_what_dead_processes_left_is_found_at_any_depth_and_that_of_the_living_is_not(tmp_path):
    dead = 2**22 + 1  # above the largest number of a process
    below = tmp_path / "jobs" / "0001_pick"
    below.mkdir(parents=True)
    (below / "job.json").write_text("{}")
    (below / f".a.star.{dead}.tmp").write_text("half")
    (below / f".b.star.{os.getpid()}.tmp").write_text("half")

    assert [p.name for p in find_leftovers(tmp_path)] == [f".a.star.{dead}.tmp"]
