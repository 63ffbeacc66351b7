from __future__ import annotations

import numpy as np
import pytest

from cryopick.errors import ShapeError
from cryopick.report.pictures import (
    mean_power,
    picture_of_micrograph,
    scale_bar_length,
    spread_contrast,
    stretch_contrast,
    tile_images,
)


def spot(height, width, *, y, x, sigma=6.0):
    rows, columns = np.mgrid[:height, :width]
    blob = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
    noise = np.random.default_rng(0).normal(0, 0.02, (height, width))
    return (blob + noise).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(300, 300), (301, 407), (410, 233)])
def test_a_position_in_the_picture_is_scale_times_the_position_in_the_micrograph(height, width):
    picture = picture_of_micrograph(
        spot(height, width, y=120, x=80), pixel_size=2.0, longest_side=150
    )

    bright = np.median(np.argwhere(picture.pixels == 255), axis=0)
    assert max(picture.pixels.shape) == 150
    np.testing.assert_allclose(bright, [120 * picture.scale, 80 * picture.scale], atol=0.7)
    assert picture.pixel_size == pytest.approx(2.0 / picture.scale, rel=0.01)


def test_a_small_micrograph_keeps_its_size():
    picture = picture_of_micrograph(spot(40, 50, y=20, x=20), pixel_size=None)

    assert picture.pixels.shape == (40, 50)
    assert picture.scale == 1
    assert picture.pixel_size is None


def test_hot_pixels_and_nan_do_not_spoil_the_contrast():
    clean = spot(128, 128, y=64, x=64)
    damaged = clean.copy()
    damaged[3, 5], damaged[90, 7], damaged[10, 10] = 1e6, -1e6, np.nan

    pictures = [picture_of_micrograph(m, pixel_size=2.0) for m in (clean, damaged)]

    difference = np.abs(np.subtract(*(p.pixels.astype(float) for p in pictures)))
    assert np.median(difference) <= 4
    assert np.isnan(damaged[10, 10])  # the caller's array is left alone


@pytest.mark.parametrize("value", [0.0, 7.5, np.nan])
def test_a_constant_image_is_grey(value):
    grey = picture_of_micrograph(np.full((20, 30), value, np.float32), pixel_size=1.0).pixels

    assert set(np.unique(grey)) <= {127, 128}


def test_low_pass_removes_detail_finer_than_its_resolution():
    rows, columns = np.mgrid[:256, :256]
    fine = np.cos(2 * np.pi * columns / 4) + np.cos(2 * np.pi * rows / 64)  # 8 A and 128 A

    grey = picture_of_micrograph(fine.astype(np.float32), pixel_size=2.0, low_pass=30.0).pixels

    spectrum = np.abs(np.fft.fft2(grey - grey.mean()))
    assert spectrum[0, 64] < 1e-2 * spectrum[4, 0]


def test_contrast_puts_the_median_in_the_middle_and_three_sigma_at_white():
    values = np.random.default_rng(1).normal(5, 2, (200, 200))
    values[0, 0], values[0, 1], values[0, 2] = 5, 5 + 3.2 * 2, 5 - 3.2 * 2

    grey = stretch_contrast(values)

    assert list(grey[0, :3].astype(int)) == pytest.approx([127, 255, 0], abs=3)


def test_tiles_lie_in_rows_and_the_last_row_may_be_short():
    images = np.random.default_rng(2).normal(size=(5, 8, 8))

    sheet = tile_images(images, columns=3, gap=2, background=255)

    assert sheet.shape == (18, 28)
    np.testing.assert_array_equal(sheet[10:, :8], spread_contrast(images[3].astype(np.float32)))
    assert (sheet[10:, 20:] == 255).all()  # no sixth image
    assert (sheet[:, 8:10] == 255).all()


def test_tiles_use_the_whole_range_of_an_average_on_an_empty_background():
    average = np.zeros((40, 40))
    average[10:30, 10:30] = np.linspace(1, 2, 400).reshape(20, 20)

    grey = tile_images(average[None], columns=1)

    assert len(np.unique(grey[10:30, 10:30])) > 50


def test_tiles_are_low_passed_where_the_pixel_size_is_known():
    noise = np.random.default_rng(4).normal(size=(1, 64, 64))

    raw, filtered = (
        tile_images(noise, columns=1, pixel_size=size, low_pass=20.0).astype(float)
        for size in (None, 2.0)
    )

    steps = [np.abs(np.diff(grey)).mean() for grey in (raw, filtered)]
    assert steps[1] < 0.3 * steps[0]


def test_large_tiles_are_shrunk():
    assert tile_images(np.zeros((2, 100, 50)), columns=2, gap=0, side=20).shape == (20, 20)


def test_mean_power_shows_the_ring_of_a_wave():
    wave = np.cos(2 * np.pi * np.arange(32) / 4)[None, None, :].repeat(32, 1)

    power = mean_power(wave + 100.0)

    assert np.unravel_index(power.argmax(), power.shape) in [(16, 8), (16, 24)]


@pytest.mark.parametrize("width", [3.0, 450.0, 5000.0, 123456.0])
def test_a_scale_bar_is_a_round_number_below_a_fifth_of_the_field(width):
    length = scale_bar_length(width)

    assert 0.08 * width <= length <= 0.2 * width
    assert f"{length:e}"[0] in "125"


def test_wrong_axes_are_refused():
    with pytest.raises(ShapeError, match="micrograph must have shape"):
        picture_of_micrograph(np.zeros((2, 3, 4), np.float32), pixel_size=1.0)
    with pytest.raises(ShapeError, match="images must have shape"):
        tile_images(np.zeros((3, 4)), columns=1)
