"""Micrographs: truth at the particles, zeros at the CTF's, noise as the dose says, seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cryopick.ctf.evaluate import evaluate_ctf_profile
from cryopick.simulation.micrographs import render_particles, simulate_micrograph
from cryopick.simulation.microscope import interaction_constant
from cryopick.simulation.orientations import euler_matrices
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)
from cryopick.simulation.phantoms import make_phantom
from cryopick.simulation.placement import place_particles
from cryopick.simulation.projection import project

CLEAR = {"carbon_fraction": 0.0, "ice_blobs": 0.0, "aggregates": 0.0}
SMALL = {"width": 384, "height": 320, "pixel_size": 3.0, "particles": 12}


@pytest.fixture(scope="module")
def models():
    return [make_phantom("shell"), make_phantom("ring")]


def simulate(models, *, index=0, microscope=None, **values):
    return simulate_micrograph(
        models,
        index=index,
        specimen=SpecimenParameters(),
        microscope=MicroscopeParameters(**(microscope or {})),
        parameters=MicrographSimulationParameters(**(SMALL | values)),
    )


def test_the_truth_lies_at_the_centre_of_mass_of_each_particle(models):
    made = simulate(models, **CLEAR, particles=5)
    particles = made.particles[made.particles["state"] == "particle"]
    assert len(particles) >= 2

    for _, one in particles.iterrows():
        field = render_particles(
            models, particles[particles["x"] == one["x"]], shape=(320, 384), pixel_size=3.0
        )
        mass = field.double() / field.double().sum()
        y = float((mass.sum(1) * torch.arange(320)).sum())
        x = float((mass.sum(0) * torch.arange(384)).sum())
        assert (x, y) == pytest.approx((one["x"], one["y"]), abs=0.02)


def test_a_particle_is_dark_and_correlates_with_its_own_projection(models):
    made = simulate(models, **CLEAR, dose=2000.0)
    particles = made.particles[made.particles["state"] == "particle"]
    correlations = []
    for _, one in particles.iterrows():
        place = np.rint([one["y"], one["x"]]).astype(int)
        box = made.image[place[0] - 24 : place[0] + 24, place[1] - 24 : place[1] + 24]
        model = next(m for m in models if m.name == one["species"])
        clean = project(
            model,
            euler_matrices(np.array([[one["rot"], one["tilt"], one["psi"]]])),
            box_size=48,
            pixel_size=3.0,
            shifts_yx=np.array([[one["y"], one["x"]]]) - place,
        )[0]
        correlations.append(np.corrcoef(box.ravel(), clean.ravel())[0, 1])

    assert len(correlations) > 4
    assert max(correlations) < -0.3


def test_thon_rings_have_their_minima_at_the_zeros_of_the_ctf(models):
    lens = {"min_defocus": 15000.0, "max_defocus": 15000.0, "astigmatism": 0.0, "bfactor": 30.0}
    made = simulate(
        models,
        **CLEAR,
        microscope=lens,
        width=768,
        height=768,
        pixel_size=1.5,
        particles=0,
        structural_noise=4.0,
        ice_gradient=0.0,
    )
    power = torch.fft.rfft2(made.image - made.image.mean()).abs() ** 2
    ky = torch.fft.fftfreq(768, 1.5)[:, None]
    kx = torch.fft.rfftfreq(768, 1.5)[None]
    frequency = torch.sqrt(kx**2 + ky**2)
    rings = torch.round(frequency * 768 * 1.5 / 2).long()
    profile = torch.bincount(rings.ravel(), power.ravel()) / torch.bincount(rings.ravel())
    at = torch.arange(len(profile)) * 2 / (768 * 1.5)

    ctf2 = evaluate_ctf_profile(
        at, defocus=15000.0, voltage=300.0, spherical_aberration=2.7, amplitude_contrast=0.1
    )[0].square()

    for low, high in ((0.02, 0.06), (0.06, 0.09), (0.09, 0.12)):
        band = (at > low) & (at < high)
        both = torch.stack([profile[band].float(), ctf2[band].float()])
        assert torch.corrcoef(both)[0, 1] > 0.9


@pytest.mark.parametrize("dose", [20.0, 80.0])
def test_shot_noise_is_that_of_the_electrons_counted(models, dose):
    made = simulate(
        models,
        **CLEAR,
        particles=0,
        structural_noise=0.0,
        ice_thickness=0.0,
        dose=dose,
        detector_efficiency=0.5,
    )

    electrons = dose * 9.0
    assert made.image.mean().item() == pytest.approx(electrons, rel=0.01)
    assert made.image.var().item() == pytest.approx(electrons / 0.5, rel=0.02)


def test_a_series_does_not_depend_on_its_length_and_seeds_differ(models):
    first, again = simulate(models, index=3), simulate(models, index=3, number=50)
    other, next_one = simulate(models, index=3, seed=1), simulate(models, index=4)

    assert torch.equal(first.image, again.image)
    assert first.particles.equals(again.particles)
    for different in (other, next_one):
        assert not torch.equal(first.image, different.image)


def test_the_number_of_threads_does_not_matter(models):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = simulate(models)
        torch.set_num_threads(4)
        second = simulate(models)
    finally:
        torch.set_num_threads(before)

    assert torch.equal(first.image, second.image)


def test_only_whole_clear_particles_count_as_truth(models):
    made = simulate(
        models,
        carbon_fraction=1.0,
        ice_blobs=6.0,
        aggregates=6.0,
        width=1024,
        height=768,
        particles=200,
        separation=0.6,
    )
    particles, maps = made.particles, made.surroundings
    states = set(particles["state"])
    assert states == {"particle", "aggregate", "edge", "carbon", "ice"}

    good = particles[particles["state"] == "particle"]
    rows, columns = np.rint(good["y"]).astype(int), np.rint(good["x"]).astype(int)
    assert maps.carbon.numpy()[rows, columns].max() < 0.06
    assert maps.blobs.numpy()[rows, columns].max() < 61
    radius = good["diameter"] / 6
    assert (good["x"] - radius >= 0).all()
    assert (good["x"] + radius <= 1023).all()
    assert (good["y"] - radius >= 0).all()
    assert (good["y"] + radius <= 767).all()
    assert (particles["is_junk"] == (particles["state"] == "aggregate")).all()


def test_carbon_and_lumps_are_darker_than_ice(models):
    made = simulate(models, particles=0, carbon_fraction=1.0, ice_blobs=8.0, width=768, height=768)
    image, carbon, lumps = made.image, made.surroundings.carbon, made.surroundings.blobs

    ice = image[(carbon < 0.01) & (lumps == 0)].mean()
    assert image[(carbon > 0.99) & (lumps == 0)].mean() < 0.95 * ice
    assert image[(carbon < 0.01) & (lumps > 100)].mean() < 0.85 * ice


def test_an_empty_micrograph_has_no_particles_and_hot_pixels_are_hot(models):
    made = simulate(models, **CLEAR, particles=0, hot_pixels=5)

    assert made.particles.empty
    assert 1 <= int((made.image > 3 * made.image.median()).sum()) <= 5


@pytest.mark.parametrize("separation", [0.7, 1.0])
def test_particles_keep_their_distance(separation):
    places = place_particles(
        (600, 500),
        count=60,
        diameters=np.array([30.0, 60.0]),
        separation=separation,
        clumps=0.0,
        generator=np.random.default_rng(0),
    )

    sizes = np.array([30.0, 60.0])[places.species] * separation
    away = np.linalg.norm(places.yx[:, None] - places.yx, axis=2)
    np.fill_diagonal(away, np.inf)
    assert len(places.yx) > 40
    assert (away >= (sizes[:, None] + sizes) / 2).all()


def test_a_full_field_takes_no_more():
    places = place_particles(
        (100, 100),
        count=500,
        diameters=np.array([40.0]),
        separation=1.0,
        clumps=0.0,
        generator=np.random.default_rng(0),
    )

    assert 3 <= len(places.yx) < 12


def test_the_interaction_constant_falls_with_voltage_as_tabulated():
    assert interaction_constant(100.0) * 1e4 == pytest.approx(9.244, abs=0.01)
    assert interaction_constant(200.0) * 1e4 == pytest.approx(7.288, abs=0.01)
    assert math.isclose(interaction_constant(300.0) * 1e4, 6.526, abs_tol=0.01)
