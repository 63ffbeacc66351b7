from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.cli.console import EXIT_SOME_FAILED
from cryopick.errors import DataError, OutputError, ProjectError, TableError
from cryopick.execution.parameters import ComputeParameters
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.io.mrc import read_mrc, read_mrc_header, write_mrc
from cryopick.pipeline.extraction import extract
from cryopick.pipeline.extraction_plan import open_coordinates
from cryopick.tables.model import Micrographs, Particles, Picks
from cryopick.tables.relion import (
    read_micrographs,
    read_particles,
    write_coordinate_files,
    write_micrographs,
    write_particles,
    write_picks_file,
)

SERIAL = ComputeParameters(workers=1, threads=1)
CTF = {
    "defocus_u": 15800.25,
    "defocus_v": 15000.0,
    "defocus_angle": 31.0,
    "ctf_max_resolution": 4.5,
    "ctf_fom": 0.125,
}


def particle_field(height, width, positions, *, seed, sign=-1):
    """A noisy field with a bright (or dark) Gaussian of sigma 3 px at each position (x, y)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = 1000 + 20 * generator.standard_normal((height, width)) + 0.05 * x
    for centre_x, centre_y in positions:
        image += sign * 300 * np.exp(-((x - centre_x) ** 2 + (y - centre_y) ** 2) / 18)
    return image.astype(np.float32)


def make_session(folder, sizes=((256, 300), (256, 300)), *, angpix=(1.5,), with_ctf=True, n=9):
    """Micrographs in micrographs/, their table, and picks with fractions of a pixel."""
    folder.mkdir(exist_ok=True)
    names, groups, pairs = [], [], []
    for number, (height, width) in enumerate(sizes):
        generator = np.random.default_rng(number)
        xy = generator.uniform(6, (width - 6, height - 6), (n, 2)).round(2)
        name = f"micrographs/field{number}.mrc"
        names.append(name)
        groups.append(1 + number % len(angpix))
        size = angpix[number % len(angpix)]
        write_mrc(folder / name, particle_field(height, width, xy, seed=number), pixel_size=size)
        rows = pd.DataFrame({"x": xy[:, 0], "y": xy[:, 1], "fom": generator.uniform(0, 1, n)})
        picks = f"picks/micrographs/field{number}_autopick.star"
        write_picks_file(folder / picks, rows)
        pairs.append((name, picks))
    rows = pd.DataFrame({"micrograph": names, "optics_group": groups})
    optics = pd.DataFrame(
        {
            "optics_group_name": [f"group{i + 1}" for i in range(len(angpix))],
            "optics_group": range(1, len(angpix) + 1),
            "pixel_size": angpix,
            "original_pixel_size": angpix,
            "voltage": 300.0,
            "spherical_aberration": 2.7,
            "amplitude_contrast": 0.1,
        }
    )
    rows = rows.assign(**CTF) if with_ctf else rows
    write_micrographs(folder / "micrographs.star", Micrographs(rows=rows, optics=optics))
    write_coordinate_files(folder / "autopick.star", pairs)


@pytest.fixture
def session(tmp_path, monkeypatch):
    make_session(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(out="out", *, micrographs="micrographs.star", coordinates="autopick.star", **values):
    overwrite = values.pop("overwrite", False)
    compute = values.pop("compute", SERIAL)
    return extract(
        read_micrographs(Path(micrographs)),
        open_coordinates(Path(coordinates)),
        Path(out),
        parameters=ExtractionParameters(**{"box_size": 48, **values}),
        compute=compute,
        overwrite=overwrite,
    )


def images_of(particles):
    stacks = {name: np.atleast_3d(read_mrc(Path(name))) for name in set(particles.rows["image"])}
    stacks = {k: v.reshape(-1, *v.shape[-2:]) for k, v in stacks.items()}
    pairs = zip(particles.rows["image"], particles.rows["image_index"], strict=True)
    return np.stack([stacks[name][index] for name, index in pairs])


def centre_of_mass(image):
    """Centroid of the bright spot in the middle of an image, from its centre, (y, x) px."""
    half = image.shape[-1] // 2
    y, x = np.mgrid[-half:half, -half:half]
    weight = np.where((x**2 + y**2 < 100) & (image > 0), image, 0)
    return np.array([(weight * y).sum(), (weight * x).sum()]) / weight.sum()


def test_particles_are_white_centred_and_normalised(session):
    result = run(edges="replicate", background_diameter=40)
    particles = read_particles(Path("out/particles.star"))
    images = images_of(particles)

    assert result.n_particles == len(particles) == 18
    inside = (particles.rows[["x", "y"]] > 24).all(axis=1) & (particles.rows["y"] < 232)
    inside &= particles.rows["x"] < 276
    assert inside.sum() > 5
    centres = images[inside][:, 20:28, 20:28].mean(axis=(1, 2))
    assert (centres > 2).all()
    y, x = np.mgrid[-24:24, -24:24]
    background = images[:, x**2 + y**2 > 400]
    np.testing.assert_allclose(background.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(background.std(axis=1), 1, atol=1e-5)


def test_the_origin_written_moves_the_particle_to_the_centre(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_session(tmp_path, ((200, 240),), n=1)
    xy = np.array([[120.37, 90.71], [60.5, 140.25], [180.9, 60.08]])
    field = particle_field(200, 240, xy, seed=0) / 1e3
    write_mrc(Path("micrographs/field0.mrc"), field, pixel_size=1.5)
    write_picks_file(
        Path("picks/micrographs/field0_autopick.star"), pd.DataFrame(xy, columns=["x", "y"])
    )

    run()

    particles = read_particles(Path("out/particles.star"))
    shifts = particles.rows[["shift_y", "shift_x"]].to_numpy() / 1.5
    for image, shift in zip(images_of(particles), shifts, strict=True):
        np.testing.assert_allclose(centre_of_mass(image) + shift, 0, atol=0.12)
    assert np.abs(shifts).max() > 0.3
    whole = particles.rows[["x", "y"]].to_numpy()
    np.testing.assert_array_equal(whole, np.floor(xy + 0.5))
    np.testing.assert_allclose(whole - shifts[:, ::-1], xy, atol=1e-6)


def test_the_table_says_what_relion_needs(session):
    run(rescale=24, premultiply=True)
    particles = read_particles(Path("out/particles.star"))

    optics = particles.optics.iloc[0]
    assert (optics["pixel_size"], optics["box_size"], optics["image_dimensions"]) == (3.0, 24, 2)
    assert (optics["is_premultiplied"], optics["voltage"]) == (1, 300.0)
    for name, value in CTF.items():
        assert (particles.rows[name] == value).all()
    assert (particles.rows["ctf_scale"] == 1).all()
    labels = [
        line.split()[0][1:]
        for line in Path("out/particles.star").read_text().split("data_particles")[1].splitlines()
        if line.startswith("_rln")
    ]
    assert labels == [
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
        "rlnOriginXAngst",
        "rlnOriginYAngst",
    ]


def test_stacks_and_their_tables_lie_under_the_names_of_the_micrographs(session):
    run()
    whole = read_particles(Path("out/particles.star"))

    for number in range(2):
        part = read_particles(Path(f"out/micrographs/field{number}_extract.star"))
        of_whole = whole.rows[whole.rows["micrograph"] == f"micrographs/field{number}.mrc"]
        pd.testing.assert_frame_equal(part.rows, of_whole.reset_index(drop=True))
        header = read_mrc_header(Path(f"out/micrographs/field{number}.mrcs"))
        assert header.shape == (len(part), 48, 48)
        assert header.pixel_size == pytest.approx(1.5)


def test_float16_stacks_hold_the_same_images_with_half_the_digits(session):
    run("single")
    run("half", float16=True)
    single = images_of(read_particles(Path("single/particles.star")))
    half = images_of(read_particles(Path("half/particles.star")))

    assert read_mrc_header(Path("half/micrographs/field0.mrcs")).dtype == np.float16
    np.testing.assert_allclose(half, single, rtol=1e-3, atol=1e-3)


def test_several_pixel_sizes_and_field_sizes_in_one_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_session(tmp_path, ((200, 240), (300, 180), (200, 240)), angpix=(1.5, 0.8))

    result = run(rescale=32)

    particles = read_particles(Path("out/particles.star"))
    assert result.pixel_sizes == [2.25, 1.2]
    assert particles.optics["pixel_size"].tolist() == [2.25, 1.2]
    assert set(particles.rows["optics_group"]) == {1, 2}
    assert read_mrc_header(Path("out/micrographs/field1.mrcs")).pixel_size == pytest.approx(1.2)


def test_optics_groups_without_particles_are_dropped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_session(tmp_path, ((200, 240), (300, 180)), angpix=(1.5, 0.8))
    write_coordinate_files(
        Path("autopick.star"),
        [("micrographs/field1.mrc", "picks/micrographs/field1_autopick.star")],
    )

    result = run()

    particles = read_particles(Path("out/particles.star"))
    assert particles.optics["optics_group"].tolist() == [2]
    assert result.n_without_coordinates == 1


def test_only_picks_above_the_minimum_are_extracted(session):
    rows = open_coordinates(Path("autopick.star")).rows
    limit = float(np.sort(rows["fom"])[10])

    result = run(minimum_fom=limit, edges="replicate")

    assert result.n_particles == (rows["fom"] > limit).sum() == 7  # strictly above
    assert result.n_below_fom == 11


def test_edge_policy_counts_what_it_drops(session):
    dropped, repeated = run("a"), run("b", edges="replicate")

    assert repeated.n_particles == 18
    assert dropped.n_particles + dropped.n_edge == 18
    assert dropped.n_edge > 0


def test_workers_and_serial_runs_write_the_same_bytes(session):
    options = {"white_dust": 3.0, "edges": "replicate"}
    run("a", **options)
    run("b", compute=ComputeParameters(workers=2, threads=1), **options)

    for name in ("micrographs/field0.mrcs", "micrographs/field1.mrcs"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()


def test_a_second_run_does_nothing_and_a_killed_one_goes_on(session):
    run()
    stack = Path("out/micrographs/field0.mrcs")
    first = stack.stat().st_mtime_ns
    ledger = Path("out/ledger.jsonl")
    ledger.write_text(ledger.read_text().splitlines(keepends=True)[0])  # killed after one field
    Path("out/micrographs/field1.mrcs").unlink()
    Path("out/particles.star").unlink()

    result = run()

    assert stack.stat().st_mtime_ns == first
    assert result.n_particles == len(read_particles(Path("out/particles.star")))
    assert Path("out/micrographs/field1.mrcs").exists()


def test_moved_picks_are_extracted_again_on_the_next_run(session):
    run()
    before = Path("out/micrographs/field1.mrcs").read_bytes()
    untouched = Path("out/micrographs/field0.mrcs").stat().st_mtime_ns
    path = Path("picks/micrographs/field1_autopick.star")
    write_picks_file(path, pd.DataFrame({"x": [100.0], "y": [90.0], "fom": [0.5]}))

    result = run()

    assert Path("out/micrographs/field1.mrcs").read_bytes() != before
    assert Path("out/micrographs/field0.mrcs").stat().st_mtime_ns == untouched
    assert len(read_particles(Path("out/particles.star"))) == result.n_particles


def test_other_parameters_are_refused_unless_told_to_overwrite(session):
    run()

    with pytest.raises(ProjectError, match="box_size 48 instead of 32"):
        run(box_size=32)
    assert run(box_size=32, overwrite=True).image_size == 32


def shifted_particles(session):
    """Particles extracted 3 px off, whose origins say so."""
    particles = run("first", positions="nearest", edges="replicate") and read_particles(
        Path("first/particles.star")
    )
    generator = np.random.default_rng(8)
    moved = generator.integers(-4, 5, (len(particles), 2)).astype(float)
    rows = particles.rows.assign(
        x=particles.rows["x"] + moved[:, 0],
        y=particles.rows["y"] + moved[:, 1],
        shift_x=particles.rows["shift_x"] + 1.5 * moved[:, 0],
        shift_y=particles.rows["shift_y"] + 1.5 * moved[:, 1],
        rot=generator.uniform(-180, 180, len(particles)),
        tilt=generator.uniform(0, 180, len(particles)),
        psi=generator.uniform(-180, 180, len(particles)),
        defocus_u=20000.0,
    )
    path = Path("data.star")
    write_particles(path, Particles(rows=rows, optics=particles.optics))
    return particles, read_particles(path)


def test_recentring_undoes_a_known_displacement(session):
    original, _ = shifted_particles(session)

    run("again", coordinates="data.star", recenter=True, edges="replicate")

    again = read_particles(Path("again/particles.star"))
    for name in ("x", "y", "shift_x", "shift_y"):
        np.testing.assert_allclose(again.rows[name], original.rows[name], atol=1e-5)
    np.testing.assert_array_equal(images_of(again), images_of(original))


def test_re_extraction_keeps_the_ctf_of_the_particles_unless_told_otherwise(session):
    shifted_particles(session)

    run("own", coordinates="data.star", edges="replicate")
    run("theirs", coordinates="data.star", edges="replicate", micrograph_ctf=True)

    assert (read_particles(Path("own/particles.star")).rows["defocus_u"] == 20000).all()
    theirs = read_particles(Path("theirs/particles.star")).rows
    assert (theirs["defocus_u"] == CTF["defocus_u"]).all()


def test_without_recentring_origins_are_kept_and_can_be_reset(session):
    _, moved = shifted_particles(session)

    run("kept", coordinates="data.star", edges="replicate")
    run("reset", coordinates="data.star", edges="replicate", reset_offsets=True)

    kept = read_particles(Path("kept/particles.star")).rows
    np.testing.assert_allclose(kept["shift_x"], moved.rows["shift_x"], atol=1e-6)
    np.testing.assert_allclose(kept["x"], moved.rows["x"])
    assert (read_particles(Path("reset/particles.star")).rows["shift_x"] == 0).all()


def test_a_reference_point_needs_angles_and_a_pixel_size(session):
    with pytest.raises(TableError, match="column for rot"):
        run(recenter=True, recenter_x=4.0)


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


def break_field(kind, path):
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "missing":
        path.unlink()
    else:
        pixels = read_mrc(path)
        pixels[5:9, 5:9] = np.nan
        write_mrc(path, pixels if kind == "nan" else np.full_like(pixels, 7.0), pixel_size=1.5)


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


def cli(*arguments):
    return CliRunner().invoke(app, ["extract", *map(str, arguments)])


def test_the_command_prints_what_it_did_as_json(session):
    outcome = cli(
        "micrographs.star", "autopick.star", "--box-size", 48, "--out", "out", "--json",
        "--workers", 1, "--edges", "replicate",
    )  # fmt: skip

    assert outcome.exit_code == 0
    result = json.loads(outcome.stdout)
    assert (result["n_particles"], result["particles"]) == (18, "out/particles.star")
    description = json.loads(Path("out/job.json").read_text())
    assert description["state"] == "finished"
    assert description["parameters"]["box_size"] == 48


def test_the_command_ends_with_its_own_code_when_a_field_failed(session):
    break_field("constant", Path("micrographs/field1.mrc"))

    outcome = cli("micrographs.star", "picks", "--box-size", 48, "--out", "out", "--workers", 1)

    assert outcome.exit_code == EXIT_SOME_FAILED
    assert "Failed: micrographs/field1.mrc must have contrast" in outcome.output


def test_missing_coordinates_are_one_warning(session):
    write_coordinate_files(
        Path("autopick.star"),
        [("micrographs/field1.mrc", "picks/micrographs/field1_autopick.star")],
    )

    outcome = cli("micrographs.star", "autopick.star", "--box-size", 48, "--out", "out")

    assert outcome.output.count("Warning: 1 of 2 micrographs have no coordinates.") == 1


def test_micrographs_can_be_a_pattern_with_a_pixel_size(session):
    outcome = cli(
        "micrographs/*.mrc", "picks", "--pixel-size", 2.0, "--box-size", 48, "--out", "out",
        "--workers", 1,
    )  # fmt: skip

    assert outcome.exit_code == 0, outcome.output
    assert read_particles(Path("out/particles.star")).optics["pixel_size"].tolist() == [2.0]


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
            write_picks_file(path, rows[rows["fom"] > ours["minimum_fom"]])
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
