"""Random particles: symmetric, in one piece, of a protein's size and mass, each its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from cryopick.errors import ParameterError
from cryopick.simulation.orientations import point_group
from cryopick.simulation.phantoms import make_phantom
from cryopick.simulation.random_shapes import draw_shape

SEEDS = {0: "C2", 2: "C3", 4: "O", 6: "C1", 9: "D3", 21: "T", 22: "D4", 26: "C4"}


@pytest.mark.parametrize(("seed", "symmetry"), SEEDS.items())
def test_a_random_particle_is_invariant_in_one_piece_and_like_a_protein(seed, symmetry):
    model = make_phantom("random", seed=seed)
    points = model.positions.double().numpy()
    tree = cKDTree(points)

    assert model.symmetry == symmetry
    for element in point_group(symmetry):
        distance, partner = tree.query(points @ element.T)
        assert distance.max() < 1e-3
        assert len(set(partner.tolist())) == len(points)
    links = tree.sparse_distance_matrix(tree, 9.0)  # residues 9 A apart touch
    _, piece = connected_components(links)
    assert np.bincount(piece).max() > 0.99 * len(points)
    assert 80 <= model.diameter <= 260
    assert 40 < len(points) * 0.11 < 3000  # kDa
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(points.T)))
    assert spread[0] > 7  # A: no sheet, no thread


def test_many_shapes_differ_and_low_symmetries_are_the_most_frequent():
    shapes = [draw_shape(np.random.default_rng([seed])) for seed in range(120)]

    groups = [shape.symmetry for shape in shapes]
    assert len(set(groups)) >= 9
    assert groups.count("C1") + groups.count("C2") > 0.3 * len(groups)
    assert len({shape.half_widths for shape in shapes}) == len(shapes)
    longest = np.array([max(shape.half_widths) for shape in shapes])
    shortest = np.array([min(shape.half_widths) for shape in shapes])
    assert np.quantile(longest / shortest, 0.9) > 1.7  # some are long or flat
    assert np.quantile(longest / shortest, 0.1) < 1.2  # and some are round


def test_the_shape_has_the_symmetry_before_it_is_filled():
    shape = draw_shape(np.random.default_rng([4]))
    box = max(shape.half_widths)
    points = np.random.default_rng(0).uniform(-box, box, (5000, 3))
    inside = shape.contains(points)

    assert 0.02 < inside.mean() < 0.9
    for element in point_group(shape.symmetry):
        assert (shape.contains(points @ element.T) == inside).mean() > 0.999
    outside = np.abs(points) > np.array(shape.half_widths)
    assert not inside[outside.any(axis=1)].any()


def test_name_and_seed_both_choose_the_shape():
    first, again = make_phantom("random1", seed=3), make_phantom("random1", seed=3)
    others = [make_phantom("random1", seed=4), make_phantom("random2", seed=3)]

    assert torch.equal(first.positions, again.positions)
    assert all(abs(first.diameter - other.diameter) > 0.5 for other in others)


def test_a_random_particle_can_be_of_any_size():
    natural, small = make_phantom("random", seed=1), make_phantom("random", seed=1, diameter=90)

    assert small.diameter == pytest.approx(90, rel=0.06)
    assert small.symmetry == natural.symmetry
    ratio = len(natural.positions) / len(small.positions)
    assert ratio == pytest.approx((natural.diameter / 90) ** 3, rel=0.25)


@pytest.mark.parametrize("name", ["random01", "randomly", "random-1"])
def test_names_that_are_nearly_random_are_refused(name):
    with pytest.raises(ParameterError, match=r"phantom must be one of .*random and a number"):
        make_phantom(name)
