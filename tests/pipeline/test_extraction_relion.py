from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from extraction_session import (
    images_of,
    make_session,
    run,
    shifted_particles,
)

from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.pipeline.extraction_plan import open_coordinates
from cryopick.tables.model import Micrographs
from cryopick.tables.pick_scores import PROBABILITY
from cryopick.tables.relion import (
    read_micrographs,
    read_particles,
    write_micrographs,
    write_picks_file,
)


@pytest.fixture
def session(tmp_path, monkeypatch):
    make_session(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def relion(program):
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def relion_preprocess(out, *arguments, micrographs="micrographs.star"):
    command = [
        relion("relion_preprocess"), "--i", micrographs, "--part_star", f"{out}/particles.star",
        "--part_dir", f"{out}/", "--extract", *map(str, arguments),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return read_particles(Path(out, "particles.star"))


def assert_same_particles(ours, theirs, ours_folder, theirs_folder):
    assert set(ours.rows.columns) == set(theirs.rows.columns)
    assert len(ours) == len(theirs)
    for name in theirs.rows.columns:
        if name == "image":
            renamed = ours.rows[name].str.replace(ours_folder, theirs_folder, n=1, regex=False)
            assert (renamed == theirs.rows[name]).all()
        elif name == "micrograph":
            assert (ours.rows[name] == theirs.rows[name]).all()
        else:  # RELION writes six digits
            np.testing.assert_allclose(ours.rows[name], theirs.rows[name], atol=2e-5)
    extra = set(ours.optics.columns) - set(theirs.optics.columns)
    assert extra <= {"is_premultiplied"}  # RELION 3.1 does not write it
    pd.testing.assert_frame_equal(
        ours.optics[theirs.optics.columns], theirs.optics, check_dtype=False
    )
    assert np.abs(images_of(ours) - images_of(theirs)).max() <= 1e-5


@pytest.mark.relion
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, ("--norm", "--bg_radius", 18, "--invert_contrast")),
        (
            {"rescale": 24, "background_diameter": 40},
            ("--scale", 24, "--norm", "--bg_radius", 10, "--invert_contrast"),
        ),
        (
            {"rescale": 30, "remove_ramp": False, "invert_contrast": False, "minimum_fom": 0.3},
            ("--scale", 30, "--norm", "--no_ramp", "--bg_radius", 11),
        ),
    ],
)
def test_parity_mode_equals_relion_preprocess(session, ours, theirs):
    if "minimum_fom" in ours:  # RELION 3.1 cannot filter: give it filtered files
        for path in Path("picks/micrographs").iterdir():
            rows = open_coordinates(path).rows
            write_picks_file(path, rows[rows["fom"] > ours["minimum_fom"]], score=PROBABILITY)
    expected = relion_preprocess(
        "theirs", "--coord_dir", "picks/", "--coord_suffix", "_autopick.star",
        "--extract_size", 48, *theirs,
    )  # fmt: skip

    run("ours", relion_parity=True, **ours)

    assert_same_particles(read_particles(Path("ours/particles.star")), expected, "ours", "theirs")


@pytest.mark.relion
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, ()),
        ({"recenter": True}, ("--recenter",)),
        ({"reset_offsets": True}, ("--reset_offsets",)),
        ({"micrograph_ctf": True}, ("--keep_ctfs_micrographs",)),
        (
            {
                "recenter": True,
                "recenter_x": 5.0,
                "recenter_y": -2.0,
                "recenter_z": 3.5,
                "reference_pixel_size": 2.2,
            },
            ("--recenter", "--recenter_x", 5, "--recenter_y", -2, "--recenter_z", 3.5,
             "--ref_angpix", 2.2),
        ),
        (
            {"recenter": True, "recenter_y": 6.0},
            ("--recenter", "--recenter_y", 6),
        ),
    ],
)  # fmt: skip
def test_parity_mode_equals_relion_preprocess_on_re_extraction(session, ours, theirs):
    shifted_particles(session)
    expected = relion_preprocess(
        "theirs", "--reextract_data_star", "data.star", "--extract_size", 40, "--scale", 32,
        "--norm", "--bg_radius", 12, "--invert_contrast", *theirs,
    )  # fmt: skip

    run("ours", coordinates="data.star", relion_parity=True, box_size=40, rescale=32, **ours)

    assert_same_particles(read_particles(Path("ours/particles.star")), expected, "ours", "theirs")


@pytest.mark.relion
@pytest.mark.data
def test_parity_mode_equals_relion_preprocess_on_apoferritin(test_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = test_data / "apoferritin"
    table = read_micrographs(source / "micrographs.star")
    rows = table.rows.iloc[:3]
    for name in rows["micrograph"]:
        # RELION 3.1 reads unsigned 16-bit files as signed
        pixels = read_mrc(source / name, dtype=np.float32)
        write_mrc(Path(name), pixels, pixel_size=1.5)
        picks = open_coordinates(source / "coordinates" / f"{Path(name).stem}.star").rows
        write_picks_file(Path("picks", name).with_suffix("").as_posix() + "_autopick.star", picks)
    write_micrographs(Path("micrographs.star"), Micrographs(rows=rows, optics=table.optics))
    expected = relion_preprocess(
        "theirs", "--coord_dir", "picks/", "--coord_suffix", "_autopick.star",
        "--extract_size", 128, "--scale", 64, "--norm", "--bg_radius", 24, "--invert_contrast",
    )  # fmt: skip

    run("ours", coordinates="picks", relion_parity=True, box_size=128, rescale=64)

    ours = read_particles(Path("ours/particles.star"))
    assert len(ours) > 400
    assert_same_particles(ours, expected, "ours", "theirs")


@pytest.mark.relion
def test_relion_classifies_our_particles(session):
    program = relion("relion_refine")
    run(rescale=24, edges="replicate")

    subprocess.run(
        [
            program, "--i", "out/particles.star", "--o", "out/run", "--iter", "1", "--K", "2",
            "--particle_diameter", "60", "--ctf", "--dont_check_norm", "--oversampling", "0",
            "--psi_step", "60", "--offset_range", "1", "--offset_step", "1", "--j", "1",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip

    assert len(read_particles(Path("out/run_it001_data.star"))) == 18


@pytest.mark.relion
def test_relion_reads_our_stacks(session):
    program = relion("relion_image_handler")
    run(edges="replicate")

    said = subprocess.run(
        [program, "--i", "out/micrographs/field0.mrcs", "--stats"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert said.count("= 48 x 48 x 1 x 1") == 9


@pytest.mark.relion
def test_relion_extracts_again_from_our_particles(session):
    run("ours", edges="replicate")
    ours = read_particles(Path("ours/particles.star"))

    theirs = relion_preprocess(
        "theirs", "--reextract_data_star", "ours/particles.star", "--recenter",
        "--extract_size", 48, "--norm", "--bg_radius", 18, "--invert_contrast",
    )  # fmt: skip

    np.testing.assert_allclose(images_of(theirs), images_of(ours), atol=1e-5)
