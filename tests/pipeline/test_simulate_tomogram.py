"""Folders of simulated tomograms: readable, resumable, and with one truth in every form."""

from __future__ import annotations

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.errors import DataError, FormatError, ProjectError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.volumes import open_volume
from cryopick.pipeline.evaluate_tomograms import evaluate_tomogram_files, read_tomogram_truth
from cryopick.pipeline.simulate_tomogram import SimulatedTomograms, simulate_tomograms
from cryopick.simulation.parameters import SpecimenParameters
from cryopick.simulation.tomograms_parameters import TomogramSimulationParameters
from cryopick.tables.tomogram_formats import read_tomogram_picks
from cryopick.tables.tomogram_star import read_relion_tomograms

SMALL = {"width": 60, "height": 64, "depth": 40, "particles": 5, "voxel_size": 10.0, "number": 2}


def simulate(folder: Path, *, overwrite: bool = False, **values: object) -> SimulatedTomograms:
    return simulate_tomograms(
        folder,
        specimen=SpecimenParameters(phantoms="small,shell"),
        parameters=TomogramSimulationParameters(**(SMALL | values)),  # type: ignore[arg-type]
        compute=ComputeParameters(workers=1, threads=1),
        overwrite=overwrite,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tomograms") / "set"
    simulate(folder, gold=1, gold_diameter=60.0)
    return folder


def test_volumes_have_their_size_voxel_size_and_labels(folder: Path) -> None:
    truth = read_tomogram_truth(folder)

    assert sorted(truth.volumes) == ["sim_00001", "sim_00002"]
    for name, path in truth.volumes.items():
        volume = open_volume(path)
        assert volume.shape == (40, 64, 60)
        assert volume.voxel_size == pytest.approx(10)
        labels = mrcfile.read(truth.label_volumes[name])
        assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert mrcfile.validate(truth.volumes["sim_00001"])
    assert truth.labels == {"small": 1, "shell": 2, "gold": 3, "membrane": 4}


def test_every_particle_lies_on_its_own_label(folder: Path) -> None:
    truth = read_tomogram_truth(folder)
    voxels = np.round(truth.picks.in_voxels()).astype(int)

    for row, voxel in zip(truth.picks.rows.itertuples(), voxels, strict=True):
        labels = mrcfile.read(truth.label_volumes[str(row.tomogram)])
        away = np.argwhere(labels == truth.labels[str(row.species)]) - voxel
        near = away[np.linalg.norm(away, axis=1) <= float(str(row.diameter)) / 20 + 1]
        assert len(near) > 50
        assert np.abs(near.mean(axis=0)).max() < 1
    for row in truth.gold.itertuples():
        z, y, x = np.round(np.array([row.z, row.y, row.x], float) / 10).astype(int)
        assert mrcfile.read(truth.label_volumes[str(row.tomogram)])[z, y, x] == 3


def test_star_and_json_are_one_truth(folder: Path) -> None:
    truth = read_tomogram_truth(folder)
    tomograms = read_relion_tomograms(folder / "tomograms.star")

    picks = read_tomogram_picks(folder / "truth.star", tomograms=tomograms)

    assert tomograms.to_dict("list") == truth.picks.tomograms.to_dict("list")
    axes = ["x", "y", "z"]
    np.testing.assert_allclose(picks.rows[axes], truth.picks.rows[axes], atol=1e-3)
    assert evaluate_tomogram_files(folder / "truth.star", folder, distance=1.0).f1 == 1


def test_more_tomograms_leave_the_first_as_they_are(folder: Path, tmp_path: Path) -> None:
    simulate(tmp_path, number=1, gold=1, gold_diameter=60.0)
    first = (tmp_path / "tomograms" / "sim_00001.mrc").stat().st_mtime_ns

    simulate(tmp_path, number=2, gold=1, gold_diameter=60.0)

    assert (tmp_path / "tomograms" / "sim_00001.mrc").stat().st_mtime_ns == first
    for name in ("truth.json", "tomograms/sim_00002.mrc"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_other_parameters_need_overwrite(tmp_path: Path) -> None:
    simulate(tmp_path, number=1)

    with pytest.raises(ProjectError, match=r"snr 0\.2 instead of 0\.3"):
        simulate(tmp_path, number=1, snr=0.3)
    simulate(tmp_path, number=1, snr=0.3, overwrite=True)


def test_commands_make_and_score_a_set(tmp_path: Path) -> None:
    words = [str(w) for k, v in SMALL.items() for w in (f"--{k.replace('_', '-')}", v)]
    make = ["simulate", "tomogram", "--out", str(tmp_path / "a"), *words, "--number", "1"]
    made = CliRunner().invoke(app, [*make, "--phantoms", "small", "--workers", "1", "--json"])
    assert made.exit_code == 0
    assert json.loads(made.stdout)["n_particles"] == 5

    score = ["evaluate", "tomogram", str(tmp_path / "a" / "truth.star")]
    scored = CliRunner().invoke(app, [*score, "--truth", str(tmp_path / "a")])

    assert scored.exit_code == 0
    assert "5 picks, 5 particles, 5 matched" in scored.stdout


def test_too_many_particles_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    words = ["--particles", "900", "--depth", "32", "--width", "64", "--height", "64"]

    result = CliRunner().invoke(app, ["simulate", "tomogram", "--out", f"{tmp_path}/a", *words])

    assert result.exit_code == 1
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("content", [None, "{", '{"tomograms": []}', '{"micrographs": {}}'])
def test_what_is_no_truth_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "truth.json").write_text(content)

    with pytest.raises(FormatError, match=r"must be the truth\.json of a simulation"):
        read_tomogram_truth(tmp_path)


def test_a_tomogram_without_room_is_told_and_the_others_are_kept(tmp_path: Path) -> None:
    # so full that with this seed the second tomogram finds no place for its last particle
    parameters = TomogramSimulationParameters(
        width=40, height=36, depth=32, particles=51, number=2, seed=0
    )

    with pytest.raises(DataError, match=r"sim_00002 must be simulated; got an error \(particles"):
        simulate_tomograms(
            tmp_path,
            specimen=SpecimenParameters(phantoms="small"),
            parameters=parameters,
            compute=ComputeParameters(workers=1, threads=1),
        )

    assert [p.name for p in (tmp_path / "tomograms").iterdir()] == ["sim_00001.mrc"]
    assert not (tmp_path / "truth.json").exists()
