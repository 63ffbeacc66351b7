"""Parts of the classification of streams: basis, merges and splits, sampling, options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from views_world import PIXEL, SIZE, World, parameters, world

from cryopick.alignment.rings import keep_orders, make_ring_basis
from cryopick.alignment.sampling import make_ring_sampler
from cryopick.alignment.transform import transform_images
from cryopick.class2d.em_state import EmState, Poses
from cryopick.class2d.stream_basis import ReducedBasis
from cryopick.class2d.stream_classes import compare_classes, find_changes
from cryopick.class2d.stream_engine import StreamEngine
from cryopick.class2d.stream_state import reservoir
from cryopick.errors import ParameterError, ShapeError
from cryopick.image.fourier import fourier_resize

RINGS = 12


def engine_of(given: World, **changes: object) -> tuple[StreamEngine, EmState]:
    engine = StreamEngine(
        given.source, parameters(**changes), n_classes=4, devices=("cpu",), threads=1, keep_bytes=0
    )
    return engine, engine.start()


def basis_of(given: World, **changes: object) -> ReducedBasis:
    engine, em = engine_of(given, **changes)
    basis = engine.reduced(engine.covariance(em, np.arange(len(given.label)), RINGS), version=1)
    engine.close()
    return basis


@pytest.mark.parametrize("kind", ["none", "plain"])
def test_noise_alone_has_no_component_but_the_background(kind: str) -> None:
    given = world(1500, n_noise=1500, kind=kind)
    basis = basis_of(given, ctf="none" if kind == "none" else "full")
    ranks = basis.ranks[torch.argsort(basis.orders)]
    assert int(ranks[1:].sum()) <= 2
    assert basis.n_orders == 5


def test_the_basis_ends_where_the_signal_does() -> None:
    given = world(1500, noise=0.7)
    basis = basis_of(given)
    ranks = basis.ranks[torch.argsort(basis.orders)]
    assert (ranks[:5] > 0).all()
    assert 5 <= basis.n_orders < len(basis.orders)
    assert basis.n_components < 0.3 * 2 * len(basis.orders) * RINGS


def test_more_of_the_variance_keeps_more_components() -> None:
    given = world(600, noise=0.7)
    counts = [
        basis_of(given, basis="variance", variance=v).n_components for v in (50.0, 85.0, 99.0)
    ]
    assert counts == sorted(set(counts))


def test_statistics_of_two_sets_add_up_to_those_of_both() -> None:
    given = world(300)
    engine, em = engine_of(given)
    whole, one, other = (
        engine.covariance(em, np.arange(*part), RINGS) for part in ((0, 300), (0, 130), (130, 300))
    )
    merged = one.merge(other)
    assert merged.count == whole.count == 300
    for name in ("products", "lens"):
        a, b = getattr(merged, name), getattr(whole, name)
        assert float((a - b).abs().max()) < 1e-6 * float(b.abs().max())
    with pytest.raises(ShapeError, match="be of the same rings"):
        one.merge(engine.covariance(em, np.arange(9), RINGS - 2))
    engine.close()


def test_turning_all_images_does_not_change_the_basis() -> None:
    given = world(400, kind="none", noise=0.5)
    zero = torch.zeros(400)
    turned = world(400, kind="none", noise=0.5)
    turned.source.images = transform_images(
        given.source.images, psi=torch.linspace(0, 350, 400), shift_x=zero, shift_y=zero
    )
    one, other = (basis_of(g, ctf="none").eigenvalues for g in (given, turned))
    low = slice(0, 4)  # orders 0, 2, 4, 6
    assert torch.allclose(one[low, :2], other[low, :2], rtol=0.03)


def test_fewer_orders_give_the_same_harmonics_of_those_left() -> None:
    basis = make_ring_basis(resolution=12.0, diameter=130.0, box=160.0)
    fewer = keep_orders(basis, 11)
    generator = torch.Generator().manual_seed(0)
    rings = torch.randn(
        2, basis.n_rings, basis.n_angles, dtype=torch.complex64, generator=generator
    )
    place = [int((basis.orders == m).nonzero()) for m in fewer.orders]
    assert sorted(fewer.orders.tolist()) == list(range(11))
    assert torch.allclose(
        fewer.to_harmonics(rings), basis.to_harmonics(rings)[..., place], atol=1e-6
    )
    assert keep_orders(basis, 500) is basis


def test_the_gaussian_mask_weighs_a_point_by_its_distance() -> None:
    basis = make_ring_basis(resolution=12.0, diameter=160.0, box=SIZE * PIXEL)
    plain, gauss = (
        make_ring_sampler(
            basis,
            size=SIZE,
            pixel_size=PIXEL,
            mask_diameter=SIZE * PIXEL,
            mask_edge=PIXEL,
            mask_sigma=sigma,
        )
        for sigma in (float("inf"), 8 * PIXEL)
    )
    image = torch.zeros(1, SIZE, SIZE)
    image[0, SIZE // 2 + 6, SIZE // 2 - 8] = 1.0  # 10 px off the centre
    ratio = gauss.sample(image)[0].norm() / plain.sample(image)[0].norm()
    assert float(ratio) == pytest.approx(np.exp(-(10**2) / (2 * 8**2)), rel=1e-4)


def averages_of(given: World) -> tuple[Tensor, StreamEngine]:
    """Harmonics of the views, and of the views turned by 40 degrees."""
    engine, _ = engine_of(given, ctf="none")
    sampler = engine.layout.sampler(RINGS)
    zero = torch.zeros(len(given.views))
    turned = transform_images(given.views, psi=zero + 40.0, shift_x=zero, shift_y=zero)
    images = torch.cat([given.views, turned])
    size = engine.layout.geometry(RINGS).working_size
    images = fourier_resize(images, shape=(size, size))
    real, imaginary = sampler.sample(images)
    harmonics = sampler.basis.to_harmonics(torch.complex(real, imaginary).permute(2, 1, 0))
    return harmonics, engine


def test_averages_are_compared_at_their_best_rotation() -> None:
    given = world(40, kind="none")
    harmonics, engine = averages_of(given)
    basis = engine.layout.basis(RINGS)
    found = compare_classes(harmonics[:4], harmonics[4:], basis, noise=torch.ones(RINGS))
    engine.close()
    correlation = found.correlation
    assert (torch.diagonal(correlation) > 0.99).all()
    assert float((correlation - torch.diag(torch.diagonal(correlation))).max()) < 0.98
    assert (found.difference.argmin(1) == torch.arange(4)).all()


def poses_of(counts: list[int], norms: list[float]) -> Poses:
    poses = Poses.empty(sum(counts))
    poses.class_index[:] = np.repeat(np.arange(len(counts)), counts)
    generator = np.random.default_rng(0)
    poses.norm[:] = np.repeat(norms, counts) + generator.normal(0, 0.02, len(poses))
    poses.seen[:] = True
    return poses


def apart(k: int, *alike: tuple[int, int]) -> Tensor:
    difference = torch.full((k, k), 50.0)
    for i, j in alike:
        difference[i, j] = difference[j, i] = 0.5
    return difference


def test_a_dead_class_takes_a_part_of_the_one_that_explains_its_members_worst() -> None:
    poses = poses_of([300, 100, 120, 0], [1.0, 1.0, 1.1, 1.0])
    shares = torch.tensor([300, 100, 120, 0]) / 520
    changes, parent = find_changes(poses, shares, apart(4), torch.ones(4))
    assert parent == [0, 1, 2, 2]
    assert [(c.kind, c.class_index, c.other) for c in changes] == [("split", 3, 2)]


def test_of_two_classes_that_are_one_the_smaller_makes_room_for_a_part_of_a_mixed_one() -> None:
    poses = poses_of([150, 100, 160, 140], [1.0, 1.0, 1.1, 1.0])
    shares = torch.tensor([150, 100, 160, 140]) / 550
    changes, parent = find_changes(poses, shares, apart(4, (0, 1)), torch.ones(4))
    assert parent == [0, 2, 2, 3]
    told = [(c.kind, c.class_index, c.other) for c in changes]
    assert told == [("merge", 1, 0), ("split", 1, 2)]


def test_classes_that_are_one_stay_where_none_is_worth_splitting() -> None:
    poses = poses_of([150, 140, 160, 140], [1.0] * 4)
    shares = torch.tensor([150, 140, 160, 140]) / 590
    changes, parent = find_changes(poses, shares, apart(4, (0, 1)), torch.ones(4))
    assert not changes
    assert parent == [0, 1, 2, 3]


def test_every_particle_has_the_same_chance_to_be_drawn() -> None:
    times = np.zeros(400)
    for seed in range(300):
        drawn = reservoir(400, 100, seed=seed)
        assert len(drawn) == 100
        assert (np.diff(drawn) > 0).all()
        times[drawn] += 1
    halves = times[:200].mean(), times[200:].mean()
    assert halves[0] == pytest.approx(75, abs=2)
    assert times.min() > 40
    assert times.max() < 110


def test_those_drawn_among_more_are_drawn_among_fewer_if_they_are_there() -> None:
    few, many = (reservoir(n, 50, seed=3) for n in (300, 1000))
    assert set(many[many < 300]) <= set(few)
    assert np.array_equal(reservoir(40, 50, seed=3), np.arange(40))


def test_a_limit_below_two_pixels_is_raised_and_said() -> None:
    p = parameters(resolution_limit=8.0)
    assert p.limit(3.0) == p.limit(4.0) == 8.0
    assert p.limit_sentence(4.0) is None
    assert p.limit(5.0) == 10.5
    assert p.limit_sentence(5.0) == (
        "The resolution limit of 8 A is below two pixels of 5 A; 10.5 A is used."
    )


def test_rounds_grow_so_that_the_cost_stays_in_proportion() -> None:
    p, n, sizes = parameters(), 0, []
    while n < 1_000_000:
        n = p.next_round(n, is_anchored=False)
        sizes.append(n)
    assert sizes[:4] == [2000, 3000, 4500, 6750]
    assert sum(sizes) < 3.1 * sizes[-1]
    assert p.next_round(0, is_anchored=True) == 1000
    assert p.next_round(50_000, is_anchored=True) == 51_000


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sigma": 10.0}, "sigma must be left out unless --mask is gauss; got 10.0."),
        ({"mask": "gauss", "sigma": 0.0}, "sigma must be -1 or above 0; got 0 px."),
        (
            {"mask": "none", "mask_diameter": 120.0},
            "mask_diameter must be left out unless --mask is soft; got 120.0.",
        ),
        ({"variance": 60.0}, "variance must be left out unless --basis is variance; got 60.0."),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        parameters(**changes)
    assert str(caught.value).startswith(sentence)


def test_sigma_is_a_third_of_the_box_if_not_given() -> None:
    box = {"box_size": 60, "pixel_size": 2.0}
    assert parameters(mask="gauss").mask_sigma(**box) == 40.0
    assert parameters(mask="gauss", sigma=12.0).mask_sigma(**box) == 24.0
    assert parameters().mask_sigma(**box) == float("inf")
