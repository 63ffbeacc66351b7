"""Phantoms: symmetric, of protein's mass, always the same; and models from files' contents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from cryopick.errors import DataError, ParameterError
from cryopick.simulation.models import model_from_atoms, model_from_map
from cryopick.simulation.orientations import euler_matrices, point_group
from cryopick.simulation.phantoms import make_phantom, phantom_names
from cryopick.simulation.projection import project, render_volume
from cryopick.simulation.shapes import SHAPES

EXTENTS = {
    "barrel": (115, 115, 150),
    "shell": (120, 120, 120),
    "rod": (200, 55, 55),
    "small": (70, 60, 55),
    "asymmetric": (200, 190, 170),
    "ring": (130, 130, 80),
    "tetramer": (160, 130, 75),
    "cage": (130, 130, 130),
    "hollow": (130, 130, 160),
    "globule": (240, 230, 205),
    "dumbbell": (210, 100, 100),
}


@pytest.mark.parametrize("name", phantom_names())
def test_every_phantom_is_invariant_under_its_group(name):
    model = make_phantom(name)
    points = model.positions.double().numpy()
    tree = cKDTree(points)

    for element in point_group(model.symmetry):
        distance, partner = tree.query(points @ element.T)
        assert distance.max() < 1e-3
        assert len(set(partner.tolist())) == len(points)


@pytest.mark.parametrize("name", phantom_names())
def test_every_phantom_has_its_size(name):
    points = make_phantom(name).positions

    extent = (points.max(0).values - points.min(0).values).tolist()

    assert extent == pytest.approx(EXTENTS[name], rel=0.1)


@pytest.mark.parametrize("name", ["barrel", "small", "rod"])
def test_residues_lie_in_the_shape_as_densely_as_protein(name):
    model = make_phantom(name)
    residues = model.positions.double().numpy()
    box = np.array(SHAPES[name].half_widths)
    probes = np.random.default_rng(0).uniform(-box, box, (20000, 3))
    volume = SHAPES[name].contains(probes).mean() * np.prod(2 * box)

    density = len(residues) * 110 / 0.6022 / volume  # g/ml

    # 1.35 g/ml, less the share of the clefts
    assert 0.75 * 1.35 < density < 1.4


def test_a_phantom_is_always_the_same_and_another_seed_is_another():
    first, again = make_phantom("ring"), make_phantom("ring")
    other = make_phantom("ring", seed=1)

    assert torch.equal(first.positions, again.positions)
    count = min(len(first.positions), len(other.positions))
    assert not torch.equal(first.positions[:count], other.positions[:count])


def test_a_larger_phantom_has_more_residues_in_proportion_to_its_volume():
    small, large = make_phantom("shell", diameter=100), make_phantom("shell", diameter=150)

    assert small.diameter == pytest.approx(100, rel=0.05)
    assert large.diameter == pytest.approx(150, rel=0.05)
    ratio = len(large.positions) / len(small.positions)
    assert ratio == pytest.approx(1.5**3, rel=0.1)


def test_two_views_of_a_symmetric_phantom_are_one_image():
    model = make_phantom("barrel")
    view = euler_matrices(np.array([[20.0, 50.0, 0.0]]))
    seventh = euler_matrices(np.array([[360 / 7, 0.0, 0.0]]))

    images = project(model, np.concatenate([view, view @ seventh]), box_size=64, pixel_size=4.0)

    assert (images[0] - images[1]).abs().max() < 0.01 * images[0].max()


@pytest.mark.parametrize(
    ("name", "diameter", "message"),
    [
        ("teapot", None, "phantom must be one of barrel"),
        ("shell", 10.0, "diameter must be at least 30 A"),
        ("shell", float("nan"), "diameter must be at least 30 A"),
    ],
)
def test_what_is_no_phantom_is_refused(name, diameter, message):
    with pytest.raises(ParameterError, match=message):
        make_phantom(name, diameter=diameter)


def test_atoms_become_points_round_their_centre_of_mass():
    positions = np.array([[10.0, 0, 0], [30.0, 0, 0]])

    model = model_from_atoms(positions, np.array([30.0, 10.0]), np.array([False, True]), name="two")

    # the second is of RNA: 1.5 times the contrast of its mass
    assert (model.weights[1] / model.weights[0]).item() == pytest.approx(0.5)
    moment = (model.positions * model.weights[:, None]).sum(0)
    torch.testing.assert_close(moment, torch.zeros(3), atol=1e-3, rtol=0)


def test_a_map_becomes_a_model_with_the_same_projection():
    volume = render_volume(make_phantom("tetramer"), box_size=64, pixel_size=4.0)

    model = model_from_map(7 * volume.numpy(), pixel_size=4.0, name="map")

    image = project(model, np.eye(3)[None], box_size=64, pixel_size=4.0)[0]
    expected = volume.sum(0) * 4.0
    both = np.corrcoef(image.numpy().ravel(), expected.numpy().ravel())
    assert both[0, 1] > 0.97
    assert image.sum().item() == pytest.approx(expected.sum().item(), rel=0.5)


def test_a_map_without_density_is_refused():
    with pytest.raises(DataError, match="the map must have positive density"):
        model_from_map(-np.ones((8, 8, 8), np.float32), pixel_size=1.0, name="none")
