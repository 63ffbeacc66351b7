"""Simulated folders: complete, readable, resumable, and with truth in every form promised."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.errors import FormatError, ParameterError, ProjectError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import read_mrc, read_mrc_header, write_mrc
from cryopick.pipeline.evaluate import read_truth
from cryopick.pipeline.simulate import simulate_micrographs
from cryopick.pipeline.simulate_particles import simulate_stack
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    ParticleSimulationParameters,
    SpecimenParameters,
)
from cryopick.tables.relion import picks_of_file, read_micrographs, read_particles

ONE = ComputeParameters(workers=1, threads=1)
SMALL = {"number": 2, "width": 320, "height": 256, "pixel_size": 3.0, "particles": 8}
STACK = {"number": 260, "box_size": 32, "pixel_size": 6.0}


def micrographs(folder, *, specimen=None, compute=ONE, overwrite=False, **values):
    return simulate_micrographs(
        folder,
        specimen=SpecimenParameters(**(specimen or {"phantoms": "small,shell"})),
        microscope=MicroscopeParameters(),
        parameters=MicrographSimulationParameters(**(SMALL | values)),
        compute=compute,
        overwrite=overwrite,
    )


def stack(folder, *, specimen=None, **values):
    return simulate_stack(
        folder,
        specimen=SpecimenParameters(**(specimen or {"phantoms": "small,shell"})),
        microscope=MicroscopeParameters(),
        parameters=ParticleSimulationParameters(**(STACK | values)),
        compute=ONE,
    )


def test_micrographs_come_with_their_table_and_truth(tmp_path):
    result = micrographs(tmp_path / "sim")

    table = read_micrographs(result.table)
    assert table.rows["micrograph"].tolist() == [
        "micrographs/sim_00001.mrc",
        "micrographs/sim_00002.mrc",
    ]
    assert table.optics["pixel_size"].tolist() == [3.0]
    assert table.rows["defocus_u"].between(8000, 26000).all()
    truth = json.loads((tmp_path / "sim" / "truth.json").read_text())
    assert truth["apix"] == 3.0
    count = 0
    for key in ("sim_00001", "sim_00002"):
        header = read_mrc_header(tmp_path / "sim" / "micrographs" / f"{key}.mrc")
        assert (header.shape, header.pixel_size) == ((1, 256, 320), 3.0)
        rows = picks_of_file(tmp_path / "sim" / "truth" / f"{key}_truth.star", key)
        good = rows[rows["cryopickState"] == "particle"]
        listed = truth["micrographs"][f"{key}.mrc"]
        np.testing.assert_allclose(listed["particles"], good[["x", "y"]], atol=1e-3)
        assert len(listed["particles"]) + len(listed["ignored"]) == len(rows)
        assert set(rows["cryopickSpecies"]) <= {"small", "shell"}
        count += len(good)
    assert result.n_particles == count > 0


def test_truth_is_the_same_in_json_and_in_star_files(tmp_path):
    micrographs(tmp_path, carbon_fraction=1.0)

    joined, single = read_truth(tmp_path / "truth.json"), read_truth(tmp_path / "truth")

    assert joined.micrographs == single.micrographs
    assert len(joined.rows) > 0
    assert len(joined.ignored) > 0
    for ours, theirs in ((joined.rows, single.rows), (joined.ignored, single.ignored)):
        assert ours["micrograph"].tolist() == theirs["micrograph"].tolist()
        np.testing.assert_allclose(ours[["x", "y"]], theirs[["x", "y"]], atol=1e-3)


def test_the_same_seed_gives_the_same_pixels_in_any_number_of_workers(tmp_path):
    micrographs(tmp_path / "a")
    micrographs(tmp_path / "b", compute=ComputeParameters(workers=2, threads=1))

    for name in ("sim_00001", "sim_00002"):
        first = read_mrc(tmp_path / "a" / "micrographs" / f"{name}.mrc")
        second = read_mrc(tmp_path / "b" / "micrographs" / f"{name}.mrc")
        np.testing.assert_array_equal(first, second)


def test_a_larger_number_goes_on_where_the_smaller_ended(tmp_path):
    micrographs(tmp_path, number=1)
    first = tmp_path / "micrographs" / "sim_00001.mrc"
    before = first.stat().st_mtime_ns

    result = micrographs(tmp_path, number=3)

    assert first.stat().st_mtime_ns == before
    assert result.n_micrographs == 3
    assert len(read_micrographs(result.table)) == 3


def test_other_parameters_are_refused_unless_told_to_overwrite(tmp_path):
    micrographs(tmp_path)

    with pytest.raises(ProjectError, match="dose"):
        micrographs(tmp_path, dose=11.0)

    micrographs(tmp_path, dose=11.0, number=1, overwrite=True)
    image = read_mrc(tmp_path / "micrographs" / "sim_00001.mrc")
    assert image.mean() < 11 * 9
    assert not (tmp_path / "micrographs" / "sim_00002.mrc").exists()


def test_half_precision_is_written_where_asked_for(tmp_path):
    micrographs(tmp_path, number=1, data_type="float16")

    header = read_mrc_header(tmp_path / "micrographs" / "sim_00001.mrc")
    assert header.dtype == np.float16


def test_a_map_is_simulated_like_the_phantom_it_came_from(tmp_path):
    micrographs(tmp_path / "a", number=1, specimen={"phantoms": "shell"})
    density = tmp_path / "a" / "phantoms" / "shell.mrc"

    micrographs(tmp_path / "b", number=1, specimen={"model": str(density)}, dose=4000.0)

    rows = picks_of_file(tmp_path / "b" / "truth" / "sim_00001_truth.star", "m")
    assert set(rows["cryopickSpecies"]) == {"shell"}
    assert rows["diameter"].iloc[0] == pytest.approx(125, rel=0.1)


def test_a_stack_comes_with_its_table_and_truth_in_all_forms(tmp_path):
    result = stack(tmp_path, snr=0.5)

    particles = read_particles(tmp_path / "particles.star")
    truth = read_particles(tmp_path / "truth.star").rows
    images = read_mrc(tmp_path / "particles.mrcs")
    clean = np.load(tmp_path / "clean.npy")
    arrays = np.load(tmp_path / "truth.npz")
    assert images.shape == clean.shape == (260, 32, 32)
    assert len(particles) == len(truth) == 260
    assert "rot" not in particles.rows.columns
    assert particles.optics[["pixel_size", "box_size"]].iloc[0].tolist() == [6.0, 32]
    assert particles.rows["image_index"].tolist() == list(range(260))
    assert arrays["junk"].tolist() == (truth["is_junk"] == 1).tolist()
    assert result.n_junk == arrays["junk"].sum() > 0
    assert arrays["R"].shape == (260, 3, 3)
    assert float(arrays["apix"]) == 6.0
    np.testing.assert_allclose(arrays["shift"][:, 0] * -6.0, truth["shift_x"], atol=1e-5)
    good = ~arrays["junk"]
    both = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in zip(images, clean, strict=True)
        if b.any()
    ]
    assert len(both) == good.sum()
    assert np.mean(both) > 0.1
    assert not (tmp_path / "parts").exists()


def test_a_stack_is_not_made_twice_and_goes_on_after_an_interruption(tmp_path, monkeypatch):
    from cryopick.pipeline import simulate_particles as module

    stack(tmp_path / "whole")
    made: list[int] = []
    original = module.simulate_particles

    def interrupted(*args, batch, **others):
        made.append(batch)
        if len(made) == 2:
            raise KeyboardInterrupt
        return original(*args, batch=batch, **others)

    monkeypatch.setattr(module, "simulate_particles", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stack(tmp_path / "cut")
    assert not (tmp_path / "cut" / "particles.star").exists()
    stack(tmp_path / "cut")
    stack(tmp_path / "cut")

    assert made == [0, 1, 1]
    first = read_mrc(tmp_path / "whole" / "particles.mrcs")
    np.testing.assert_array_equal(first, read_mrc(tmp_path / "cut" / "particles.mrcs"))


def test_a_finished_stack_that_lost_a_file_says_so(tmp_path):
    stack(tmp_path)
    (tmp_path / "clean.npy").unlink()

    with pytest.raises(ProjectError, match=r"must hold .*clean.npy"):
        stack(tmp_path)


def test_models_that_are_none_are_refused(tmp_path):
    write_mrc(tmp_path / "flat.mrc", np.zeros((8, 8), np.float32), pixel_size=1.0)
    with pytest.raises(FormatError, match="must be a PDB or mmCIF file, or a map"):
        micrographs(tmp_path / "a", specimen={"model": str(tmp_path / "flat.mrc")})
    with pytest.raises(ParameterError, match="phantom must be one of"):
        micrographs(tmp_path / "b", specimen={"phantoms": "teapot"})
    with pytest.raises(ParameterError, match="must name files of different names"):
        micrographs(tmp_path / "c", specimen={"model": "a/x.pdb,b/x.pdb"})
    with pytest.raises(ParameterError, match="min_defocus must be at most max_defocus"):
        MicroscopeParameters(min_defocus=2e4, max_defocus=1e4)


def test_the_commands_print_what_they_made(tmp_path):
    common = ["--workers", "1", "--threads", "1", "--phantoms", "small", "--json"]
    sizes = ["--number", "1", "--width", "256", "--height", "256", "--particles", "5"]
    shown = CliRunner().invoke(
        app, ["simulate", "micrographs", "--out", str(tmp_path / "m"), *sizes, *common]
    )
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["n_micrographs"] == 1

    sizes = ["--number", "20", "--box-size", "32", "--pixel-size", "6"]
    shown = CliRunner().invoke(
        app, ["simulate", "particles", "--out", str(tmp_path / "p"), *sizes, *common]
    )
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["n_images"] == 20


def test_a_crowded_stack_of_random_particles_comes_from_the_command_line(tmp_path):
    command = ["simulate", "particles", "--out", str(tmp_path), "--phantoms", "random1,random7"]
    command += ["--number", "60", "--box-size", "32", "--pixel-size", "10", "--crowding", "1"]
    command += ["--junk-kinds", "gold,edge", "--junk-fraction", "0.5", "--phantom-seed", "3"]
    shown = CliRunner().invoke(app, [*command, "--workers", "1", "--threads", "1", "--json"])

    assert shown.exit_code == 0, shown.output
    truth = read_particles(tmp_path / "truth.star").rows
    assert set(truth["cryopickState"]) == {"particle", "gold", "edge"}
    assert set(truth["cryopickSpecies"]) == {"random1", "random7"}
    assert read_mrc(tmp_path / "phantoms" / "random7.mrc").max() > 0
    assert np.isfinite(read_mrc(tmp_path / "particles.mrcs")).all()


@pytest.mark.relion
def test_relion_reads_the_stack_and_its_table(tmp_path):
    if not shutil.which("relion_image_handler"):
        pytest.skip("no relion_image_handler: install the Debian package relion")
    stack(tmp_path, number=5)
    command = ["relion_image_handler", "--i", "particles.star", "--o", "out", "--new_box", "24"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert read_mrc(tmp_path / "particles_out.mrcs").shape == (5, 24, 24)
