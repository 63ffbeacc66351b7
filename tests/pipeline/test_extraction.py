from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from extraction_session import (
    CTF,
    break_field,
    centre_of_mass,
    images_of,
    make_session,
    particle_field,
    run,
    shifted_particles,
)
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.cli.console import EXIT_SOME_FAILED
from cryopick.errors import ProjectError, TableError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import read_mrc_header, write_mrc
from cryopick.pipeline.extraction_plan import open_coordinates
from cryopick.tables.relion import (
    read_particles,
    write_coordinate_files,
    write_picks_file,
)


@pytest.fixture
def session(tmp_path, monkeypatch):
    make_session(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
