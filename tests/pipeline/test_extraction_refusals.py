from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from extraction_session import (
    SERIAL,
    break_field,
    make_session,
    run,
)

from cryopick.errors import DataError, OutputError, TableError
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.io.mrc import read_mrc, read_mrc_header, write_mrc
from cryopick.pipeline.extraction import extract
from cryopick.tables.model import Picks
from cryopick.tables.relion import (
    read_micrographs,
    read_particles,
    write_coordinate_files,
    write_picks_file,
)


@pytest.fixture
def session(tmp_path, monkeypatch):
    make_session(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_picks_of_an_unknown_micrograph_are_counted_not_extracted(session):
    shutil.copy("picks/micrographs/field0_autopick.star", "picks/micrographs/z_autopick.star")
    pairs = [
        (f"micrographs/{n}.mrc", f"picks/micrographs/{n}_autopick.star")
        for n in ("field0", "field1", "z")
    ]
    write_coordinate_files(Path("autopick.star"), pairs)

    result = run(edges="replicate")

    assert (result.n_unlisted, result.n_particles) == (1, 18)


def test_no_micrograph_in_common_is_an_error(session):
    picks = Picks(rows=pd.DataFrame({"micrograph": ["other.mrc"], "x": [1.0], "y": [1.0]}))

    with pytest.raises(TableError, match="name micrographs that MICROGRAPHS lists"):
        extract(
            read_micrographs(Path("micrographs.star")),
            picks,
            Path("out"),
            parameters=ExtractionParameters(box_size=48),
            compute=SERIAL,
        )


def test_zero_picks_are_an_error_that_says_why(session):
    with pytest.raises(DataError, match="18 not above --minimum-fom"):
        run(minimum_fom=2.0)


def test_positions_that_are_no_numbers_are_refused(session):
    path = Path("picks/micrographs/field1_autopick.star")
    write_picks_file(path, pd.DataFrame({"x": [100.0, np.nan], "y": [90.0, 1.0]}))

    with pytest.raises(TableError, match="finite positions"):
        run()


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("truncated", "data bytes"),
        ("missing", "no such file"),
        ("nan", "must hold finite numbers"),
        ("constant", "must have contrast"),
    ],
)
def test_a_broken_micrograph_is_listed_and_the_rest_goes_on(session, kind, sentence):
    break_field(kind, Path("micrographs/field0.mrc"))

    result = run(edges="replicate")

    assert result.n_particles == 9
    assert list(result.failures) == ["micrographs/field0.mrc"]
    assert sentence in result.failures["micrographs/field0.mrc"]
    assert set(read_particles(Path("out/particles.star")).rows["micrograph"]) == {
        "micrographs/field1.mrc"
    }


def test_a_mended_micrograph_is_extracted_on_the_next_run(session):
    path = Path("micrographs/field0.mrc")
    whole = path.read_bytes()
    break_field("truncated", path)
    run(edges="replicate")
    path.write_bytes(whole)

    result = run(edges="replicate")

    assert (result.n_particles, result.failures) == (18, {})


def test_a_box_without_contrast_is_dropped_and_counted(session):
    pixels = read_mrc(Path("micrographs/field0.mrc"))
    pixels[:100, :100] = 3.0  # a dead corner
    write_mrc(Path("micrographs/field0.mrc"), pixels, pixel_size=1.5)
    write_picks_file(
        Path("picks/micrographs/field0_autopick.star"),
        pd.DataFrame({"x": [150.0, 40.0, 160.0], "y": [150.0, 40.0, 160.0]}),
    )

    result = run(edges="replicate")

    assert result.n_flat == 1
    rows = read_particles(Path("out/particles.star")).rows
    assert rows["x"][rows["micrograph"] == "micrographs/field0.mrc"].tolist() == [150, 160]
    assert read_mrc_header(Path("out/micrographs/field0.mrcs")).shape[0] == 2


def test_a_box_larger_than_every_field_leaves_no_particle(session):
    result = run(box_size=400)

    assert (result.n_particles, result.n_edge, result.particles) == (0, 18, None)
    assert not Path("out/particles.star").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(session):
    Path("out").mkdir(mode=0o500)

    with pytest.raises(OutputError, match="writable"):
        run()


def test_a_folder_that_cannot_be_made_is_refused(session):
    with pytest.raises(OutputError, match="Choose another --out"):
        run("micrographs.star/out")


def fill_disk_for(monkeypatch, name):
    """Let the disk be full when a file whose name holds `name` is brought to it."""
    real = os.fsync

    def fsync(handle):
        if name in Path(f"/proc/self/fd/{handle}").readlink().name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_stack_that_finds_the_disk_full_is_listed(session, monkeypatch):
    fill_disk_for(monkeypatch, "field0.mrcs")

    result = run(edges="replicate")

    assert "must have room left on its disk" in result.failures["micrographs/field0.mrc"]
    assert result.n_particles == 9
    assert not Path("out/micrographs/field0.mrcs").exists()


def test_a_table_that_finds_the_disk_full_ends_the_run_with_one_sentence(session, monkeypatch):
    fill_disk_for(monkeypatch, "particles.star")

    with pytest.raises(OutputError, match="must have room left on its disk"):
        run()

    assert json.loads(Path("out/job.json").read_text())["state"] == "stopped"
