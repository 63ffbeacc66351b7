"""The parts of the EM classifier on their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryopick.alignment.references import power_harmonics
from cryopick.alignment.rings import make_ring_basis
from cryopick.alignment.sampling import make_ring_sampler
from cryopick.alignment.search import Workspace, shift_tile
from cryopick.alignment.sums import PosedImages, RingSums, add_posed, turn_phases
from cryopick.class2d.em_images import plan_geometry, recentre
from cryopick.class2d.em_junk import junk_probability
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.em_schedule import class_count, stage_of, subset_of
from cryopick.class2d.em_start import split_classes
from cryopick.class2d.ring_prior import mask_noise, regularise

SIZE, PIXEL, DIAMETER, EDGE = 40, 5.0, 120.0, 25.0


def sums_of(images: torch.Tensor, n_classes: int) -> tuple[RingSums, object, object]:
    basis = make_ring_basis(resolution=18, diameter=DIAMETER + 2 * EDGE, box=SIZE * PIXEL)
    sampler = make_ring_sampler(
        basis, size=SIZE, pixel_size=PIXEL, mask_diameter=DIAMETER, mask_edge=EDGE
    )
    real, imaginary = sampler.sample(images)
    weight = (basis.weights * SIZE**2)[:, None]  # noise of variance 1: power 1 / SIZE^2
    ones = torch.ones(basis.n_angles, basis.n_rings, len(images))
    power = power_harmonics((ones * weight).permute(1, 2, 0), basis)
    workspace = Workspace()
    tile = shift_tile(
        real * weight,
        imaginary * weight,
        power,
        shifts=torch.zeros(1, 2),
        basis=basis,
        workspace=workspace,
    )
    sums = RingSums.empty(n_classes, basis)
    n = len(images)
    posed = PosedImages(
        image=torch.arange(n),
        class_index=torch.arange(n) % n_classes,
        shift_index=torch.zeros(n, dtype=torch.int64),
        turns=turn_phases(torch.zeros(n), basis).T,
    )
    add_posed(sums, tile, posed, basis, workspace)
    return sums, basis, sampler


def averages_of(images: torch.Tensor, n_classes: int):
    sums, basis, sampler = sums_of(images, n_classes)
    covariance = mask_noise(basis, mask_diameter=DIAMETER, mask_edge=EDGE)
    found = regularise(sums, basis, covariance, share=sampler.share, regularisation=1.0)
    return found, sums, basis


def test_averages_of_noise_have_the_noise_that_is_claimed_and_no_signal() -> None:
    noise = torch.randn(400, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    found, sums, basis = averages_of(noise, 10)
    mean = (sums.numerator / sums.denominator[..., :1]).to(torch.complex64)
    measured = basis.to_half_rings(mean).abs().square().mean((0, 2))
    assert torch.allclose(measured[2:], found.noise.mean(0)[2:], rtol=0.25)
    assert float(found.ssnr.abs().mean()) < 0.1


def test_the_filter_keeps_what_classes_share_and_takes_noise_away() -> None:
    axis = torch.arange(SIZE) - SIZE // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    generator = torch.Generator().manual_seed(2)
    clean = torch.stack(
        [torch.exp(-((x - 3 - k % 3) ** 2 + 2 * (y - k % 4) ** 2) / 18.0) for k in range(8)]
    )
    noise = torch.randn(160, SIZE, SIZE, generator=generator)
    found, sums, basis = averages_of(0.5 * clean.repeat(20, 1, 1) + noise, 8)
    truth, _, _ = sums_of(0.5 * clean, 8)
    expected = truth.numerator / truth.denominator[..., :1]
    plain = sums.numerator / sums.denominator[..., :1]
    weight = basis.weights[:, None]
    error = ((found.harmonics - expected).abs().square() * weight).sum()
    before = ((plain - expected).abs().square() * weight).sum()
    assert float(error) < 0.25 * float(before)


def test_a_tall_prior_gives_the_plain_average() -> None:
    noise = torch.randn(60, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    sums, basis, sampler = sums_of(noise + 1.0, 3)
    covariance = mask_noise(basis, mask_diameter=DIAMETER, mask_edge=EDGE)
    found = regularise(sums, basis, covariance, share=sampler.share, regularisation=1e9)
    plain = sums.numerator / sums.denominator[..., :1]
    assert torch.allclose(
        found.harmonics, plain.to(torch.complex64), atol=2e-3 * float(plain.abs().max())
    )


def test_images_come_back_from_their_rings_low_passed() -> None:
    basis = make_ring_basis(resolution=11, diameter=DIAMETER + 2 * EDGE, box=SIZE * PIXEL)
    sampler = make_ring_sampler(
        basis, size=SIZE, pixel_size=PIXEL, mask_diameter=DIAMETER, mask_edge=EDGE
    )
    axis = torch.arange(SIZE) - SIZE // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    image = torch.exp(-((x - 4.0) ** 2 + (y + 3.0) ** 2) / 12.0)[None]
    real, imaginary = sampler.sample(image)
    back = sampler.to_images(torch.complex(real, imaginary).permute(2, 1, 0))[0]
    inside = torch.hypot(x.float(), y.float()) * PIXEL < 0.7 * DIAMETER / 2
    a, b = back[inside] - back[inside].mean(), image[0][inside] - image[0][inside].mean()
    assert float((a * b).sum() / (a.norm() * b.norm())) > 0.99


def test_recentring_moves_by_whole_pixels_and_lets_zeros_in() -> None:
    image = torch.arange(1.0, 26.0).view(1, 5, 5)
    moved = recentre(image, torch.tensor([[1, -2]]))
    assert torch.equal(moved[0, :3, 1:], image[0, 2:, :4])
    assert not moved[0, 3:].any()
    assert not moved[0, :, 0].any()


@pytest.mark.parametrize("box", [63, 64, 65, 256])
def test_the_cut_is_even_and_no_larger_than_the_box(box: int) -> None:
    g = plan_geometry(
        box_size=box,
        pixel_size=3.0,
        mask_diameter=150.0,
        mask_edge=15.0,
        offset_range=20.0,
        resolution=9.0,
    )
    assert g.cut_size % 2 == g.working_size % 2 == 0
    assert g.working_size <= g.cut_size <= box
    assert g.working_pixel <= 4.5


def test_splitting_keeps_classes_in_place_and_replaces_dead_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    harmonics = torch.randn(4, 3, 5, dtype=torch.complex64, generator=generator)
    shares = torch.tensor([0.5, 0.3, 0.001, 0.199])
    split = split_classes(harmonics, shares, 6, seed=1)
    assert len(split) == 6
    assert torch.equal(split[3], harmonics[3])
    assert not torch.allclose(split[2], harmonics[2])
    closest = [int((split[k] - harmonics).abs().square().sum((1, 2)).argmin()) for k in range(6)]
    assert closest[:2] == [0, 1]
    assert set(closest[4:]) | {closest[2]} <= {0, 1}
    assert torch.equal(split_classes(harmonics, torch.full((4,), 0.25), 4, seed=1), harmonics)


def test_noise_is_junk_and_particles_are_not() -> None:
    generator = np.random.default_rng(0)
    noise, null = generator.normal(2, 2.5, 150), generator.normal(2, 2.5, 128)
    real = np.exp(generator.normal(3.2, 0.4, 850))
    probability = junk_probability(np.concatenate([noise, real]).astype(np.float32), null)
    assert (probability[:150] > 0.5).mean() > 0.8
    assert (probability[150:] > 0.5).mean() < 0.02
    order = np.argsort(np.concatenate([noise, real]))
    assert (np.diff(probability[order]) <= 1e-6).all()


def test_without_noise_among_them_no_particles_are_junk() -> None:
    generator = np.random.default_rng(1)
    real = np.exp(generator.normal(3.2, 0.4, 1000)).astype(np.float32)
    null = generator.normal(2, 2.5, 128)
    assert (junk_probability(real, null) > 0.5).mean() < 0.005
    near = generator.normal(5, 3, 1000).astype(np.float32)
    assert not junk_probability(near, null).any()


def parameters(**changes: object) -> ClassificationParameters:
    return ClassificationParameters(**({"classes": 50, "diameter": 150.0} | changes))


def test_classes_grow_to_those_asked_for() -> None:
    counts = [class_count(i, parameters()) for i in range(25)]
    assert counts[0] < 10
    assert counts == sorted(counts)
    assert counts[-4:] == [50] * 4
    assert class_count(0, parameters(iterations=1)) == 50
    assert class_count(0, parameters(classes=2)) == 2


def stage(iteration: int, p: ClassificationParameters, **changes: object):
    values = {
        "most_rings": 30,
        "data_rings": 20,
        "n_particles": 100_000,
        "has_references": False,
        "fine_from": None,
        "has_seen_all": True,
    }
    return stage_of(iteration, p, **(values | changes))


def test_large_sets_begin_with_parts_and_every_particle_is_seen_before_the_fine_part() -> None:
    p = parameters()
    assert stage(0, p).subset == 5000
    assert stage(15, p).subset > 5000
    gathering = stage(21, p, has_seen_all=False)
    assert (gathering.subset, gathering.is_fine) == (100_000, False)
    assert gathering.offset_range == p.offset_range
    assert stage(24, p).is_fine
    assert stage(0, parameters(batches=False)).subset == 100_000


def test_no_shifts_are_searched_where_none_are_wanted() -> None:
    p = parameters(offset_range=0.0)
    assert all(stage(i, p).offset_range == 0 for i in range(25))
    coarse = parameters(offset_range=5.0, offset_step=8.0)
    assert all(s.offset_step <= s.offset_range for s in (stage(i, coarse) for i in range(25)))


def test_parts_of_a_large_set_cover_it_in_turn() -> None:
    seen = np.concatenate([subset_of(start, 300, 1000, seed=2) for start in (0, 300, 600, 900)])
    assert np.array_equal(np.unique(seen), np.arange(1000))
    assert np.array_equal(subset_of(5, 2000, 1000, seed=2), np.arange(1000))
