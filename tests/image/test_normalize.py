from __future__ import annotations

import numpy as np
import pytest
import torch

from cryopick.errors import DataError, ParameterError
from cryopick.image.masks import circle_mask
from cryopick.image.normalize import make_background, normalize_images, replace_dust


def noisy(count=20, size=32, *, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, size, generator=generator, dtype=dtype)


def slow_normalize(image, *, radius, has_ramp):
    """One image at a time with numpy's least squares."""
    size = image.shape[0]
    y, x = np.mgrid[:size, :size] - size // 2
    outside = x**2 + y**2 > radius**2
    design = np.stack([np.ones_like(x), x, y], -1).astype(float)[..., : 3 if has_ramp else 1]
    plane, *_ = np.linalg.lstsq(design[outside], image[outside], rcond=None)
    level = image - design @ plane
    return (level - level[outside].mean()) / level[outside].std()


@pytest.mark.parametrize("has_ramp", [True, False])
@pytest.mark.parametrize("size", [32, 17])
def test_background_fit_equals_least_squares_for_each_image(has_ramp, size):
    images = 50 + 7 * noisy(size=size) + torch.linspace(0, 30, size)
    background = make_background(size, radius=7.5, has_ramp=has_ramp)

    normalized, is_flat = normalize_images(images, background)

    for image, wanted in zip(normalized.numpy(), images.double().numpy(), strict=True):
        slow = slow_normalize(wanted, radius=7.5, has_ramp=has_ramp)
        np.testing.assert_allclose(image, slow, atol=5e-6)
    assert not is_flat.any()


def test_level_far_above_the_noise_leaves_no_rounding():
    size = 64
    images = noisy(size=size) + 3000 + 40 * torch.arange(float(size))
    background = make_background(size, radius=24)

    normalized, _ = normalize_images(images, background)

    slow = slow_normalize(images[3].double().numpy(), radius=24, has_ramp=True)
    np.testing.assert_allclose(normalized[3].numpy(), slow, atol=1e-5)


def test_grey_scale_and_offset_of_the_input_do_not_matter():
    background = make_background(32, radius=12)
    images = noisy()

    first, _ = normalize_images(images, background)
    second, _ = normalize_images(-3 * images + 20, background, invert_contrast=True)

    torch.testing.assert_close(first, second, atol=2e-5, rtol=0)


def test_images_are_normalised_one_by_one_and_left_unchanged():
    background = make_background(128, radius=48)
    images = noisy(40, 128)  # more than are worked on at once
    before = images.clone()

    together, _ = normalize_images(images, background)
    alone, _ = normalize_images(images[33:34], background)

    torch.testing.assert_close(together[33:34], alone, atol=1e-6, rtol=0)
    assert torch.equal(images, before)


def test_images_can_be_normalised_where_they_are():
    background = make_background(32, radius=12)
    images = noisy()
    wanted, _ = normalize_images(images, background)

    result, _ = normalize_images(images, background, out=images)

    assert result is images
    assert torch.equal(images, wanted)


def test_an_image_without_contrast_becomes_zero_and_is_named():
    images = noisy(3)
    images[1] = 5.0

    normalized, is_flat = normalize_images(images, make_background(32, radius=12))

    assert is_flat.tolist() == [False, True, False]
    assert (normalized[1] == 0).all()


def test_nan_is_refused():
    images = noisy(3)
    images[1, 0, 0] = float("nan")

    with pytest.raises(DataError, match="finite"):
        normalize_images(images, make_background(32, radius=12))


def test_a_circle_without_background_is_refused():
    with pytest.raises(ParameterError, match="leave background"):
        make_background(8, radius=20)


def test_circle_holds_the_pixels_within_its_radius():
    mask = circle_mask(9, radius=3)

    assert mask.sum() == 29  # Gauss's circle problem, N(3)
    assert mask[4, 7]
    assert not mask[4, 8]


@pytest.mark.parametrize(("white", "black"), [(4.0, -1.0), (-1.0, 4.0), (4.0, 4.0)])
def test_dust_is_replaced_only_on_the_side_asked_for(white, black):
    images = noisy(50, 32).clamp(-3, 3)
    images[:, 5, 6] = 40.0
    images[:, 20, 3] = -40.0
    background = make_background(32, radius=12)

    cleaned = replace_dust(images, background, white=white, black=black, seeds=torch.arange(50))

    changed = (cleaned != images).any(dim=0)
    assert changed[5, 6] == (white > 0)
    assert changed[20, 3] == (black > 0)
    assert changed.sum() == (white > 0) + (black > 0)


def test_noise_for_dust_has_the_mean_and_deviation_of_the_background():
    images = 10 + 2 * noisy(400, 32)
    images[:, 14:18, 14:18] = 1000.0  # inside the circle: no part of the statistics
    background = make_background(32, radius=12)

    cleaned = replace_dust(images, background, white=6, black=-1, seeds=torch.arange(400))

    drawn = cleaned[:, 14:18, 14:18]
    assert drawn.mean().item() == pytest.approx(10, abs=5 * 2 / 80)
    assert drawn.std().item() == pytest.approx(2, rel=0.05)
    z = ((drawn - 10) / 2).flatten().sort().values
    quantiles = torch.special.ndtri((torch.arange(len(z)) + 0.5) / len(z))
    assert torch.corrcoef(torch.stack([z, quantiles]))[0, 1] > 0.999


def test_noise_for_dust_depends_on_the_seed_and_not_on_the_company():
    images = noisy(6)
    images[:, 3:6, 3:6] = 99.0
    background = make_background(32, radius=12)
    seeds = torch.tensor([5, 6, 7, 8, 9, 5])

    together = replace_dust(images, background, white=3, black=-1, seeds=seeds)
    alone = replace_dust(images[2:3], background, white=3, black=-1, seeds=seeds[2:3])

    torch.testing.assert_close(together[2:3], alone)
    assert not torch.allclose(together[0, 3:6, 3:6], together[1, 3:6, 3:6])
