from __future__ import annotations

import numpy as np
import pytest
from density_world import add_ball
from scipy import ndimage

from cryopick.tomogram.locate_components import connected_regions
from cryopick.tomogram.locate_instances import find_instances
from cryopick.tomogram.locate_shift import shift_to_means
from cryopick.tomogram.locate_source import ArraySource


def instances(volume, *, how, least=0.5, side=32, volumes=(20.0, 1e6), radius=12.0, distance=8.0):
    return find_instances(
        ArraySource(volume),
        least=least,
        slab=(0, volume.shape[0]),
        distance=distance,
        radius=radius,
        volumes=volumes,
        how=how,
        side=side,
    )


@pytest.mark.parametrize("side", [3, 7, 64])
def test_regions_joined_over_blocks_are_those_of_the_whole_volume(side):
    generator = np.random.default_rng(1)
    mask = ndimage.gaussian_filter(generator.standard_normal((20, 23, 17)), 1) > 0.05
    wanted, count = ndimage.label(mask)

    def read(lower, upper):
        return mask[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))]

    regions = connected_regions(read, (0, 0, 0), mask.shape, side=side)

    assert len(regions) == count
    assert regions.sizes[1:].tolist() == np.bincount(wanted.ravel())[1:].tolist()
    places = np.argwhere(np.ones_like(mask))
    assert np.array_equal(regions.of(places), wanted.ravel())
    centres = ndimage.center_of_mass(mask, wanted, range(1, count + 1))
    np.testing.assert_allclose(regions.centres[1:], centres)


@pytest.fixture
def touching():
    """Two balls that touch, a third that stands alone; and their centres."""
    volume = np.zeros((40, 64, 64), np.float32)
    centres = np.array([[20, 20.3, 20], [20, 20.3, 33], [18, 48, 48.4]])
    for centre in centres:
        add_ball(volume, centre, 7.0)
    return volume.clip(0, 1), centres


@pytest.mark.parametrize("how", ["watershed", "mean-shift"])
@pytest.mark.parametrize("side", [24, 64])
def test_balls_that_touch_are_parted_at_their_centres(touching, how, side):
    volume, centres = touching

    found = instances(volume, how=how, side=side, radius=7.0)

    order = np.lexsort(found.places.T[::-1])
    wanted = centres[np.lexsort(centres.T[::-1])]
    assert len(found.places) == 3
    np.testing.assert_allclose(found.places[order], wanted, atol=1.0)


def test_components_keep_what_touches_as_one(touching):
    volume, centres = touching

    found = instances(volume, how="components")

    assert len(found.places) == 2
    joined = found.places[np.argmax(found.volumes)]
    np.testing.assert_allclose(joined, centres[:2].mean(0), atol=0.3)


def test_each_component_keeps_a_seed_however_near_its_neighbour():
    volume = np.zeros((40, 40, 40), np.float32)
    add_ball(volume, (20, 15, 20), 5.0)
    add_ball(volume, (20, 27, 20), 4.0)

    assert len(instances(volume.clip(0, 1), how="watershed", distance=30.0).places) == 2


def test_sizes_out_of_range_are_left_out(touching):
    ball = 4 / 3 * np.pi * 7**3

    assert len(instances(touching[0], how="watershed", volumes=(1.5 * ball, 1e9)).places) == 0
    assert len(instances(touching[0], how="components", volumes=(1.0, 1.5 * ball)).places) == 1


def test_an_empty_mask_has_no_instances():
    assert len(instances(np.zeros((33, 34, 35), np.float32), how="watershed").places) == 0


def test_mean_shift_brings_both_ends_of_an_object_to_its_middle():
    volume = np.zeros((40, 40, 48), np.float32)
    add_ball(volume, (20, 20, 16), 4.0)
    add_ball(volume, (20, 20, 29), 4.0)

    moved = shift_to_means(volume, np.array([[20.0, 20, 16], [20, 20, 29]]), radius=13.0, least=0.1)

    np.testing.assert_allclose(moved, [[20, 20, 22.5]] * 2, atol=0.3)
