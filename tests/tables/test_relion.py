"""RELION's dialect: every version in, 3.1 out, read by RELION itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import FormatError, TableError
from cryopick.io.mrc import write_mrc
from cryopick.io.star import read_star, write_star
from cryopick.tables.model import Micrographs, Particles
from cryopick.tables.relion import (
    picks_of_file,
    read_micrographs,
    read_particles,
    read_picks,
    write_coordinate_files,
    write_coords_suffix,
    write_micrographs,
    write_particles,
    write_picks_file,
    write_summary,
)

PARTICLE_ORDER = [  # as relion_preprocess 3.1.3 writes them on extraction
    "rlnCoordinateX",
    "rlnCoordinateY",
    "rlnAutopickFigureOfMerit",
    "rlnClassNumber",
    "rlnAnglePsi",
    "rlnImageName",
    "rlnMicrographName",
    "rlnOpticsGroup",
    "rlnCtfMaxResolution",
    "rlnCtfFigureOfMerit",
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnCtfBfactor",
    "rlnCtfScalefactor",
    "rlnPhaseShift",
]


def optics(**more: object) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "optics_group_name": ["opticsGroup1", "opticsGroup2"],
            "optics_group": [1, 2],
            "pixel_size": [1.5, 1.25],
            "voltage": [300.0, 200.0],
            "spherical_aberration": [2.7, 2.0],
            "amplitude_contrast": [0.1, 0.07],
            **more,
        }
    )


def some_particles(n: int = 6) -> Particles:
    rng = np.random.default_rng(2)
    rows = pd.DataFrame(
        {
            "rlnMine": [f"m{k}" for k in range(n)],  # unknown to cryopick and to RELION
            "image": "stack.mrcs",
            "image_index": np.arange(n),
            "micrograph": ["a.mrc", "b c.mrc"] * (n // 2),
            "optics_group": [1, 2] * (n // 2),
            "x": rng.uniform(0, 1000, n),
            "y": rng.uniform(0, 1000, n),
            "fom": rng.normal(size=n),
            "class_number": 0,
            "psi": 0.0,
            "shift_x": rng.normal(size=n),
            "shift_y": rng.normal(size=n),
            "defocus_u": 15000.0 + np.arange(n),
            "defocus_v": 14000.0,
            "defocus_angle": 30.0,
            "ctf_bfactor": 0.0,
            "ctf_scale": 1.0,
            "phase_shift": 0.0,
            "ctf_max_resolution": 4.5,
            "ctf_fom": 0.1,
            "diameter": 120.5,
            "is_junk": [0, 1] * (n // 2),
        }
    )
    groups = optics(box_size=32, image_dimensions=2, is_premultiplied=0, original_pixel_size=0.75)
    return Particles(rows=rows, optics=groups)


def some_micrographs() -> Micrographs:
    names = ["Movies/a.mrc", "Movies/b.mrc"]
    rows = pd.DataFrame({"micrograph": names, "optics_group": [1, 2], "defocus_u": [1e4, 2e4]})
    return Micrographs(rows=rows, optics=optics())


def same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(left, right, check_like=True, check_exact=True)


def run(*command: object) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


needs_relion = pytest.mark.skipif(
    shutil.which("relion_refine") is None, reason="no relion programs on PATH"
)


def test_particles_come_back_as_they_were_written(tmp_path):
    particles = some_particles()

    write_particles(tmp_path / "p.star", particles)

    back = read_particles(tmp_path / "p.star")
    same(back.rows, particles.rows)
    same(back.optics, particles.optics)


def test_particle_columns_stand_in_the_order_of_relion(tmp_path):
    write_particles(tmp_path / "p.star", some_particles())

    blocks = read_star(tmp_path / "p.star")

    assert list(blocks["particles"])[: len(PARTICLE_ORDER)] == PARTICLE_ORDER
    assert list(blocks["optics"]) == [
        "rlnOpticsGroupName",
        "rlnOpticsGroup",
        "rlnMicrographOriginalPixelSize",
        "rlnVoltage",
        "rlnSphericalAberration",
        "rlnAmplitudeContrast",
        "rlnImagePixelSize",
        "rlnImageSize",
        "rlnImageDimensionality",
        "rlnCtfDataAreCtfPremultiplied",
    ]
    assert blocks["particles"]["rlnImageName"].iloc[0] == "000001@stack.mrcs"
    assert "cryopickIsJunk" in blocks["particles"].columns


def test_micrographs_come_back_as_they_were_written(tmp_path):
    micrographs = some_micrographs()

    write_micrographs(tmp_path / "m.star", micrographs)

    back = read_micrographs(tmp_path / "m.star")
    same(back.rows, micrographs.rows)
    same(back.optics, micrographs.optics)
    assert "rlnMicrographPixelSize" in read_star(tmp_path / "m.star")["optics"]


def test_relion_3_0_tables_get_optics_groups_and_offsets_in_angstrom(tmp_path):
    (tmp_path / "old.star").write_text(
        "data_\nloop_\n_rlnVoltage\n_rlnMagnification\n_rlnDetectorPixelSize\n_rlnImageName\n"
        "_rlnOriginX\n_rlnOriginY\n_rlnOriginXPrior\n"
        "300 10000 2.0 1@s.mrcs 1.5 -2.0 3\n"
        "200 10000 1.0 2@s.mrcs 1.5 -2.0 3\n"
        "300 10000 2.0 3@s.mrcs 0.5  0.0 3\n"
    )

    particles = read_particles(tmp_path / "old.star")

    assert particles.optics["voltage"].tolist() == [300, 200]
    assert particles.optics["pixel_size"].tolist() == [2.0, 1.0]  # 2 um x 10^4 / 10000
    assert particles.rows["optics_group"].tolist() == [1, 2, 1]
    assert particles.rows["shift_x"].tolist() == [3.0, 1.5, 1.0]
    assert particles.rows["shift_y"].tolist() == [-4.0, -2.0, 0.0]
    assert particles.rows["rlnOriginXPriorAngst"].tolist() == [6.0, 3.0, 6.0]
    assert not {"rlnMagnification", "rlnDetectorPixelSize"} & set(particles.rows.columns)
    assert not {"rlnMagnification", "rlnDetectorPixelSize"} & set(particles.optics.columns)


def test_the_box_size_of_old_tables_comes_from_the_stack(tmp_path):
    write_mrc(tmp_path / "s.mrcs", np.zeros((2, 24, 24), np.float32), pixel_size=1.0)
    (tmp_path / "old.star").write_text(
        "data_\nloop_\n_rlnImageName\n_rlnMagnification\n_rlnDetectorPixelSize\n1@s.mrcs 1e4 1\n"
    )

    groups = read_particles(tmp_path / "old.star").optics

    assert groups["box_size"].tolist() == [24]


def test_image_names_without_a_number_are_the_first_image(tmp_path):
    (tmp_path / "p.star").write_text(
        "data_\nloop_\n_rlnImageName\n_rlnPixelSize\na.mrc 1\n00000012@b@c.mrcs 1\n"
    )

    rows = read_particles(tmp_path / "p.star").rows

    assert rows["image"].tolist() == ["a.mrc", "b@c.mrcs"]
    assert rows["image_index"].tolist() == [0, 11]


def test_columns_with_lists_travel_as_text(tmp_path):
    particles = some_particles()
    groups = particles.optics.assign(rlnOddZernike="[0.1,0.2]")
    write_particles(tmp_path / "p.star", Particles(rows=particles.rows, optics=groups))

    back = read_particles(tmp_path / "p.star")

    assert back.optics["rlnOddZernike"].tolist() == ["[0.1,0.2]"] * 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("_rlnImageName\n1@a.mrcs\n", "must give the pixel size of its images; got none"),
        ("_rlnImageName\n_rlnPixelSize\n1@a.mrcs 0\n", "must give the pixel size"),
        ("_rlnImageName\n_rlnPixelSize\n0@a.mrcs 1\n", "must number the images of a stack from 1"),
        ("_rlnImageName\n_rlnPixelSize\nx@a.mrcs 1\n", "must number the images of a stack from 1"),
        ("_rlnMicrographName\na.mrc\n", "a column rlnImageName"),
        (
            "_rlnImageName\n_rlnPixelSize\n_rlnDefocusU\n1@a 1 1\n2@a 1 oops\n",
            "column rlnDefocusU, must hold numbers; got 'oops' in row 2",
        ),
        (
            "_rlnImageName\n_rlnPixelSize\n_rlnClassNumber\n1@a 1 1.5\n",
            "must hold whole numbers; got 1.5 in row 1",
        ),
    ],
)
def test_broken_particle_tables_are_refused_with_a_remedy(tmp_path, text, expected):
    (tmp_path / "p.star").write_text("data_\nloop_\n" + text)

    with pytest.raises(TableError) as caught:
        read_particles(tmp_path / "p.star")

    assert expected in str(caught.value)


def test_a_missing_pixel_size_is_mended_by_the_option(tmp_path):
    (tmp_path / "m.star").write_text("data_\nloop_\n_rlnMicrographName\na.mrc\n")
    with pytest.raises(TableError, match="Give it with --pixel-size"):
        read_micrographs(tmp_path / "m.star")

    micrographs = read_micrographs(tmp_path / "m.star", pixel_size=1.1)

    assert micrographs.optics["pixel_size"].tolist() == [1.1]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("a 1 1.0\nb 1 1.0\n", "number each optics group once; got group 1 twice"),
        ("a 2 1.0\nb 3 1.0\n", "describe every optics group; got group 1 without a row"),
    ],
)
def test_optics_groups_must_fit_the_rows(tmp_path, groups, expected):
    (tmp_path / "m.star").write_text(
        "data_optics\nloop_\n_rlnOpticsGroupName\n_rlnOpticsGroup\n_rlnMicrographPixelSize\n"
        + groups
        + "\ndata_micrographs\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\nm.mrc 1\n"
    )

    with pytest.raises(TableError, match=expected):
        read_micrographs(tmp_path / "m.star")


def picks() -> pd.DataFrame:
    return pd.DataFrame(
        {"x": [10.25, 20.0], "y": [30.5, 1e-7], "fom": [3.0, 1.5], "diameter": [150.0, 149.5]}
    )


def test_a_coordinate_file_has_the_five_columns_of_relion_first(tmp_path):
    path = tmp_path / "a_autopick.star"

    write_picks_file(path, picks().assign(micrograph="a.mrc"))

    assert list(read_star(path)[""]) == [
        "rlnCoordinateX",
        "rlnCoordinateY",
        "rlnAutopickFigureOfMerit",
        "rlnClassNumber",
        "rlnAnglePsi",
        "rlnParticleDiameter",
    ]
    back = picks_of_file(path, "Movies/a.mrc")
    assert set(back["micrograph"]) == {"Movies/a.mrc"}
    same(back[["x", "y", "fom", "diameter"]], picks())


def make_picking_job(folder: Path) -> list[str]:
    """Two micrographs with two picks and one without, in all of RELION's forms."""
    names = ["Job/job002/Movies/a.1.mrc", "Job/job002/Movies/b.mrc", "Job/job002/Movies/c.mrc"]
    pairs = []
    for name in names:
        stem = name.removeprefix("Job/job002/").removesuffix(".mrc")
        path = folder / f"{stem}_autopick.star"
        write_picks_file(path, picks().iloc[: 0 if "c.mrc" in name else 2])
        pairs.append((name, str(path)))
    write_coordinate_files(folder / "autopick.star", pairs)
    rows = pd.DataFrame({"micrograph": names, "optics_group": 1})
    micrographs = Micrographs(rows=rows, optics=optics().iloc[:1])
    write_micrographs(folder / "micrographs.star", micrographs)
    write_coords_suffix(folder / "coords_suffix_autopick.star", str(folder / "micrographs.star"))
    return names


@pytest.mark.parametrize("form", ["autopick.star", "coords_suffix_autopick.star", "."])
def test_picks_are_read_from_every_list(tmp_path, form):
    names = make_picking_job(tmp_path)

    found = read_picks(tmp_path / form)

    assert found.rows["micrograph"].tolist() == [names[0]] * 2 + [names[1]] * 2
    assert found.attributes["micrographs"] == names
    same(found.rows.iloc[:2][["x", "y", "fom", "diameter"]], picks())


def test_a_folder_without_a_list_names_micrographs_by_its_files(tmp_path):
    make_picking_job(tmp_path)
    for name in ("autopick.star", "coords_suffix_autopick.star", "micrographs.star"):
        (tmp_path / name).unlink()

    found = read_picks(tmp_path)

    assert found.attributes["micrographs"] == ["Movies/a.1.mrc", "Movies/b.mrc", "Movies/c.mrc"]
    single = read_picks(tmp_path / "Movies" / "a.1_autopick.star")
    assert set(single.rows["micrograph"]) == {"a.1.mrc"}


def test_one_broken_file_of_a_list_does_not_hold_up_the_rest(tmp_path):
    names = make_picking_job(tmp_path)
    (tmp_path / "Movies" / "b_autopick.star").write_text("data_\nloop_\n_rlnCoord")
    (tmp_path / "Movies" / "c_autopick.star").unlink()
    with pytest.raises(FormatError, match="b_autopick"):
        read_picks(tmp_path / "autopick.star")

    refused: list = []
    found = read_picks(tmp_path / "autopick.star", refused=refused)

    assert set(found.rows["micrograph"]) == {names[0]}
    assert found.attributes["micrographs"] == [names[0]]
    assert ["b_autopick" in str(refused[0]), "c_autopick" in str(refused[1])] == [True, True]


def test_picks_of_particles_keep_their_other_columns(tmp_path):
    particles = some_particles()
    write_particles(tmp_path / "p.star", particles)

    same(read_picks(tmp_path / "p.star").rows, particles.rows)


def test_a_table_without_coordinates_is_refused(tmp_path):
    write_micrographs(tmp_path / "m.star", some_micrographs())

    with pytest.raises(TableError, match="must have columns rlnCoordinateX and rlnCoordinateY"):
        read_picks(tmp_path / "m.star")


def test_a_table_with_a_bare_loop_has_no_picks(tmp_path):
    (tmp_path / "a_autopick.star").write_text("\ndata_\n\nloop_ \n \n")

    assert len(read_picks(tmp_path / "a_autopick.star")) == 0


def test_the_summary_has_the_columns_of_relion(tmp_path):
    write_summary(tmp_path / "s.star", ["a.mrc", "b.mrc"], [3, 0], [0.5, 0.0])

    table = read_star(tmp_path / "s.star")[""]

    assert table.to_dict("list") == {
        "rlnMicrographName": ["a.mrc", "b.mrc"],
        "rlnAutopickFigureOfMerit": [0.5, 0.0],
        "rlnGroupNrParticles": [3, 0],
    }


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "relion5/Extract/job002/particles.star",
        "relion5/Class2D/job003/run_it025_data.star",
        "formats/relion31.star",
        "formats/relion31.v2.star",
        "formats/relion5.star",
        "formats/empiar_10076_7.star",
        "formats/sta_testing_bin8.star",
        "stacks/mixture/particles.star",
    ],
)
def test_real_particle_tables_survive_a_round_trip(test_data, tmp_path, name):
    particles = read_particles(test_data / name)

    write_particles(tmp_path / "p.star", particles)

    back = read_particles(tmp_path / "p.star")
    same(back.rows, particles.rows)
    same(back.optics, particles.optics)


@pytest.mark.data
@pytest.mark.parametrize("name", ["relion5/micrographs_ctf.star", "apoferritin/micrographs.star"])
def test_real_micrograph_tables_survive_a_round_trip(test_data, tmp_path, name):
    micrographs = read_micrographs(test_data / name)

    write_micrographs(tmp_path / "m.star", micrographs)

    same(read_micrographs(tmp_path / "m.star").rows, micrographs.rows)


@pytest.mark.data
def test_values_of_relion_5_are_read_as_its_file_shows_them(test_data):
    particles = read_particles(test_data / "relion5" / "Extract" / "job002" / "particles.star")

    first = particles.rows.iloc[0]
    assert (first["x"], first["y"], first["fom"]) == (1192.826146, 754.782646, 0.339236)
    assert first["image"] == "Extract/job002/micrographs/May08_03.05.02.mrcs"
    assert first["image_index"] == 0
    assert particles.optics["pixel_size"].tolist() == [3.0]
    assert particles.optics["box_size"].tolist() == [64]


@pytest.mark.relion
@needs_relion
def test_relion_starts_a_refinement_on_our_particles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    particles = some_particles(12)
    images = np.random.default_rng(3).normal(size=(12, 32, 32)).astype(np.float32)
    write_mrc(tmp_path / "stack.mrcs", images, pixel_size=1.5)
    write_particles(tmp_path / "p.star", particles)
    (tmp_path / "out").mkdir()

    options = "--iter 1 --K 1 --ctf --particle_diameter 40 --skip_align --random_seed 1"
    log = run("relion_refine", "--i", "p.star", "--o", "out/run", *options.split())

    written = read_particles(tmp_path / "out" / "run_it001_data.star").rows
    written = written.sort_values("image_index")  # RELION gathers micrographs
    assert "ERROR" not in log
    for name in ("x", "y", "shift_x", "shift_y", "defocus_u", "diameter", "is_junk", "rlnMine"):
        expected = particles.rows[name]
        if expected.dtype == float:
            np.testing.assert_allclose(written[name], expected, atol=1e-5)
        else:
            assert written[name].tolist() == expected.tolist()
    assert written["micrograph"].tolist() == particles.rows["micrograph"].tolist()


@pytest.mark.relion
@needs_relion
def test_relion_extracts_from_our_micrographs_and_coordinates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    field = np.random.default_rng(4).normal(size=(96, 96)).astype(np.float32)
    write_mrc(tmp_path / "Movies" / "a.mrc", field, pixel_size=1.5)
    rows = some_micrographs().rows.iloc[:1].assign(defocus_v=9e3, defocus_angle=10.0)
    micrographs = Micrographs(rows=rows, optics=optics().iloc[:1])
    write_micrographs(tmp_path / "m.star", micrographs)
    at = pd.DataFrame({"x": [40.0, 50.0], "y": [44.0, 60.0], "fom": [2.0, 1.0], "diameter": 99.5})
    write_picks_file(tmp_path / "Picks" / "Movies" / "a_autopick.star", at)

    options = "--coord_suffix _autopick.star --extract --extract_size 32"
    log = run(
        *("relion_preprocess", "--i", "m.star", "--coord_dir", "Picks/", *options.split()),
        *("--part_star", "X/particles.star", "--part_dir", "X/"),
    )

    assert "unknown label" not in log
    found = read_particles(tmp_path / "X" / "particles.star")
    same(found.rows[["x", "y", "fom", "diameter"]], at)
    assert found.optics["pixel_size"].tolist() == [1.5]
    assert found.rows["defocus_u"].tolist() == [1e4, 1e4]


@pytest.mark.relion
@needs_relion
def test_relion_and_cryopick_agree_on_odd_values(tmp_path):
    particles = some_particles()
    rows = particles.rows.assign(ctf_bfactor=[1e-5, 1e6, -0.5, 1 / 3, 2.0, 1e-7])
    write_particles(tmp_path / "p.star", Particles(rows=rows, optics=particles.optics))

    selection = "--select rlnDefocusU --minval 0"
    run(
        "relion_star_handler",
        "--i",
        tmp_path / "p.star",
        "--o",
        tmp_path / "q.star",
        *selection.split(),
    )

    back = read_particles(tmp_path / "q.star").rows
    np.testing.assert_allclose(back["ctf_bfactor"], rows["ctf_bfactor"], rtol=1e-5, atol=1e-6)
    assert back["rlnMine"].tolist() == rows["rlnMine"].tolist()
    assert back["micrograph"].tolist() == rows["micrograph"].tolist()


def test_write_star_of_a_relion_table_begins_with_its_version(tmp_path):
    write_micrographs(tmp_path / "m.star", some_micrographs())

    assert (tmp_path / "m.star").read_text().startswith("\n# version 30001\n\ndata_optics\n")
    write_star(tmp_path / "n.star", {})
    assert (tmp_path / "n.star").read_text() == ""
