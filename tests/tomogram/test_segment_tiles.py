"""Tiles and blocks: they cover a volume once, and blocks do not change what a tile sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from cryopick.errors import DataError
from cryopick.tomogram.segment_levels import (
    blur_matrix,
    blur_radius,
    find_levels,
    scale_levels,
    smooth,
)
from cryopick.tomogram.segment_sample import FitRegion, draw_neighbourhoods, draw_places
from cryopick.tomogram.segment_tiles import (
    TILE,
    Box,
    cut_tile,
    plan_blocks,
    read_padded,
    tiles_of,
)

SHAPE = (70, 40, 101)


@pytest.fixture(scope="module")
def volume():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def reader(volume):
    return lambda lower, upper: volume[
        tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))
    ].copy()


@pytest.mark.parametrize("most", [1, TILE**3 * 2, TILE**3 * 5, 10**9])
def test_blocks_and_their_tiles_cover_the_volume_once(most):
    counts = np.zeros(SHAPE, int)

    blocks = plan_blocks(SHAPE, max_voxels=most)
    for block in blocks:
        assert block.size <= max(most, TILE**3)
        for tile in tiles_of(block):
            assert all(low % TILE == 0 for low in tile.lower)
            counts[tuple(slice(a, b) for a, b in zip(tile.lower, tile.upper, strict=True))] += 1

    assert (counts == 1).all()


@pytest.mark.parametrize("halo", [0, 3, 10, 60])
@pytest.mark.parametrize("most", [1, TILE**3 * 4])
def test_a_tile_is_the_mirrored_volume_whatever_the_block(volume, halo, most):
    mirrored = np.pad(volume, [(halo, halo + TILE)] * 3, mode="symmetric")

    for block in plan_blocks(SHAPE, max_voxels=most):
        padded = read_padded(reader(volume), SHAPE, block, halo)
        for tile in tiles_of(block):
            found = cut_tile(padded, block, tile, halo)
            assert found.shape == (TILE + 2 * halo,) * 3
            size = tuple(n + 2 * halo for n in tile.shape)
            wanted = mirrored[tuple(slice(a, a + n) for a, n in zip(tile.lower, size, strict=True))]
            part = found[tuple(slice(0, n) for n in size)]
            np.testing.assert_array_equal(part, wanted)


@pytest.mark.parametrize("sigma", [0.0, 0.7, 2.0])
def test_smoothing_of_tiles_is_a_gaussian_filter_of_the_volume(volume, sigma):
    wanted = ndimage.gaussian_filter(volume, sigma, truncate=4, mode="reflect")
    radius = blur_radius(sigma)
    matrix = blur_matrix(sigma, size=TILE, margin=radius)

    for tile in tiles_of(Box((0, 0, 0), SHAPE)):
        padded = torch.from_numpy(read_padded(reader(volume), SHAPE, tile, radius))
        found = smooth(padded, matrix)[tuple(slice(0, n) for n in tile.shape)]
        where = tuple(slice(a, b) for a, b in zip(tile.lower, tile.upper, strict=True))
        np.testing.assert_allclose(found.numpy(), wanted[where], atol=2e-6)


def test_levels_of_noise_are_its_median_and_deviation_whatever_the_gold():
    values = np.random.default_rng(1).normal(7, 3, 50_000).astype(np.float32)
    values[:100] = -4000

    levels = find_levels(values, name="a")
    scaled = scale_levels(torch.from_numpy(values.copy()), levels)

    assert levels.center == pytest.approx(7, abs=0.1)
    assert levels.spread == pytest.approx(3, rel=0.03)
    assert float(scaled.abs().max()) <= levels.limit < 8
    assert float(scaled[200:].std()) == pytest.approx(1, abs=0.06)


def test_padding_of_one_value_does_not_hide_the_noise():
    values = np.zeros(1000, np.float32)
    values[:300] = np.random.default_rng(1).normal(0, 3, 300)

    assert find_levels(values, name="a").spread == pytest.approx(3, rel=0.2)


@pytest.mark.parametrize(("value", "sentence"), [(1.0, "have contrast"), (np.nan, "numbers only")])
def test_what_has_no_levels_is_refused(value, sentence):
    with pytest.raises(DataError, match=f"a must .*{sentence}"):
        find_levels(np.full(100, value, np.float32), name="a")


def test_places_are_drawn_one_from_each_run():
    drawn = draw_places(1003, 100, np.random.default_rng(0))

    assert (np.diff(drawn) > 0).all()
    assert (drawn * 100 // 1003).tolist() == pytest.approx(list(range(100)), abs=1)


def test_neighbourhoods_are_those_of_the_smoothed_volume_within_the_limits(volume):
    marked = np.zeros(SHAPE, np.float32)
    marked[:] = np.arange(SHAPE[0], dtype=np.float32)[:, None, None]
    region = FitRegion(SHAPE, 20, 45, 5)

    found = draw_neighbourhoods(reader(marked), region, sigma=0, number=3000, seed=1)

    middle = found[:, 62]
    assert len(found) == pytest.approx(3000, rel=0.02)
    assert (middle.min(), middle.max()) == (20, 44)
    assert float(middle.mean()) == pytest.approx(32, abs=0.5)
    torch.testing.assert_close(found[:, 0], middle - 2)
    torch.testing.assert_close(found[:, -1], middle + 2)


def test_the_draw_depends_on_the_seed_alone(volume):
    region = FitRegion(SHAPE, 0, 70, 3)
    draws = [
        draw_neighbourhoods(reader(volume), region, sigma=1, number=500, seed=s) for s in (1, 1, 2)
    ]

    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
