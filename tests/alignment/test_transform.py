"""Shifts and rotations against images whose transformed form is known."""

from __future__ import annotations

import math

import pytest
import torch

from cryopick.alignment.transform import (
    sample_spline,
    spline_coefficients,
    transform_images,
    transform_rffts,
)
from cryopick.errors import ShapeError
from cryopick.image.masks import circle_mask


def mixture(size, *, psi=0.0, shift_x=0.0, shift_y=0.0, sigma=1.25, seed=0):
    """Forty Gaussians, moved by (shift_x, shift_y) and then turned by psi from x towards y."""
    generator = torch.Generator().manual_seed(seed)
    radius = 0.3 * size * torch.rand(40, generator=generator, dtype=torch.float64).sqrt()
    angle = 2 * math.pi * torch.rand(40, generator=generator, dtype=torch.float64)
    height = torch.randn(40, generator=generator, dtype=torch.float64)
    place = torch.polar(radius, angle) + complex(shift_x, shift_y)
    place = place * complex(math.cos(math.radians(psi)), math.sin(math.radians(psi)))
    steps = torch.arange(size, dtype=torch.float64) - size // 2
    x = torch.exp(-((steps - place.real[:, None]) ** 2) / (2 * sigma**2))
    y = torch.exp(-((steps - place.imag[:, None]) ** 2) / (2 * sigma**2))
    return torch.einsum("k,ky,kx->yx", height, y, x)


def band_limited_noise(size, *, count=1, limit=0.5):
    noise = torch.randn(
        count, size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    f = torch.fft.fftfreq(size, dtype=torch.float64)
    kept = torch.hypot(f[:, None], f[None, : size // 2 + 1].abs()) < limit - 1e-9
    return torch.fft.irfft2(torch.fft.rfft2(noise) * kept, s=(size, size))


def one(value):
    return torch.tensor([value], dtype=torch.float64)


def moved(images, *, psi=0.0, shift_x=0.0, shift_y=0.0):
    ones = torch.ones(len(images), dtype=torch.float64)
    return transform_images(images, psi=ones * psi, shift_x=ones * shift_x, shift_y=ones * shift_y)


def relative_rms(found, truth):
    inside = circle_mask(truth.shape[-1], radius=0.4 * truth.shape[-1])
    error, scale = ((v[..., inside]).square().mean() for v in (found - truth, truth))
    return math.sqrt(error / scale)


@pytest.mark.parametrize("size", [64, 65])
@pytest.mark.parametrize(("psi", "shift"), [(37.0, (1.3, -2.2)), (-158.0, (-3.6, 0.4))])
def test_a_mixture_of_gaussians_goes_where_geometry_says(size, psi, shift):
    found = moved(mixture(size)[None], psi=psi, shift_x=shift[0], shift_y=shift[1])[0]

    truth = mixture(size, psi=psi, shift_x=shift[0], shift_y=shift[1])
    assert relative_rms(found, truth) < 0.002


@pytest.mark.parametrize("psi", [11.0, 45.0, 200.0])
def test_turning_there_and_back_gives_the_image_back(psi):
    image = mixture(64)[None]

    assert relative_rms(moved(moved(image, psi=psi), psi=-psi), image) < 0.002


@pytest.mark.parametrize(("limit", "tolerance"), [(0.5, 0.01), (0.3, 0.001)])
def test_noise_is_sampled_as_its_fourier_series_says(limit, tolerance):
    size, noise = 48, band_limited_noise(48, limit=limit)
    f = torch.fft.fftfreq(size, dtype=torch.float64)
    places = torch.rand(2, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x, y = places * (size - 1)
    waves = [
        torch.polar(torch.ones(50, size).double(), 2 * math.pi * p[:, None] * f) for p in (x, y)
    ]
    truth = torch.einsum("px,py,yx->p", *waves, torch.fft.fft2(noise[0]) / size**2).real

    knots = spline_coefficients(torch.fft.rfft2(noise), size=size)
    found = sample_spline(knots, x=x[None, None], y=y[None, None])[0, 0]

    assert (found - truth).square().mean().sqrt() < tolerance * noise.square().mean().sqrt()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("size", [32, 33])
def test_a_right_angle_only_moves_pixels(size, dtype, tolerance):
    noise = band_limited_noise(size, count=2).to(dtype)
    first = 1 - size % 2  # an even box has one row and column without a mirror image

    found = moved(noise, psi=90.0)[:, first:, first:]

    truth = torch.rot90(noise[:, first:, first:], -1, (1, 2))  # x, to the right, goes to y, down
    torch.testing.assert_close(found, truth, atol=tolerance, rtol=0)


def test_nothing_happens_without_turn_and_shift():
    noise = band_limited_noise(32, count=3)

    torch.testing.assert_close(moved(noise), noise, atol=1e-12, rtol=0)


def test_whole_pixel_shifts_roll_the_image():
    noise = band_limited_noise(32)

    found = moved(noise, shift_x=3.0, shift_y=-5.0)

    torch.testing.assert_close(found, noise.roll((-5, 3), (1, 2)), atol=1e-12, rtol=0)


def test_fractions_of_a_pixel_add_up():
    noise = band_limited_noise(32)

    there = moved(noise, shift_x=0.37, shift_y=2.6)

    torch.testing.assert_close(moved(there, shift_x=-0.37, shift_y=-2.6), noise, atol=1e-12, rtol=0)


def test_the_result_does_not_depend_on_the_batch():
    images = torch.randn(300, 32, 32, generator=torch.Generator().manual_seed(5))
    psi, x, y = (torch.linspace(-180, 170, 300) * f for f in (1.0, 0.02, -0.01))

    whole = transform_images(images, psi=psi, shift_x=x, shift_y=y)

    for part in (slice(0, 1), slice(63, 66), slice(299, 300)):
        alone = transform_images(images[part], psi=psi[part], shift_x=x[part], shift_y=y[part])
        torch.testing.assert_close(alone, whole[part], atol=1e-5, rtol=0)


def test_the_images_given_stay_as_they_are_and_none_is_fine():
    images = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(5))
    before = images.clone()

    assert moved(images, psi=20.0, shift_x=1.0).dtype == torch.float32
    torch.testing.assert_close(images, before, atol=0, rtol=0)
    assert moved(images[:0]).shape == (0, 16, 16)


def test_wrong_shapes_are_refused():
    with pytest.raises(ShapeError, match=r"images must have shape \(n, y, y\)"):
        moved(torch.zeros(1, 8, 6))
    with pytest.raises(ShapeError, match="psi must have one value for each of the 2 images"):
        transform_images(torch.zeros(2, 8, 8), psi=one(3), shift_x=one(0), shift_y=one(0))
    with pytest.raises(ShapeError, match="image_rffts must have shape"):
        transform_rffts(
            torch.zeros(1, 8, 8, dtype=torch.cfloat),
            size=8,
            psi=one(0),
            shift_x=one(0),
            shift_y=one(0),
        )
