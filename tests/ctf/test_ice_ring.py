"""The ring of ice: its power over that of the rings beside it."""

from __future__ import annotations

import math

import pytest
import torch
from thon_rings import LENS, ctf_of, field_of

from cryopick.ctf.estimate import estimate_ctf
from cryopick.ctf.ice_ring import measure_ice_ring
from cryopick.ctf.spectrum import average_spectrum, crop_spectrum

PIXEL_SIZE = 1.2  # A
SIDE = 1024


def with_ring(field, height, *, low=3.95, high=3.5, pixel_size=PIXEL_SIZE):
    """Raise the power of a field between two resolutions (A) by a share of what is there."""
    fy = torch.fft.fftfreq(field.shape[0], pixel_size)[:, None]
    fx = torch.fft.rfftfreq(field.shape[1], pixel_size)[None, :]
    frequency = (fy.square() + fx.square()).sqrt()
    is_inside = (frequency > 1 / low) & (frequency < 1 / high)
    factor = torch.where(is_inside, math.sqrt(1 + height), 1.0)
    return torch.fft.irfft2(torch.fft.rfft2(field) * factor, s=field.shape)


def falling(seed=0):
    """A field whose power falls as that of most detectors does."""
    field = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    fy = torch.fft.fftfreq(SIDE, PIXEL_SIZE)[:, None]
    fx = torch.fft.rfftfreq(SIDE, PIXEL_SIZE)[None, :]
    envelope = torch.exp(-4.0 * (fy.square() + fx.square()))
    return torch.fft.irfft2(torch.fft.rfft2(field) * envelope, s=field.shape)


def measured(field, *, pixel_size=PIXEL_SIZE):
    spectrum = average_spectrum(field, tile_size=512, pixel_size=pixel_size, max_resolution=3.2)
    return measure_ice_ring(spectrum)


@pytest.mark.parametrize("height", [0.0, 0.1, 1.0, 20.0])
def test_the_power_of_the_ring_is_found(height):
    assert measured(with_ring(falling(), height)) == pytest.approx(1 + height, rel=0.03)


def test_neither_scale_nor_direction_nor_transposition_counts():
    field = with_ring(falling(), 0.5)

    expected = measured(field)
    for other in (7 - 1000 * field, field.rot90(), field.T.contiguous()):
        assert measured(other) == pytest.approx(expected, rel=1e-3)


def test_rings_beside_it_are_no_ice():
    assert measured(with_ring(falling(), 5.0, low=12, high=6)) == pytest.approx(1, rel=0.03)


def test_thon_rings_are_no_ice_and_ice_on_top_of_them_is():
    field = field_of(ctf_of(15000.0), shape=(SIDE, SIDE), pixel_size=PIXEL_SIZE)

    without = estimate_ctf(field, pixel_size=PIXEL_SIZE, **LENS)
    iced = estimate_ctf(with_ring(field, 1.5), pixel_size=PIXEL_SIZE, **LENS)

    assert without.ice_ring == pytest.approx(1, abs=0.05)
    assert iced.ice_ring == pytest.approx(2.5, rel=0.05)
    assert iced.is_trusted
    assert iced.ctf.defocus_u == pytest.approx(without.ctf.defocus_u, abs=30)


def test_where_pixels_are_too_coarse_nothing_is_said():
    field = field_of(ctf_of(15000.0), shape=(SIDE, SIDE), pixel_size=1.7)

    assert math.isnan(measured(field, pixel_size=1.7))
    assert math.isnan(estimate_ctf(field, pixel_size=1.7, **LENS).ice_ring)


def test_looking_further_changes_nothing_of_what_is_fitted():
    given = {"tile_size": 512, "pixel_size": PIXEL_SIZE}
    near = average_spectrum(falling(), max_resolution=4.0, **given)

    far = average_spectrum(falling(), max_resolution=3.2, **given)

    assert far.power.shape[0] > near.power.shape[0]
    cut = crop_spectrum(far, max_resolution=4.0, **given)
    torch.testing.assert_close(cut.power, near.power, rtol=1e-6, atol=0)
    assert cut._replace(power=near.power) == near
