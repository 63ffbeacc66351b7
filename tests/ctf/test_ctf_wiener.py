"""The filter for people's eyes: it brings a field nearer to what it would be without noise."""

from __future__ import annotations

import pytest
import torch

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.ctf.wiener import wiener_field
from cryopick.errors import ShapeError

SIDE, PIXEL = 256, 3.0
LENS = FieldCtf(15000.0, 14600.0, 20.0, 300.0, 2.7, 0.1)


def field(noise, *, seed=0):
    """Dark discs through the lens, with and without noise, and as they are."""
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    density = torch.zeros(SIDE, SIDE)
    for _ in range(25):
        at = torch.rand(2, generator=draw) * SIDE
        density[(y - at[0]).square() + (x - at[1]).square() < 64] = -1.0
    ctf = LENS.evaluate((SIDE, SIDE), pixel_size=PIXEL)
    sign = torch.sign(ctf[0, 1:4].mean())
    seen = torch.fft.irfft2(torch.fft.rfft2(density) * ctf * sign, s=(SIDE, SIDE))
    given = seen + noise * seen.std() * torch.randn(SIDE, SIDE, generator=draw)
    return density, given, ctf


def likeness(a, b):
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize("noise", [1.0, 3.0, 6.0])
def test_a_field_is_more_like_its_particles_afterwards(noise):
    density, given, ctf = field(noise)
    flipped = density_with_phases_turned(density, ctf)

    before, after = likeness(given, flipped), likeness(wiener_field(given, ctf), flipped)

    assert after > before + 0.05
    assert after > 1.3 * before or after > 0.9


def density_with_phases_turned(density, ctf):
    """What the lens shows with its phases turned back: |CTF| of the density."""
    return torch.fft.irfft2(torch.fft.rfft2(density) * ctf.abs(), s=density.shape)


def test_dark_particles_stay_dark_with_and_without_a_ctf():
    density, given, ctf = field(2.0)

    for known in (ctf, None):
        shown = wiener_field(given, known)
        assert shown[density < 0].mean() < shown[density == 0].mean()


def test_noise_alone_is_taken_away():
    noise = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    ctf = LENS.evaluate((SIDE, SIDE), pixel_size=PIXEL)

    assert wiener_field(noise, ctf).std() < 0.5 * noise.std()


def test_grey_scale_follows_the_field():
    _, given, ctf = field(2.0)

    assert torch.allclose(
        wiener_field(5 * given + 100, ctf), 5 * wiener_field(given, ctf), atol=1e-3
    )


def test_a_ctf_of_another_size_is_refused():
    with pytest.raises(ShapeError):
        wiener_field(torch.zeros(64, 64), torch.zeros(64, 64))
