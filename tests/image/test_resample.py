from __future__ import annotations

import pytest
import torch

from cryopick.errors import ParameterError, ShapeError
from cryopick.image.fourier import fourier_resize
from cryopick.image.resample import shrink_images


@pytest.mark.parametrize(("side", "size"), [(16, 8), (30, 22), (128, 64), (64, 64), (6, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shrinking_equals_a_crop_of_the_full_transform(side, size, dtype):
    torch.manual_seed(side)
    images = torch.randn(5, side, side, dtype=dtype, generator=torch.Generator().manual_seed(0))

    shrunk = shrink_images(images, size=size)

    torch.testing.assert_close(shrunk, fourier_resize(images, shape=(size, size)))
    assert shrunk.dtype == dtype


def test_a_band_limited_wave_keeps_its_values_and_its_place():
    steps = torch.arange(48.0)
    wave = torch.cos(2 * torch.pi * 3 * (steps - 24) / 48)[:, None] * torch.ones(48)
    small = torch.cos(2 * torch.pi * 3 * (torch.arange(16.0) - 8) / 16)[:, None] * torch.ones(16)

    torch.testing.assert_close(shrink_images(wave[None], size=16)[0], small, atol=1e-5, rtol=0)


def test_no_images_stay_no_images():
    assert shrink_images(torch.zeros(0, 8, 8), size=4).shape == (0, 4, 4)


def test_growing_and_odd_sizes_are_refused():
    with pytest.raises(ParameterError, match="at most 8 px"):
        shrink_images(torch.zeros(1, 8, 8), size=10)
    with pytest.raises(ParameterError, match="Try 6"):
        shrink_images(torch.zeros(1, 8, 8), size=5)
    with pytest.raises(ShapeError):
        shrink_images(torch.zeros(1, 8, 6), size=4)


@pytest.mark.parametrize("size", [24, 25])
@pytest.mark.parametrize("larger", [36, 41, 48])
def test_waves_grow_with_their_image_and_pixel_0_stays(size, larger):
    def waves(count):
        steps = torch.arange(count, dtype=torch.float64) / count
        angle = 2 * torch.pi * (3 * steps[:, None] - 5 * steps[None, :])
        return 0.7 + torch.cos(angle + 0.4)

    grown = fourier_resize(waves(size), shape=(larger, larger))
    torch.testing.assert_close(grown, waves(larger), atol=1e-12, rtol=0)
    torch.testing.assert_close(fourier_resize(grown, shape=(size, size)), waves(size))
