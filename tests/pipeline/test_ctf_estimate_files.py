"""The file work of ``ctf estimate``: what a run writes, keeps, refuses, skips and repeats."""

from __future__ import annotations

import json
import math
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cryopick.ctf.estimate_parameters import CtfParameters
from cryopick.errors import FormatError, ParameterError, ProjectError, TableError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.io.star import read_star
from cryopick.pipeline.ctf_estimate import estimate_ctfs
from cryopick.pipeline.simulate import simulate_micrographs
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)
from cryopick.tables.model import Micrographs
from cryopick.tables.relion import read_micrographs, write_micrographs

_SERIAL = ComputeParameters(workers=1, threads=1)
_LENS = {"voltage": 300.0, "spherical_aberration": 2.7}


def simulate(folder, *, number=2, contrast=1.0, **microscope):
    simulate_micrographs(
        folder,
        specimen=SpecimenParameters(),
        microscope=MicroscopeParameters(**microscope),
        parameters=MicrographSimulationParameters(
            number=number, width=1024, height=1024, particles=40, contrast=contrast
        ),
        compute=_SERIAL,
    )


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Two fields of 1024 px with strong astigmatism, and their true CTF in their table."""
    folder = tmp_path_factory.mktemp("simulated")
    simulate(folder, astigmatism=1500.0, min_defocus=10000.0)
    return folder


@pytest.fixture
def project(simulated, tmp_path, monkeypatch):
    shutil.copytree(simulated, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(project, *inputs, out="ctf", parameters=None, **given):
    given.setdefault("compute", _SERIAL)
    return estimate_ctfs(
        list(inputs) or ["micrographs_ctf.star"],
        project / out,
        parameters=parameters or CtfParameters(),
        **given,
    )


def test_simulated_micrographs_get_their_true_ctf_back(project):
    truth = read_micrographs(project / "micrographs_ctf.star").rows

    result = run(project)

    found = read_micrographs(result.table).rows
    mean = (found["defocus_u"] + found["defocus_v"]) / 2
    true_mean = (truth["defocus_u"] + truth["defocus_v"]) / 2
    assert (mean - true_mean).abs().max() < 60
    turn = (found["defocus_angle"] - truth["defocus_angle"] + 90) % 180 - 90
    is_astigmatic = truth["defocus_u"] - truth["defocus_v"] > 500
    assert is_astigmatic.any()
    assert turn[is_astigmatic].abs().max() < 3
    assert (found["ctf_max_resolution"] < 8).all()
    assert (found["is_ctf_trusted"] == 1).all()
    assert not (project / "ctf" / "failed.star").exists()


def test_a_phase_plate_session_with_other_particles_and_weaker_contrast(tmp_path):
    simulate(
        tmp_path, number=1, contrast=0.7, phase_shift=90.0, min_defocus=5000.0, max_defocus=8000.0
    )
    truth = read_micrographs(tmp_path / "micrographs_ctf.star").rows

    given = {"parameters": CtfParameters(phase_shift=True)}
    result = run(tmp_path, str(tmp_path / "micrographs_ctf.star"), **given)

    found = result.micrographs[0]
    true_mean = (truth["defocus_u"] + truth["defocus_v"]).iloc[0] / 2
    assert (found.defocus_u + found.defocus_v) / 2 == pytest.approx(true_mean, abs=100)
    assert read_star(result.table)["micrographs"]["rlnPhaseShift"].iloc[0] == pytest.approx(
        90, abs=8
    )


def test_the_table_has_relions_columns_in_relions_order_and_keeps_all_others(project):
    before = read_micrographs(project / "micrographs_ctf.star")
    rows = before.rows.assign(rlnAccumMotionTotal=[3.5, 4.5], ctf_bfactor=150.0, phase_shift=7.0)
    write_micrographs(project / "m.star", Micrographs(rows=rows, optics=before.optics))

    result = run(project, "m.star")

    blocks = read_star(result.table)
    assert list(blocks["micrographs"].columns) == [
        "rlnMicrographName",
        "rlnOpticsGroup",
        "rlnCtfImage",
        "rlnDefocusU",
        "rlnDefocusV",
        "rlnCtfAstigmatism",
        "rlnDefocusAngle",
        "rlnCtfFigureOfMerit",
        "rlnCtfMaxResolution",
        "cryopickIsCtfTrusted",
        "rlnAccumMotionTotal",
        "cryopickIceRing",
    ]
    found = blocks["micrographs"]
    assert list(found["rlnMicrographName"]) == list(rows["micrograph"])
    assert list(found["rlnAccumMotionTotal"]) == [3.5, 4.5]
    difference = found["rlnDefocusU"] - found["rlnDefocusV"]
    np.testing.assert_allclose(found["rlnCtfAstigmatism"], difference, atol=0.01)
    optics = blocks["optics"]
    assert optics["rlnVoltage"].iloc[0] == 300
    assert optics["rlnMicrographPixelSize"].iloc[0] == 1.5


def test_each_micrograph_has_an_mrc_picture_that_its_row_names_and_a_png(project):
    result = run(project)

    for name in read_star(result.table)["micrographs"]["rlnCtfImage"]:
        path, kind = name.rsplit(":", 1)
        assert kind == "mrc"
        picture = read_mrc(path)
        assert picture.shape[-2] == picture.shape[-1] > 200
        assert 0.8 < np.quantile(picture, 0.95) < 3  # 1 is a peak of the CTF
        with Image.open(path.removesuffix(".ctf") + "_ctf.png") as drawn:
            assert drawn.width > 800


def test_images_without_a_table_need_pixel_size_and_lens(project):
    image = str(project / "micrographs" / "sim_00001.mrc")

    with pytest.raises(TableError, match="say the voltage of the microscope; got none"):
        run(project, image)
    with pytest.raises(TableError, match=r"say the spherical aberration .* --spherical-aberration"):
        run(project, image, voltage=300.0)

    result = run(project, image, amplitude_contrast=0.07, **_LENS)
    optics = read_micrographs(result.table).optics.iloc[0]
    assert optics["amplitude_contrast"] == 0.07
    assert optics["voltage"] == 300
    assert optics["pixel_size"] == 1.5


def test_the_lens_given_takes_the_place_of_the_tables(project):
    plain = run(project).micrographs[0]
    other = run(project, out="other", voltage=200.0).micrographs[0]

    # what rings show is wavelength times defocus, but for the spherical aberration
    ratio = (other.defocus_u + other.defocus_v) / (plain.defocus_u + plain.defocus_v)
    assert ratio == pytest.approx(0.019687 / 0.025079, rel=0.04)


@pytest.mark.parametrize("value", [0.0, math.inf, math.nan])
def test_a_table_with_an_impossible_voltage_is_refused(project, value):
    before = read_micrographs(project / "micrographs_ctf.star")
    optics = before.optics.assign(voltage=value)
    write_micrographs(project / "m.star", Micrographs(rows=before.rows, optics=optics))

    with pytest.raises(TableError, match=r"m\.star must say the voltage"):
        run(project, "m.star")


@pytest.mark.parametrize("value", [10.0, 1.01, -0.1, math.inf])
def test_a_table_whose_amplitude_contrast_is_no_fraction_is_refused(project, value):
    before = read_micrographs(project / "micrographs_ctf.star")
    optics = before.optics.assign(amplitude_contrast=value)
    write_micrographs(project / "m.star", Micrographs(rows=before.rows, optics=optics))

    with pytest.raises(
        TableError,
        match=rf"m\.star must say the amplitude contrast .* fraction from 0 to 1; got {value:g}\. "
        "Give it with --amplitude-contrast",
    ):
        run(project, "m.star")
    assert not (project / "ctf").exists()


def test_pixels_too_coarse_for_rings_are_refused_before_anything_is_written(project):
    with pytest.raises(ParameterError, match="less binned micrographs"):
        run(project, pixel_size=7.0, parameters=CtfParameters(max_defocus=15000))

    assert not (project / "ctf").exists()


def test_tiles_too_small_for_rings_are_refused_before_anything_is_written(project):
    with pytest.raises(ParameterError, match=r"tile_size must .* got 1 in tiles of 19\.2 A"):
        run(project, pixel_size=0.3, parameters=CtfParameters(tile_size=64))

    assert not (project / "ctf").exists()


def test_what_cannot_be_read_or_fitted_is_listed_and_the_rest_is_done(project):
    table = read_micrographs(project / "micrographs_ctf.star")
    names = ["small.mrc", "constant.mrc", "nan.mrc", "cut.mrc"]
    for name, pixels in zip(
        names,
        [np.random.default_rng(0).normal(size=(100, 900)), np.full((900, 900), 5.0)]
        + [np.full((900, 900), np.nan)] * 2,
        strict=True,
    ):
        write_mrc(project / "micrographs" / name, pixels.astype(np.float32), pixel_size=1.5)
    broken = project / "micrographs" / "cut.mrc"
    broken.write_bytes(broken.read_bytes()[:5000])
    added = pd.DataFrame({"micrograph": [f"micrographs/{n}" for n in names], "optics_group": 1})
    rows = pd.concat([table.rows, added], ignore_index=True)
    write_micrographs(project / "m.star", Micrographs(rows=rows, optics=table.optics))

    result = run(project, "m.star")

    assert len(result.estimated) == 2
    reasons = dict(
        read_star(project / "ctf" / "failed.star")["failed"].itertuples(index=False, name=None)
    )
    assert "small.mrc must be at least 256 px wide and high" in reasons["micrographs/small.mrc"]
    assert "have contrast; got 5 in every pixel" in reasons["micrographs/constant.mrc"]
    assert "finite numbers only" in reasons["micrographs/nan.mrc"]
    assert "micrographs/cut.mrc" in reasons
    assert len(read_micrographs(result.table).rows) == 2


def test_fields_without_rings_stay_in_the_table_with_a_low_figure_of_merit(project):
    noise = np.random.default_rng(1).normal(size=(1024, 1024)).astype(np.float32)
    write_mrc(project / "micrographs" / "sim_00002.mrc", noise, pixel_size=1.5)

    result = run(project)

    found = read_micrographs(result.table).rows
    assert list(found["is_ctf_trusted"]) == [1, 0]
    assert found["ctf_fom"].iloc[1] < 0.15 < found["ctf_fom"].iloc[0]
    assert found["ctf_max_resolution"].iloc[1] == 30
    assert result.to_dict()["not_trusted"] == ["micrographs/sim_00002.mrc"]


def test_a_second_run_does_only_what_is_new_or_changed(project):
    run(project)
    ledger = project / "ctf" / "ledger.jsonl"
    first = ledger.read_text().splitlines()
    table = (project / "ctf" / "micrographs_ctf.star").read_text()

    run(project)
    assert ledger.read_text().splitlines() == first

    field = read_mrc(project / "micrographs" / "sim_00002.mrc")
    write_mrc(project / "micrographs" / "sim_00002.mrc", field[:1000] * 2, pixel_size=1.5)
    run(project)
    keys = [json.loads(line)["key"] for line in ledger.read_text().splitlines()]
    assert keys[len(first) :] == ["micrographs/sim_00002"]
    assert (project / "ctf" / "micrographs_ctf.star").read_text() != table


@pytest.mark.slow
def test_results_do_not_depend_on_workers_and_threads(project):
    one = run(project).table.read_text()
    many = run(project, out="many", compute=ComputeParameters(workers=2, threads=2)).table

    assert many.read_text().replace(f"{project}/many", f"{project}/ctf") == one


def test_other_parameters_in_the_same_folder_are_refused_or_replace_all(project):
    run(project)
    narrow = CtfParameters(max_defocus=30000)

    with pytest.raises(ProjectError, match=r"max_defocus 50000\.0 instead of 30000"):
        run(project, parameters=narrow)

    run(project, parameters=narrow, overwrite=True)
    assert json.loads((project / "ctf" / "job.json").read_text())["parameters"]["max_defocus"] == (
        30000
    )


def test_a_broken_table_is_refused(project):
    (project / "m.star").write_text("data_micrographs\nloop_\n_rlnMicrographName #1\na b c\n")

    with pytest.raises((FormatError, TableError)):
        run(project, "m.star")


def test_a_failure_of_drawing_costs_no_fit(project, monkeypatch):
    monkeypatch.setattr("cryopick.report.ctf_picture.draw_ctf", None)

    result = run(project)

    assert len(result.estimated) == 2
    assert list((project / "ctf" / "micrographs").glob("*.ctf"))
    assert not list((project / "ctf" / "micrographs").glob("*.png"))


@pytest.mark.relion
@pytest.mark.skipif(not shutil.which("relion_star_handler"), reason="needs RELION")
def test_relion_reads_the_table_and_the_pictures(project, monkeypatch):
    monkeypatch.chdir(project)
    result = estimate_ctfs(["micrographs_ctf.star"], project.relative_to(project) / "ctf")
    words = ["--select", "rlnCtfFigureOfMerit", "--minval", "0.3"]

    subprocess.run(
        ["relion_star_handler", "--i", str(result.table), "--o", "kept.star", *words],
        check=True,
        capture_output=True,
    )
    picture = read_star(result.table)["micrographs"]["rlnCtfImage"].iloc[0]
    statistics = subprocess.run(
        ["relion_image_handler", "--i", picture, "--stats"],
        check=True,
        capture_output=True,
        text=True,
    )

    kept, made = read_star(project / "kept.star"), read_star(result.table)
    pd.testing.assert_frame_equal(kept["micrographs"], made["micrographs"], check_dtype=False)
    side = read_mrc(picture.removesuffix(":mrc")).shape[-1]
    assert f"(x,y,z,n)= {side} x {side} x 1 x 1" in statistics.stdout


def test_the_table_finds_the_micrographs_from_where_it_was_made(simulated, tmp_path, monkeypatch):
    """Names that the first table said beside itself are said from the working folder."""
    shutil.copytree(simulated, tmp_path / "sim")
    monkeypatch.chdir(tmp_path)

    result = estimate_ctfs(["sim/micrographs_ctf.star"], tmp_path / "ctf", compute=_SERIAL)

    again = estimate_ctfs([str(result.table)], tmp_path / "again", compute=_SERIAL)
    assert not again.failed
    assert [m.defocus_u for m in again.micrographs] == [m.defocus_u for m in result.micrographs]
