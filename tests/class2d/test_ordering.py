"""A film of a turning body, shuffled, turned, moved and mirrored, is put together again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from cryopick.alignment.transform import transform_images
from cryopick.class2d.ordering import apply_ordering, order_averages
from cryopick.class2d.ordering_path import path_length, shortest_path, spectral_order
from cryopick.errors import DataError, ParameterError, ShapeError
from cryopick.simulation.orientations import euler_matrices
from cryopick.simulation.projection import Model, project

N, SIZE, DIAMETER = 40, 48, 36.0


def film(last, *, n=N, size=SIZE, seed=7):
    """Views of a body of blobs from 10 deg on, as it tilts to `last`."""
    body = Model(
        name="blobs",
        positions=torch.from_numpy(np.random.default_rng(seed).normal(0, 20, (14, 3))).float(),
        weights=torch.linspace(0.6, 1.6, 14),
        blur=5.0,
        symmetry="C1",
        diameter=130.0,
    )
    angles = np.stack([np.zeros(n), np.linspace(10, last, n), np.zeros(n)], axis=1)
    return project(body, euler_matrices(angles), box_size=size, pixel_size=4.0)


def mirrored(images):
    return images.flip(-1).roll(1 if images.shape[-1] % 2 == 0 else 0, -1)


def disarrange(images, *, noise=0.0, mirrors=True, shift=1.0, seed=0):
    """Shuffle, mirror, turn and move images; which each was comes with them."""
    generator = np.random.default_rng(seed)
    n = len(images)
    was = generator.permutation(n)
    is_mirrored = torch.from_numpy(generator.random(n) < 0.5) & mirrors
    found = images[torch.from_numpy(was)]
    found = torch.where(is_mirrored[:, None, None], mirrored(found), found)
    psi, x, y = (
        torch.from_numpy(generator.uniform(-a, a, n)).float() for a in (180.0, shift, shift)
    )
    found = transform_images(found, psi=psi, shift_x=x, shift_y=y)
    more = torch.from_numpy(generator.normal(size=found.shape)).float()
    return found + noise * found.std() * more, was


def correlations(images):
    """Correlation of each image with the next."""
    flat = images.flatten(1) - images.flatten(1).mean(1, keepdim=True)
    flat = flat / flat.norm(dim=1, keepdim=True)
    return (flat[1:] * flat[:-1]).sum(1)


def rank_correlation(found):
    return abs(np.corrcoef(found, np.arange(len(found)))[0, 1])


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_film_is_put_together_again(noise):
    images, was = disarrange(film(120.0), noise=noise)

    ordering = order_averages(images, diameter=DIAMETER)

    found = was[ordering.order]
    assert sorted(found) == list(range(N))
    steps = np.abs(np.diff(found))
    if noise:
        assert steps.max() <= 3
        assert rank_correlation(found) > 0.99
    else:
        assert (steps == 1).all()
    assert ordering.order[0] < ordering.order[-1]
    assert np.isnan(ordering.similarity[0])
    assert not ordering.mirrors[0]
    assert ordering.angles[0] == 0
    np.testing.assert_array_equal(ordering.shifts[0], 0)


def test_half_a_turn_is_a_circle_by_its_mirror_images():
    images, was = disarrange(film(190.0, n=31)[:-1])  # the last view mirrors the first

    found = was[order_averages(images, diameter=DIAMETER).order]

    steps = np.abs(np.diff(found))
    assert set(steps.tolist()) <= {1, 29}
    assert (steps == 29).sum() <= 1


def test_neighbours_lie_alike_when_they_are_moved():
    images, _ = disarrange(film(120.0))
    ordering = order_averages(images, diameter=DIAMETER)

    moved = apply_ordering(images, ordering)

    assert correlations(images[torch.from_numpy(ordering.order)]).mean() < 0.8
    true = correlations(film(120.0))
    assert correlations(moved).mean() > true.mean() - 0.01
    assert correlations(moved).min() > 0.97
    np.testing.assert_allclose(ordering.similarity[1:], correlations(moved), atol=0.02)
    assert np.abs(ordering.shifts).max() < 6.0  # errors do not add up


def test_what_brings_one_image_onto_another_is_found():
    base = film(60.0, n=1)
    psi, x, y = torch.tensor([70.0]), torch.tensor([1.3]), torch.tensor([-0.8])
    other = transform_images(mirrored(base), psi=psi, shift_x=x, shift_y=y)

    ordering = order_averages(torch.cat([base, other]), diameter=DIAMETER, shift_range=2.0)

    one, two = apply_ordering(torch.cat([base, other]), ordering)
    assert ordering.mirrors.tolist() == [False, True]
    assert (one - two).std() < 0.02 * one.std()
    assert ordering.similarity[1] > 0.999


def test_without_mirrors_no_image_is_mirrored():
    images, was = disarrange(film(120.0), mirrors=False)

    ordering = order_averages(images, diameter=DIAMETER, mirrors=False)

    assert not ordering.mirrors.any()
    assert (np.abs(np.diff(was[ordering.order])) == 1).all()


@pytest.mark.parametrize("size", [47, 80])
def test_boxes_of_any_size_are_ordered(size):
    images, was = disarrange(torch.nn.functional.interpolate(film(120.0)[None], size=(size, size),
                             mode="bicubic")[0])  # fmt: skip

    ordering = order_averages(images, diameter=DIAMETER * size / SIZE)

    assert np.abs(np.diff(was[ordering.order])).max() <= 2


def test_the_same_order_for_any_number_of_threads():
    images, _ = disarrange(film(150.0, n=90), noise=0.3)

    one, three = (order_averages(images, diameter=DIAMETER, threads=t) for t in (1, 3))

    for name in ("order", "angles", "shifts", "mirrors", "similarity"):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name), err_msg=name)


def test_one_average_and_two_have_an_order():
    images = film(120.0, n=2)

    assert order_averages(images[:1], diameter=DIAMETER).order.tolist() == [0]
    assert order_averages(images, diameter=DIAMETER).order.tolist() == [0, 1]


def test_averages_that_cannot_be_compared_are_refused():
    images = film(120.0, n=3)
    images[1] = 0
    with pytest.raises(DataError, match="average 2 must hold densities; got one value, or"):
        order_averages(images, diameter=DIAMETER)
    with pytest.raises(ParameterError, match="diameter must be at most the box, 48 px; got 50 px"):
        order_averages(images, diameter=50.0)
    with pytest.raises(ShapeError, match="must have shape"):
        order_averages(images[:, :40], diameter=30.0)


def distances(points):
    return np.sqrt(((points[:, None] - points) ** 2).sum(-1)).astype(np.float32)


def test_a_path_through_a_few_points_is_the_shortest():
    generator = np.random.default_rng(0)
    excess = []
    for _ in range(8):
        distance = distances(generator.uniform(size=(7, 2)))
        best = min(path_length(distance, np.array(p)) for p in itertools.permutations(range(7)))
        excess.append(path_length(distance, shortest_path(distance)) / best - 1)

    assert min(excess) > -1e-9
    assert np.mean(excess) < 0.01


def test_a_path_through_many_points_is_short():
    distance = distances(np.random.default_rng(1).uniform(size=(400, 2)))

    found = shortest_path(distance)

    assert sorted(found) == list(range(400))
    # a shortest tour has 0.7124 sqrt(n area) (1 + 0.33 / n) in the limit, more for few points
    assert path_length(distance, found) < 1.12 * 0.7124 * 20
    assert path_length(distance, found) < 0.5 * path_length(distance, spectral_order(distance))


def test_points_on_a_line_and_in_groups_are_in_order():
    places = np.random.default_rng(2).permutation(60).astype(float)
    places[places >= 30] += 1000.0

    for find in (shortest_path, spectral_order):
        found = places[find(distances(places[:, None]))]
        steps = np.sign(np.diff(found))
        assert (np.diff(np.flatnonzero(np.abs(np.diff(found)) > 500)).size) == 0
        assert np.count_nonzero(np.diff(steps)) <= (0 if find is shortest_path else 2)
