"""Rotations, point groups and the drawing of orientations."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.errors import ParameterError
from cryopick.simulation.orientations import (
    draw_angles,
    euler_matrices,
    point_group,
    view_numbers,
)

ORDERS = {"C1": 1, "C2": 2, "C7": 7, "D2": 4, "D7": 14, "T": 12, "O": 24}


@pytest.mark.parametrize(("symmetry", "order"), ORDERS.items())
def test_a_point_group_is_a_group_of_its_order(symmetry, order):
    group = point_group(symmetry)

    assert len(group) == order
    np.testing.assert_allclose(np.linalg.det(group), 1)
    products = np.einsum("aij,bjk->abik", group, group).reshape(-1, 3, 3)
    away = np.abs(products[:, None] - group).max((2, 3)).min(1)
    assert away.max() < 1e-9


@pytest.mark.parametrize("symmetry", ["", "C0", "I", "d7", "D"])
def test_other_groups_are_refused(symmetry):
    with pytest.raises(ParameterError, match="symmetry must be Cn, Dn, T or O"):
        point_group(symmetry)


def test_euler_matrices_are_rotations_and_psi_turns_in_the_plane():
    draw = np.random.default_rng(0)
    matrices = euler_matrices(draw_angles(50, generator=draw))

    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1)
    first, second = euler_matrices(np.array([[10.0, 20, 0], [10, 20, 77]]))
    np.testing.assert_allclose(first[2], second[2])  # one viewing direction


def test_random_views_are_spread_evenly_over_the_sphere():
    angles = draw_angles(20000, generator=np.random.default_rng(1))
    directions = euler_matrices(angles)[:, 2]

    np.testing.assert_allclose(directions.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(directions.T @ directions / 20000, np.eye(3) / 3, atol=0.01)


def test_preferred_views_heap_on_top_and_sides():
    tilt = draw_angles(5000, generator=np.random.default_rng(1), preferred_fraction=1.0)[:, 1]

    is_top, is_side = np.abs(tilt) < 45, np.abs(tilt - 90) < 40
    assert is_top.mean() == pytest.approx(0.5, abs=0.05)
    assert is_side.mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("symmetry", ["C1", "D7", "O"])
def test_equivalent_views_and_in_plane_turns_have_one_number(symmetry):
    draw = np.random.default_rng(2)
    angles = draw_angles(200, generator=draw)
    turned = angles + np.array([0, 0, 123.0])

    numbers = view_numbers(euler_matrices(angles), symmetry=symmetry)

    np.testing.assert_array_equal(numbers, view_numbers(euler_matrices(turned), symmetry=symmetry))
    for element in point_group(symmetry):
        equivalent = view_numbers(euler_matrices(angles) @ element, symmetry=symmetry)
        assert (numbers == equivalent).mean() > 0.99  # but for ties on a mirror plane
