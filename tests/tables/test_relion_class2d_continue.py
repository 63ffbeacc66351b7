"""RELION itself goes on from our Class2D files, and their numbers are on its scale."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.io.mrc import read_mrc_images, write_mrc
from cryopick.io.star import read_star, read_star_labels
from cryopick.tables.classification import (
    Classification,
    ModelValues,
    OptimiserValues,
    SamplingValues,
    group_by_micrograph,
)
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles
from cryopick.tables.relion_class2d import read_classification, write_classification

needs_relion = pytest.mark.skipif(
    shutil.which("relion_refine") is None, reason="no relion programs on PATH"
)


@pytest.mark.data
def test_spectra_have_the_scale_of_relion(test_data):
    """Signal power from the averages, signal-to-noise from it: within what the mask takes away."""
    folder = test_data / "relion5" / "Class2D" / "job003"
    back = read_classification(folder)
    spectra = back.spectra[back.spectra["class_number"] == 15]
    average = read_mrc_images(folder / "run_it025_classes.mrcs", np.array([14]))[0]

    rings = slice(3, 11)
    power = ring_means(np.abs(np.fft.fft2(average)) ** 2)[rings] / (2 * 64**4)

    assert 0.7 < np.median(power / spectra["tau2"][rings]) < 1.1
    product = back.model.tau2_fudge * spectra["tau2"] / spectra["sigma2"]
    np.testing.assert_allclose(spectra["ssnr"][rings], product[rings], rtol=1e-4)


def ring_means(power: np.ndarray) -> np.ndarray:
    """Mean over the rings 0 ... n // 2 of an unshifted transform (..., n, n)."""
    n = power.shape[-1]
    k = np.fft.fftfreq(n, 1 / n)
    radius = np.rint(np.hypot(k[:, None], k)).astype(int)
    return np.stack([power[..., radius == r].mean(axis=-1) for r in range(n // 2 + 1)], axis=-1)


def run(command: str) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def two_plain_means(folder: Path, *, first: int = 80) -> Classification:
    """Iteration 1 of two classes, even and odd, of 60 particles; from 80 on of two micrographs."""
    whole = read_particles(folder / "particles.star")
    rng = np.random.default_rng(8)
    rows = whole.rows.iloc[first : first + 60].reset_index(drop=True)
    images = read_mrc_images(folder / "particles.mrcs", rows["image_index"].to_numpy())
    write_mrc(Path("few.mrcs"), images, pixel_size=4.0)
    means = np.stack([images[0::2].mean(axis=0), images[1::2].mean(axis=0)])
    write_mrc(Path("out/run_it001_classes.mrcs"), means, pixel_size=4.0)
    rows = rows.assign(
        image="few.mrcs",
        image_index=np.arange(60),
        class_number=np.arange(60) % 2 + 1,
        psi=rng.uniform(-180, 180, 60),
        shift_x=rng.normal(size=60),
        shift_y=rng.normal(size=60),
        log_likelihood=0.0,
        max_probability=0.5,
        n_significant=3,
    )
    rows.loc[7, "class_number"] = 0
    particles, groups = group_by_micrograph(Particles(rows=rows, optics=whole.optics))
    noise = ring_means(np.abs(np.fft.fft2(images)) ** 2).mean(axis=0) / (2 * 64**4)
    tau2 = ring_means(np.abs(np.fft.fft2(means)) ** 2) / (2 * 64**4)
    number, ring = np.repeat([1, 2, 3], 33), np.tile(np.arange(33), 3)
    power = np.concatenate([*tau2, np.zeros(33)])
    return Classification(
        particles=particles,
        groups=groups,
        classes=pd.DataFrame(  # the third is empty
            {
                "image": "out/run_it001_classes.mrcs",
                "image_index": [0, 1, 0],
                "distribution": [0.5, 0.5, 0.0],
                "completeness": [1.0, 1.0, np.nan],
                "particle_count": [30, 29, 0],
                "entropy": [0.5, 0.25, 0.0],
            }
        ),
        spectra=pd.DataFrame(
            {
                "class_number": number,
                "spectral_index": ring,
                "ssnr": 60 * power / np.tile(noise, 3),
                "sigma2": np.tile(noise / 30, 3),
                "tau2": power,
            }
        ),
        noise=pd.DataFrame({"optics_group": 1, "spectral_index": np.arange(33), "sigma2": noise}),
        model=ModelValues(box_size=64, pixel_size=4.0, current_resolution=32.0, current_size=36),
        sampling=SamplingValues(psi_step=24.0, offset_range=8.0, offset_step=8.0),
        optimiser=OptimiserValues(
            iteration=1,
            n_iterations=2,
            random_seed=1,
            particle_diameter=230.0,
            oversampling=0,
            corrects_scale=False,
        ),
    )


REFINE = (
    "--iter 1 --K 2 --particle_diameter 230 --ctf --norm --scale --zero_mask --psi_step 24"
    " --offset_range 2 --offset_step 2 --oversampling 0 --tau2_fudge 2 --pool 30 --j 1"
    " --random_seed 1 --dont_combine_weights_via_disc"
)


@pytest.mark.relion
@pytest.mark.data
@needs_relion
def test_relion_refines_our_particles_with_our_averages(test_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = two_plain_means(test_data / "stacks" / "groel_es")
    write_classification("out/run_it001", ours)
    Path("next").mkdir()

    run(
        f"relion_refine --i out/run_it001_data.star --o next/run {REFINE}"
        " --ref out/run_it001_classes.mrcs"
    )

    back = read_classification(Path("next"))
    assert len(back.particles) == 60
    images = sorted(ours.particles.rows["image_index"])
    assert sorted(back.particles.rows["image_index"]) == images
    theirs = read_star_labels(Path("next/run_it001_data.star"))
    assert theirs["particles"] == read_star_labels(Path("out/run_it001_data.star"))["particles"]
    ratio = back.noise["sigma2"].to_numpy() / ours.noise["sigma2"].to_numpy()
    share_inside_mask = np.pi * (115 / 4 + 2.5) ** 2 / 64**2
    np.testing.assert_allclose(np.median(ratio[20:30]), share_inside_mask, rtol=0.1)


@pytest.mark.relion
@pytest.mark.data
@needs_relion
def test_relion_continues_an_iteration_of_ours(test_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = two_plain_means(test_data / "stacks" / "groel_es")
    write_classification("out/run_it001", ours, relion_version="3.1", command="class2d em")

    run("relion_refine --continue out/run_it001_optimiser.star --o out/run --iter 2 --j 1")

    back = read_classification(Path("out"))
    assert back.optimiser is not None
    assert back.optimiser.iteration == 2
    assert len(back.particles) == 60
    assert set(back.particles.rows["class_number"]) == {1, 2}  # none in the empty class
    assert back.classes["distribution"].sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.relion
@pytest.mark.data
@needs_relion
def test_relion_goes_on_from_our_copy_of_its_files_as_from_its_own(
    test_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ours = two_plain_means(test_data / "stacks" / "groel_es", first=0)
    write_classification("out/run_it001", ours)
    for name in ("theirs", "copy"):
        Path(name).mkdir()
    run(f"relion_refine --i out/run_it001_data.star --o theirs/run {REFINE}")
    shutil.copy("theirs/run_it001_classes.mrcs", "copy")

    write_classification(
        "copy/run_it001", read_classification(Path("theirs")), relion_version="3.1"
    )
    for name in ("theirs", "copy"):
        run(f"relion_refine --continue {name}/run_it001_optimiser.star --o {name}/run --iter 2")

    written = [read_star(Path(f"{n}/run_it002_data.star"))["particles"] for n in ("theirs", "copy")]
    pd.testing.assert_frame_equal(*written, rtol=1e-4, atol=1e-4)
