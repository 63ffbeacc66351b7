from __future__ import annotations

import numpy as np
import pytest
import torch
from density_world import add_ball
from scipy import ndimage

from cryopick.tomogram.kinds import group_picks, invariant_features
from cryopick.tomogram.locate_beads import Bead
from cryopick.tomogram.locate_filters import Filters, local_maxima
from cryopick.tomogram.locate_significance import expected_maxima, significance_threshold
from cryopick.tomogram.locate_source import ArraySource
from cryopick.tomogram.locate_streaks import BeadStreaks
from cryopick.tomogram.shapes import connected_groups, measure_curvatures
from cryopick.tomogram.subtomograms import cut_subtomogram


def odd_shape():
    cube = np.zeros((21, 21, 21), np.float32)
    add_ball(cube, (10, 10, 7), 4.0)
    add_ball(cube, (13, 10, 12), 3.0)
    add_ball(cube, (8, 14, 10), 2.0)
    return cube


@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (0, 2)])
def test_features_do_not_change_when_the_density_is_turned(axes):
    cube = odd_shape()
    both = np.stack([cube, np.rot90(cube, axes=axes)])

    one, other = invariant_features(torch.from_numpy(both.copy()), radius=10.0)

    np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


def test_features_tell_a_ball_from_a_dumbbell_of_the_same_shell_means():
    def cube(ways):
        volume = np.zeros((21, 21, 21), np.float32)
        for way in ways:
            add_ball(volume, 10 + 6 * np.array(way, float), 2.5, density=6 / len(ways))
        return volume

    six = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    one, other = invariant_features(
        torch.from_numpy(np.stack([cube(six), cube(six[:2])])), radius=10.0
    )

    np.testing.assert_allclose(one[:8], other[:8], atol=1e-4)  # the means of the shells
    assert np.abs(one[8:] - other[8:]).max() > 0.02


@pytest.mark.parametrize("true_number", [1, 2, 3])
def test_the_number_of_kinds_is_found(true_number):
    generator = np.random.default_rng(7)
    kinds = np.arange(120) % true_number
    features = generator.standard_normal((120, 5)) + 8 * np.eye(5)[kinds]

    grouped = group_picks(features)

    assert grouped.number == true_number
    for kind in range(true_number):
        assert len(set(grouped.kind[kinds == kind])) == 1


def test_a_given_number_of_kinds_is_kept_and_no_pick_has_no_kind():
    features = np.random.default_rng(1).standard_normal((40, 3))

    assert group_picks(features, number=4).number == 4
    assert group_picks(np.zeros((0, 3))).number == 0
    assert group_picks(features[:1]).kind.tolist() == [1]


def test_a_ball_a_rod_and_a_sheet_bend_along_three_two_and_one_axes():
    grid = np.mgrid[-20:21, -20:21, -20:21].astype(float)
    ball = np.exp(-(grid**2).sum(0) / 50)
    rod = np.exp(-(grid[:2] ** 2).sum(0) / 50)
    sheet = np.exp(-(grid[0] ** 2) / 50)
    middle = np.array([[20.0, 20, 20]])

    shares = [measure_curvatures(v, middle, radius=8.0)[0] for v in (ball, rod, sheet)]

    np.testing.assert_allclose(shares, [[1, 1], [1, 0], [0, 0]], atol=0.02)


def test_maxima_on_one_ridge_are_a_group_and_those_beyond_a_gap_are_not():
    volume = np.zeros((24, 24, 80), np.float32)
    volume[12, 12, 5:50] = 10
    places = np.array([[12.0, 12, x] for x in (8, 20, 32, 44, 60)])
    volume[12, 12, 60] = 10

    groups, lengths = connected_groups(volume, places, np.full(5, 10.0), reach=17.0, share=0.5)

    assert len(set(groups[:4])) == 1
    assert groups[4] != groups[0]
    assert lengths.tolist() == [36.0] * 4 + [0.0]


def test_maxima_of_noise_are_as_many_as_the_formula_says():
    generator = np.random.default_rng(3)
    field = ndimage.gaussian_filter(generator.standard_normal((100, 100, 100)), 2.0, mode="wrap")
    field /= field.std()
    padded = torch.from_numpy(np.pad(field, 3, mode="wrap"))
    count = len(local_maxima(padded, reach=3, least=2.8))

    wanted = expected_maxima(2.8, volume=1e6, roughness=1 / (2 * 2.0**2))

    assert abs(count - wanted) < 4 * np.sqrt(wanted) + 0.1 * wanted
    least = significance_threshold([0.125], volume=1e6, false_positives=wanted)
    assert least == pytest.approx(3.0)  # the lowest that it gives


def test_filters_on_blocks_give_the_correlation_of_the_volume():
    generator = np.random.default_rng(5)
    volume = torch.from_numpy(generator.standard_normal((14, 15, 16)).astype(np.float32))
    kernels = torch.from_numpy(generator.standard_normal((2, 5, 5, 5)).astype(np.float32))

    found = Filters(kernels).respond(volume)

    for one, kernel in zip(found, kernels, strict=True):
        wanted = ndimage.correlate(volume.numpy(), kernel.numpy())[2:-2, 2:-2, 2:-2]
        np.testing.assert_allclose(one.numpy(), wanted, atol=2e-4)


def test_cores_of_beads_are_blank_in_every_box_that_cuts_them():
    streaks = BeadStreaks(beads=(Bead((10.2, 10.0, 9.7), 4.0, 20.0),), pattern=None)
    whole = streaks.subtract(torch.ones(20, 20, 20), (0, 0, 0))
    part = streaks.subtract(torch.ones(8, 12, 9), (5, 3, 8))

    assert torch.equal(part, whole[5:13, 3:15, 8:17])
    assert streaks.touches((13, 8, 8), (20, 20, 20))
    assert not streaks.touches((15, 15, 0), (20, 20, 5))


def test_a_box_holds_the_particle_in_its_middle_white_on_a_background_of_deviation_1():
    generator = np.random.default_rng(9)
    volume = 5 + 0.5 * generator.standard_normal((40, 40, 40)).astype(np.float32)
    add_ball(volume, (20, 12, 30), 5.0, density=-4.0)

    box, rest = cut_subtomogram(
        ArraySource(volume),
        np.array([20.2, 12.0, 29.6]),
        box_size=24,
        radius=7.0,
        fill=5.0,
        is_white=False,
    )

    assert box.shape == (24, 24, 24)
    np.testing.assert_allclose(rest, [0.2, 0.0, -0.4], atol=1e-9)
    assert ndimage.center_of_mass((box > 4).astype(float)) == pytest.approx((12, 12, 12), abs=0.3)
    assert box[12, 12, 12] == pytest.approx(8, abs=2.5)
    assert np.std(box[:4]) == pytest.approx(1, abs=0.1)


def test_a_box_at_the_face_is_filled_with_the_middle_of_the_volume():
    volume = 5 + np.random.default_rng(2).standard_normal((20, 20, 20)).astype(np.float32)

    box, _ = cut_subtomogram(
        ArraySource(volume), np.array([1.0, 10, 10]), box_size=8, radius=2.0, fill=5.0,
        is_white=True,
    )  # fmt: skip

    assert np.ptp(box[:3]) == 0
    assert abs(float(box[0, 0, 0])) < 0.3
    assert np.std(box[3:]) == pytest.approx(1, abs=0.2)
