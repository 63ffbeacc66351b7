"""The diameter that explains most is that of the particles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.errors import DataError
from cryopick.image.fourier import frequency_grid
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.blob_shapes import blob_filters
from cryopick.picking.diameter import (
    DiameterTrial,
    candidate_diameters,
    choose_diameter,
    try_diameter,
)
from cryopick.simulation.micrographs import simulate_micrograph
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)
from cryopick.simulation.phantoms import make_phantom


def simulated_field(phantom):
    models = [make_phantom(phantom)]
    parameters = MicrographSimulationParameters(
        width=800, height=800, pixel_size=3.0, particles=90, ice_blobs=0, carbon_fraction=0
    )
    microscope = MicroscopeParameters()
    made = simulate_micrograph(
        models,
        index=0,
        specimen=SpecimenParameters(phantoms=phantom),
        microscope=microscope,
        parameters=parameters,
    )
    focus = made.defocus
    ctf = FieldCtf(focus.defocus_u, focus.defocus_v, focus.defocus_angle, 300.0, 2.7, 0.1)
    return made.image, ctf, models[0].diameter


def trial(n_picks, gain, *, apart=1000.0):
    x = apart * np.arange(n_picks, dtype=np.float64)
    return DiameterTrial(np.column_stack([x, np.zeros(n_picks)]), gain)


def estimate(image, ctf, pixel_size):
    candidates = candidate_diameters(tuple(image.shape), pixel_size)
    settings = {"pixel_size": pixel_size, "parameters": BlobParameters(), "ctf": ctf}
    return choose_diameter(candidates, [[try_diameter(image, d, **settings) for d in candidates]])


def test_the_diameter_of_simulated_shells_is_found():
    image, ctf, diameter = simulated_field("shell")

    found = estimate(image, ctf, 3.0)

    assert found.diameter == pytest.approx(diameter, rel=0.15)
    assert found.min_diameter < diameter < found.max_diameter
    assert found.n_picks.max() >= 20


def test_the_diameter_of_four_domains_is_not_that_of_one():
    image, ctf, diameter = simulated_field("tetramer")

    found = estimate(image, ctf, 3.0)

    assert found.is_part[0]
    assert found.diameter > 0.6 * diameter  # of the sphere that holds it


@pytest.mark.parametrize("diameter", [120.0, 180.0])
def test_the_diameter_of_balls_in_white_noise_is_found(diameter):
    """No lens and no structure: what is left is the size."""
    fy, fx = frequency_grid((500, 500), pixel_size=4.0)
    *_, ball = blob_filters(fy, fx, shapes=("ball",), min_diameter=diameter, max_diameter=diameter)
    random, kept = np.random.default_rng(0), []
    points = torch.zeros(500, 500)
    for y, x in random.uniform(30, 470, (2000, 2)):
        if len(kept) < 40 and all(np.hypot(y - b, x - a) > 1.3 * diameter / 4 for b, a in kept):
            kept.append((y, x))
            points[int(y), int(x)] = 1
    image = torch.fft.irfft2(torch.fft.rfft2(points) * ball.transfer, s=(500, 500))
    noise = torch.randn(500, 500, generator=torch.Generator().manual_seed(0))

    found = estimate(noise - 1.2 * image / image.max(), None, 4.0)

    assert found.diameter == pytest.approx(diameter, rel=0.15)
    assert found.min_diameter < diameter < found.max_diameter


def test_noise_has_no_diameter():
    noise = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))

    with pytest.raises(DataError, match="show 20 particles of one size"):
        estimate(noise, None, 6.0)


def test_a_few_strong_lumps_do_not_decide():
    candidates = [100.0, 120.0, 144.0, 172.8]
    trials = [[trial(80, 300.0), trial(70, 200.0), trial(30, 100.0), trial(12, 5000.0)]]

    assert choose_diameter(candidates, trials).diameter == 100.0


def test_parts_of_particles_do_not_decide():
    """Four picks in each of 50 particles explain more, but those of twice the size gather them."""
    wholes = trial(50, 500.0)
    corners = 40.0 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    parts = DiameterTrial((wholes.positions[:, None] + corners).reshape(-1, 2), 2000.0)

    found = choose_diameter([100.0, 140.0, 196.0], [[parts, trial(0, 0.0), wholes]])

    assert found.is_part.tolist() == [True, False, False]
    assert found.diameter == 196.0
    assert "the largest diameter tried, 196 A" in found.warnings[0]


def test_the_diameter_of_a_cage_is_not_that_of_its_bars():
    image, ctf, diameter = simulated_field("cage")

    found = estimate(image, ctf, 3.0)

    assert found.is_part[0]
    assert found.min_diameter < diameter < found.max_diameter


def test_a_parabola_finds_the_maximum_between_candidates():
    candidates = [100 * 1.2**i for i in range(5)]
    truth = np.log(candidates[2]) + 0.3 * np.log(1.2)
    gains = [1000 - 2000 * (np.log(c) - truth) ** 2 for c in candidates]
    trials = [[trial(50, g) for g in gains]]

    assert np.log(choose_diameter(candidates, trials).diameter) == pytest.approx(truth)


def test_a_field_too_small_for_a_choice_is_refused():
    with pytest.raises(DataError, match="have a side of 600 A to estimate a diameter in"):
        candidate_diameters((100, 100), 4.0)
