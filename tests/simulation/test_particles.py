"""Particle stacks: signal-to-noise ratio, shifts, junk, normalisation and seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryopick.errors import ParameterError
from cryopick.image.masks import circle_mask
from cryopick.simulation.parameters import (
    MicroscopeParameters,
    ParticleSimulationParameters,
    SpecimenParameters,
)
from cryopick.simulation.particles import BATCH_SIZE, calibrate, simulate_particles
from cryopick.simulation.phantoms import make_phantom

BASE = {"number": 250, "box_size": 48, "pixel_size": 5.0}


@pytest.fixture(scope="module")
def models():
    return [make_phantom("ring"), make_phantom("small")]


def simulate(models, *, batch=0, **values):
    parameters = ParticleSimulationParameters(**(BASE | values))
    shared = {"specimen": SpecimenParameters(), "microscope": MicroscopeParameters()}
    scale = calibrate(models, parameters=parameters, **shared)
    made = simulate_particles(models, batch=batch, scale=scale, parameters=parameters, **shared)
    return made, scale


@pytest.mark.parametrize("snr", [0.05, 1.0])
def test_the_snr_is_signal_over_noise_inside_the_mask_after_the_ctf(models, snr):
    made, scale = simulate(models, snr=snr, junk_fraction=0.0)
    mask = circle_mask(48, radius=scale.mask_radius)

    signal = made.signal[:, mask].var(1).mean().item()
    assert signal == pytest.approx(snr, rel=0.15)  # the noise has variance 1
    outside = made.images[:, ~mask]
    torch.testing.assert_close(outside.mean(1), torch.zeros(250), atol=1e-4, rtol=0)
    torch.testing.assert_close(outside.std(1), torch.ones(250), atol=2e-2, rtol=0)


@pytest.mark.parametrize("coloured", [0.0, 0.3, 1.0])
def test_noise_has_variance_one_whatever_its_colour(models, coloured):
    made, _ = simulate(models, junk_fraction=0.0, coloured_noise=coloured, snr=1e-6)

    assert made.images.var().item() == pytest.approx(1, abs=0.02)


def test_images_are_white_particles_that_correlate_with_their_clean_projection(models):
    made, _ = simulate(models, snr=0.5, junk_fraction=0.0)

    both = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in zip(made.images, made.clean, strict=True)
    ]

    assert np.mean(both) > 0.15
    assert np.mean(np.array(both) > 0) > 0.98


def test_the_shift_brings_the_particle_to_the_centre(models):
    made, _ = simulate(models, shift=15.0, junk_fraction=0.0)
    clean = made.clean.double()
    steps = torch.arange(48).double() - 24
    total = clean.sum((1, 2))
    x = ((clean.sum(1) * steps).sum(1) / total).numpy() * 5.0
    y = ((clean.sum(2) * steps).sum(1) / total).numpy() * 5.0

    np.testing.assert_allclose(x + made.rows["shift_x"], 0, atol=0.5)
    np.testing.assert_allclose(y + made.rows["shift_y"], 0, atol=0.5)
    rms = np.sqrt((x**2 + y**2).mean())
    assert rms == pytest.approx(15, rel=0.1)


def test_junk_is_labelled_and_has_no_clean_projection(models):
    made, _ = simulate(models, junk_fraction=0.5)
    is_junk = made.rows["is_junk"].to_numpy() == 1

    assert is_junk.mean() == pytest.approx(0.5, abs=0.1)
    assert set(made.rows["state"]) == {
        "particle",
        "noise",
        "ice",
        "carbon",
        "aggregate",
        "neighbours",
    }
    assert made.clean[is_junk].abs().max() == 0
    assert made.clean[~is_junk].var((1, 2)).min() > 0.05
    assert (made.rows["class_number"][is_junk] == 0).all()
    species = np.array(["ring", "small"])[made.rows["class_number"][~is_junk] - 1]
    assert (species == made.rows["species"][~is_junk]).all()
    means = made.signal.mean((1, 2)).numpy()
    assert means[made.rows["state"] == "ice"].min() > means[~is_junk].max()


def test_images_of_one_micrograph_share_its_defocus(models):
    made, _ = simulate(models, per_micrograph=50)

    groups = made.rows.groupby("micrograph")
    assert (groups.size() == 50).all()
    assert (groups["defocus_u"].nunique() == 1).all()
    assert made.rows["defocus_u"].nunique() == 5
    assert (made.rows["defocus_u"] >= made.rows["defocus_v"]).all()


def test_a_longer_stack_begins_with_the_shorter_one(models):
    short, _ = simulate(models, number=30)
    long, _ = simulate(models, number=BATCH_SIZE + 10)
    rest, _ = simulate(models, number=BATCH_SIZE + 10, batch=1)

    assert len(short.images) == 30
    assert len(rest.images) == 10
    assert torch.equal(short.images, long.images[:30])
    assert not torch.equal(short.images[:10], rest.images)
    assert short.rows.equals(long.rows[:30])


def test_seeds_differ_and_threads_do_not_matter(models):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first, _ = simulate(models)
        torch.set_num_threads(4)
        second, _ = simulate(models)
    finally:
        torch.set_num_threads(before)

    other, _ = simulate(models, seed=1)
    assert torch.equal(first.images, second.images)
    assert not torch.equal(first.images, other.images)


def test_a_box_smaller_than_the_mask_is_refused(models):
    with pytest.raises(ParameterError, match=r"box_size must hold the mask of 176 A.*box-size 36"):
        simulate(models, box_size=32)
