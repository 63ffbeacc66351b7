"""The mean power spectrum against Parseval's theorem, plain transforms and known noise."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from thon_rings import PIXEL_SIZE, ctf_of, field_of

from conftest import available_devices
from cryopick.ctf.polar import polar_spectrum, ring_contrast
from cryopick.ctf.spectrum import average_spectrum, hann_autocorrelation
from cryopick.errors import DataError


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spectrum_of(field, **given):
    values = {"tile_size": 128, "pixel_size": PIXEL_SIZE, "max_resolution": 3.0} | given
    return average_spectrum(field, **values)


@pytest.mark.parametrize("device", available_devices())
def test_the_power_of_white_noise_is_its_variance_at_every_frequency(device):
    field = 3.0 * noise(640, 640).to(device)
    window = torch.hann_window(128, periodic=False)

    power = spectrum_of(field).power / float(window.square().sum()) ** 2

    assert float(power[1:, 1:].mean()) == pytest.approx(9.0, rel=0.02)
    assert float(power[1:, 1:].std()) < 0.15 * 9.0  # 81 tiles


def test_a_wave_is_found_at_its_frequency_and_in_its_direction():
    y, x = torch.meshgrid(torch.arange(512.0), torch.arange(512.0), indexing="ij")
    field = torch.cos(2 * math.pi * (10 * x - 7 * y) / 128) + 0.01 * noise(512, 512)

    spectrum = spectrum_of(field)

    side = spectrum.power.shape[0]
    place = divmod(int(spectrum.power.argmax()), side // 2 + 1)
    assert place == (side - 7, 10)


def test_cutting_off_high_frequencies_leaves_the_low_ones():
    field = noise(400, 300)

    whole = spectrum_of(field)
    cut = spectrum_of(field, max_resolution=6.0)

    assert cut.power.shape[0] == pytest.approx(64, abs=4)
    n = cut.power.shape[0] // 2
    torch.testing.assert_close(cut.power[:n, :n], whole.power[:n, :n])
    assert cut.pixel_size * cut.power.shape[0] == pytest.approx(128 * PIXEL_SIZE)


def test_brightness_scale_and_strides_do_not_matter():
    field = noise(300, 260)

    plain = spectrum_of(field).power
    other = spectrum_of((1000 + 2 * field).T.contiguous().T).power

    torch.testing.assert_close(other, 4 * plain, rtol=1e-3, atol=1e-3 * float(plain.max()))


@pytest.mark.parametrize("scale", [1e-35, 1e-25, 1e18, 1e36])
def test_values_whose_squares_float32_cannot_hold_do_not_matter(scale):
    field = noise(300, 260)

    plain, other = spectrum_of(field), spectrum_of(scale * field)

    torch.testing.assert_close(other.power / scale**2, plain.power, rtol=1e-4, atol=0)
    assert other.n_left_out == plain.n_left_out


def test_where_no_tile_is_like_the_others_all_that_hold_something_are_kept():
    down = torch.linspace(0, 1, 1024)[:, None]
    shading = 20 * (1 - down) * torch.linspace(-1, 1, 1024)
    field = (1 + down) * noise(1024, 1024) + shading

    spectrum = spectrum_of(field, tile_size=768)

    assert (spectrum.n_tiles, spectrum.n_left_out) == (4, 0)
    finest = spectrum.power[200:256, 200:256].mean() / torch.hann_window(768).square().sum() ** 2
    assert 1.0 < float(finest) < 4.0  # variance of the grain from top to bottom


def test_a_damaged_border_and_hot_pixels_do_not_reach_the_spectrum():
    field = noise(640, 640)
    damaged = field.clone()
    damaged[:, -90:] = 8 * noise(640, 90, seed=1)
    generator = torch.Generator().manual_seed(2)
    rows, columns = (torch.randint(0, n, (40,), generator=generator) for n in (640, 500))
    damaged[rows, columns] = 5000.0

    spectrum = spectrum_of(damaged)

    assert spectrum.n_left_out >= 9
    ratio = spectrum.power[1:, 1:].mean() / spectrum_of(field).power[1:, 1:].mean()
    assert float(ratio) == pytest.approx(1.0, abs=0.08)


def test_the_variance_of_bins_is_what_repeated_noise_shows():
    def log_power(seed):
        spectrum = spectrum_of(noise(520, 520, seed=seed), tile_size=256)
        return polar_spectrum(spectrum, min_resolution=30, max_resolution=4, n_angles=18)

    bins = [log_power(seed) for seed in range(40)]

    spread = torch.stack([b.log_power for b in bins]).var(0)
    is_there = bins[0].variance.isfinite()
    ratio = (spread[is_there] / bins[0].variance[is_there]).mean()
    assert float(ratio) == pytest.approx(1.0, abs=0.15)


def test_the_autocorrelation_of_the_window_is_its_closed_form():
    window = torch.hann_window(1000, dtype=torch.float64)
    size = window.square().sum()

    for lag in (0, 130, 500, 777, 1000):
        direct = float((window[lag:] * window[: 1000 - lag]).sum() / size)
        formula = float(hann_autocorrelation(torch.tensor(lag / 1000, dtype=torch.float64)))
        assert formula == pytest.approx(direct, abs=1e-3)


def test_tiles_count_as_independent_by_the_overlap_of_each_pair_of_windows():
    field = noise(640, 384)
    field[580:, 325:] *= 8  # in the last tile only, which is left out
    kept = [(y, x) for y in range(0, 513, 64) for x in range(0, 257, 64)][:-1]
    window = torch.hann_window(128, periodic=False, dtype=torch.float64)

    def alike(one, other):
        lag = abs(one - other)
        product = window[lag:] * window[: 128 - lag] if lag < 128 else torch.zeros(1)
        return float(product.sum() / window.square().sum()) ** 2

    spectrum = spectrum_of(field)

    assert (spectrum.n_tiles, spectrum.n_left_out) == (len(kept), 1)
    pairs = sum(alike(y, v) * alike(x, u) for y, x in kept for v, u in kept)
    assert spectrum.n_independent == pytest.approx(len(kept) ** 2 / pairs, rel=1e-2)


def test_many_small_tiles_need_no_table_of_all_pairs():
    script = """if True:
        import torch
        from cryopick.ctf.spectrum import average_spectrum
        from peak_memory import bytes_held, most_bytes
        torch.set_num_threads(1)
        def spectrum(*shape):
            given = {"tile_size": 64, "pixel_size": 1.5, "max_resolution": 4.0}
            return average_spectrum(torch.randn(shape), **given)
        spectrum(300, 300)  # maps the pages of program files, which do not count
        before = bytes_held()
        n_tiles = spectrum(1500, 2000).n_tiles
        print(n_tiles, (most_bytes() - before) // 2**20)
    """

    beside = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, cwd=beside
    )

    n_tiles, megabytes = map(int, done.stdout.split())
    assert n_tiles > 2500  # a few tables of their pairs have 500 MB
    assert megabytes < 250


def test_rings_lose_the_contrast_that_the_window_takes():
    field = field_of(ctf_of(30000), signal=20.0)
    depth = {}
    for tile in (256, 1024):
        spectrum = spectrum_of(field, tile_size=tile, max_resolution=8.0)
        bins = polar_spectrum(spectrum, min_resolution=12, max_resolution=8.5, n_angles=1)
        depth[tile] = float(bins.log_power.exp().std() / bins.log_power.exp().mean())
    period = torch.tensor(1 / (2 * 0.019687 * 30000 * 0.1), dtype=torch.float64)

    contrast = [float(ring_contrast(period, n * PIXEL_SIZE)) for n in (256, 1024)]

    assert depth[256] / depth[1024] == pytest.approx(contrast[0] / contrast[1], rel=0.15)


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        (torch.zeros(200, 100), "at least as large as a tile, 128 px; got 100 x 200 px"),
        (torch.full((200, 200), 7.0), "have contrast; got 7 in every pixel"),
        (torch.full((200, 200), math.nan), "finite numbers only; got NaN or infinity in 40000"),
    ],
)
def test_fields_without_a_spectrum_are_refused_with_a_sentence(field, sentence):
    with pytest.raises(DataError, match=sentence):
        spectrum_of(field)
