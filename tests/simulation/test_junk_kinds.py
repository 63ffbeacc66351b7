"""Junk and crowds: what each kind holds, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryopick.errors import ParameterError
from cryopick.simulation.bodies import draw_bodies
from cryopick.simulation.copies import Copies, copies_in_pairs, copies_in_the_crowd
from cryopick.simulation.field_edges import cut_at_edges
from cryopick.simulation.orientations import draw_angles, euler_matrices
from cryopick.simulation.parameters import (
    JUNK_KINDS,
    MicroscopeParameters,
    ParticleSimulationParameters,
    SpecimenParameters,
)
from cryopick.simulation.particles import calibrate, simulate_particles
from cryopick.simulation.phantoms import make_phantom

BASE = {"number": 500, "box_size": 48, "pixel_size": 5.0, "junk_fraction": 0.5}
ALL = ",".join(JUNK_KINDS)


@pytest.fixture(scope="module")
def models():
    return [make_phantom("ring"), make_phantom("small")]


def simulate(models, *, batch=0, **values):
    parameters = ParticleSimulationParameters(**(BASE | values))
    shared = {"specimen": SpecimenParameters(), "microscope": MicroscopeParameters()}
    scale = calibrate(models, parameters=parameters, **shared)
    return simulate_particles(models, batch=batch, scale=scale, parameters=parameters, **shared)


def centred_particles(models, count):
    draw = np.random.default_rng(5)
    return Copies(
        image_index=np.arange(count),
        species=draw.integers(len(models), size=count),
        rotations=euler_matrices(draw_angles(count, generator=draw)),
        shifts_yx=draw.normal(0, 2, (count, 2)),
    )


def test_stacks_are_those_of_the_time_before_crowds_and_new_junk(models):
    made = simulate(models)

    words = ["aggregate", "particle", "carbon", "neighbours", "aggregate", "neighbours", "particle"]
    assert made.rows["state"].tolist()[:7] == words
    # made with the commit before
    np.testing.assert_allclose(
        made.images[:4, 24, 24], [0.405245, 1.105793, -0.479612, 1.482900], atol=1e-3
    )
    np.testing.assert_allclose(made.images[1:4, 10, 30], [0.098802, 1.981213, 0.453267], atol=1e-3)


def test_a_crowd_changes_images_but_neither_truth_nor_labels(models):
    alone, crowded = simulate(models), simulate(models, crowding=1.5)

    assert torch.equal(alone.clean, crowded.clean)
    assert np.array_equal(alone.rotations, crowded.rotations)
    assert alone.rows.equals(crowded.rows)
    changed = (alone.signal - crowded.signal).abs().amax((1, 2)) > 0.1 * alone.signal.std()
    assert 0.6 < changed.double().mean() < 0.9  # without company are exp(-1.5) of them: 0.22


def test_new_kinds_of_junk_leave_particles_as_they_were(models):
    before, after = simulate(models), simulate(models, junk_kinds=ALL)
    good = before.rows["state"].to_numpy() == "particle"

    assert np.array_equal(good, after.rows["state"].to_numpy() == "particle")
    assert torch.equal(before.clean, after.clean)
    torch.testing.assert_close(before.signal[good], after.signal[good], rtol=0, atol=1e-5)


def test_the_kinds_asked_for_appear_in_equal_shares(models):
    states = np.concatenate(
        [
            simulate(models, batch=b, junk_kinds=ALL, junk_fraction=1.0).rows["state"]
            for b in range(2)
        ]
    )

    counts = np.array([(states == kind).sum() for kind in JUNK_KINDS])
    assert counts.sum() == 500
    assert (((counts - 500 / 9) ** 2) / (500 / 9)).sum() < 27  # chi square, 8 degrees: p 0.001
    only = simulate(models, junk_kinds="gold, edge", junk_fraction=1.0)
    assert set(only.rows["state"]) == {"gold", "edge"}


def test_gold_is_the_strongest_thing_in_the_stack_and_has_fringes(models):
    made = simulate(models, junk_kinds=ALL, junk_fraction=0.8, snr=1.0)
    is_gold = made.rows["state"].to_numpy() == "gold"
    highest, lowest = made.signal.amax((1, 2)), made.signal.amin((1, 2))

    assert highest[is_gold].median() > highest[~is_gold].max()
    assert highest[is_gold].min() > highest[made.rows["state"].to_numpy() == "particle"].max()
    assert lowest[is_gold].median() < 3 * lowest[~is_gold].median()


def test_a_bead_is_60_to_120_angstrom_wide_and_far_denser_than_protein(models):
    states = np.full(40, "gold", dtype=object)
    parameters = ParticleSimulationParameters(**BASE)

    bodies = draw_bodies(
        states,
        np.zeros(40, np.int64),
        models,
        parameters,
        size=96,
        generator=np.random.default_rng(0),
    )

    area = (bodies.density > 0).sum((1, 2)) * 25.0
    widths = 2 * torch.sqrt(area / np.pi)
    assert widths.min() > 55
    assert widths.max() < 125
    middle = bodies.density.amax((1, 2)) / widths  # V
    assert middle.min() > 15  # protein: 2.5 V


def test_a_blob_weighs_as_much_as_its_particle_and_has_no_fine_features(models):
    states = np.full(40, "blob", dtype=object)
    species = np.arange(40) % 2
    bodies = draw_bodies(
        states,
        species,
        models,
        ParticleSimulationParameters(**BASE),
        size=96,
        generator=np.random.default_rng(0),
    )

    masses = bodies.density.sum((1, 2)).numpy() * 25.0
    true = np.array([float(m.weights.sum()) for m in models])[species]
    assert (masses / true).min() > 0.69
    assert (masses / true).max() < 1.31
    made = simulate(models, junk_kinds="blob", snr=1.0, per_micrograph=500)
    is_blob = made.rows["state"].to_numpy() == "blob"
    power = torch.fft.rfft2(made.signal).abs() ** 2
    frequency = torch.hypot(torch.fft.fftfreq(48, 5.0)[:, None], torch.fft.rfftfreq(48, 5.0))
    fine = power[:, frequency > 1 / 25].sum(1) / power.sum((1, 2))
    assert fine[is_blob].mean() < 0.3 * fine[~is_blob].mean()
    strength = made.signal[is_blob].std() / made.signal[~is_blob].std()
    assert 0.3 < strength < 1.5


def test_beyond_an_edge_every_pixel_is_a_filling_and_within_it_nothing_changes():
    noise = torch.randn(60, 40, 40, generator=torch.Generator().manual_seed(0))
    index = np.arange(0, 60, 2)

    cut = cut_at_edges(noise, index, generator=np.random.default_rng(0))

    assert torch.equal(cut[1::2], noise[1::2])
    lost = cut[index] != noise[index]
    share = lost.double().mean((1, 2))
    assert share.min() >= 0.2
    assert share.max() <= 1 - 0.45**2
    # a filling is even along at least one axis, noise along none
    even = (cut[index].diff(dim=1) == 0)[:, :, 1:] | (cut[index].diff(dim=2) == 0)[:, 1:]
    assert (even.double().mean((1, 2)) > 0.8 * share).all()
    both = lost[:, 1:, 1:] & even
    assert both.sum() > 0.9 * even.sum()


def test_two_that_overlap_lie_on_opposite_sides_at_half_a_diameter_or_less(models):
    centred = centred_particles(models, 300)
    diameters = np.array([m.diameter for m in models]) / 5.0
    images = np.arange(0, 300, 3)

    pair = copies_in_pairs(images, centred, diameters, np.random.default_rng(0))

    assert pair.image_index.tolist() == [*images, *images]
    offsets = (pair.shifts_yx - centred.shifts_yx[pair.image_index]).reshape(2, -1, 2)
    size = diameters[centred.species[images]]
    away = np.linalg.norm(offsets, axis=2) / size
    assert away.min() >= 0.25
    assert away.max() <= 0.55
    assert (np.linalg.norm(offsets[0] - offsets[1], axis=1) / size).max() <= 0.8 + 1e-9
    assert ((offsets[0] * offsets[1]).sum(1) < 0).mean() > 0.95


def test_a_crowd_has_the_number_and_distances_asked_for(models):
    centred = centred_particles(models, 400)
    none = copies_in_pairs(np.empty(0, np.int64), centred, np.ones(2), np.random.default_rng(0))

    crowd = copies_in_the_crowd(
        1.5,
        centred,
        none,
        models,
        pixel_size=5.0,
        preferred_fraction=0.0,
        generator=np.random.default_rng(0),
    )

    assert len(crowd.species) / 400 == pytest.approx(1.5, rel=0.15)
    assert set(crowd.species.tolist()) == {0, 1}
    diameters = np.array([m.diameter for m in models]) / 5.0
    reach = (diameters[crowd.species] + diameters[centred.species[crowd.image_index]]) / 2
    offsets = crowd.shifts_yx - centred.shifts_yx[crowd.image_index]
    away = np.linalg.norm(offsets, axis=1) / reach
    assert away.min() >= 0.95
    assert away.max() <= 1.6
    for image in np.unique(crowd.image_index):
        mine = np.flatnonzero(crowd.image_index == image)
        apart = np.linalg.norm(crowd.shifts_yx[mine, None] - crowd.shifts_yx[mine], axis=2)
        least = 0.45 * (diameters[crowd.species[mine]][:, None] + diameters[crowd.species[mine]])
        assert (apart >= least)[~np.eye(len(mine), dtype=bool)].all()


@pytest.mark.parametrize(("given", "shown"), [("gold,dust,foam", "dust, foam"), (" , ", "none")])
def test_unknown_junk_is_refused_in_one_sentence(given, shown):
    with pytest.raises(
        ParameterError, match=f"junk_kinds must be among noise, .*overlap; got {shown}"
    ):
        ParticleSimulationParameters(junk_kinds=given)
