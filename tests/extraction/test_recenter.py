from __future__ import annotations

import numpy as np
import pytest

from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.extraction.recenter import place_particles, project_point

ANGPIX = 1.7


def random_particles(count=200, seed=3):
    generator = np.random.default_rng(seed)
    return generator.uniform(50, 900, (count, 2)), generator.normal(0, 12, (count, 2))


def place(coordinates, shifts, *, point=None, **values):
    parameters = ExtractionParameters(box_size=64, **values).resolved()
    return place_particles(
        coordinates,
        shifts,
        pixel_size=np.full(len(coordinates), ANGPIX),
        parameters=parameters,
        point_yx=point,
    )


@pytest.mark.parametrize("values", [{}, {"recenter": True}, {"positions": "truncate"}])
def test_the_true_centre_is_kept(values):
    coordinates, shifts = random_particles()

    placed = place(coordinates, shifts, **values)

    np.testing.assert_allclose(
        placed.coordinates_yx - placed.shifts_yx / ANGPIX, coordinates - shifts / ANGPIX
    )
    np.testing.assert_array_equal(placed.coordinates_yx, placed.centers_yx)


def test_picks_keep_a_residual_of_half_a_pixel_at_most():
    coordinates, _ = random_particles()

    placed = place(coordinates, np.zeros_like(coordinates))

    assert np.abs(placed.shifts_yx).max() <= 0.5 * ANGPIX + 1e-9
    np.testing.assert_allclose(
        placed.shifts_yx, -(coordinates - placed.centers_yx) * ANGPIX, atol=1e-9
    )


def test_recentring_leaves_less_than_a_pixel_to_the_origin():
    coordinates, shifts = random_particles()

    placed = place(coordinates, shifts, recenter=True)

    assert np.abs(placed.shifts_yx).max() <= 0.5 * ANGPIX + 1e-9


def test_without_recentring_origins_stay_large():
    coordinates, shifts = random_particles()

    placed = place(np.round(coordinates), shifts)

    np.testing.assert_allclose(placed.shifts_yx, shifts)


def test_reset_origins_are_forgotten():
    coordinates, shifts = random_particles()

    placed = place(np.round(coordinates), shifts, reset_offsets=True)

    np.testing.assert_array_equal(placed.centers_yx, np.round(coordinates))
    assert (placed.shifts_yx == 0).all()


def test_relions_way_truncates_and_keeps_the_fraction_in_the_coordinate():
    coordinates = np.array([[10.9, 20.2], [-0.4, 7.0]])

    placed = place(coordinates, np.zeros((2, 2)), relion_parity=True)

    np.testing.assert_array_equal(placed.centers_yx, [[10, 20], [0, 7]])
    np.testing.assert_array_equal(placed.coordinates_yx, coordinates)


def test_another_centre_moves_the_box_to_where_the_point_is_seen():
    coordinates, shifts = random_particles()
    point = np.tile([[4.0, -11.0]], (len(coordinates), 1))

    placed = place(coordinates, shifts, point=point, recenter=True)

    np.testing.assert_allclose(
        placed.coordinates_yx - placed.shifts_yx / ANGPIX,
        coordinates - shifts / ANGPIX + point / ANGPIX,
    )


def test_a_point_on_the_axis_of_view_is_seen_at_the_centre():
    angles = np.array([[0.0, 0.0, 77.0], [40.0, 90.0, 13.0]])

    np.testing.assert_allclose(project_point((0, 0, 5), angles)[0], 0, atol=1e-12)
    direction = (np.cos(np.deg2rad(40)), np.sin(np.deg2rad(40)), 0)
    np.testing.assert_allclose(project_point(direction, angles)[1], 0, atol=1e-12)
