"""Multiplying by a CTF and flipping phases."""

from __future__ import annotations

import pytest
import torch

from cryopick.ctf.apply import apply_ctf, flip_phases
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.errors import ShapeError


@pytest.fixture
def ctf():
    return evaluate_ctf(
        (20, 24),
        pixel_size=3.0,
        defocus_u=torch.tensor([12000.0, 20000.0]),
        defocus_v=torch.tensor([11000.0, 20000.0]),
        defocus_angle=33.0,
        voltage=300.0,
        spherical_aberration=2.7,
        amplitude_contrast=0.1,
    )


def images(count=2):
    """Noise below Nyquist frequency, where plus and minus are one sample but two of the CTF."""
    noise = torch.randn(count, 20, 24, generator=torch.Generator().manual_seed(1))
    if not count:
        return noise
    transform = torch.fft.rfft2(noise)
    transform[:, 10] = 0
    transform[:, :, 12] = 0
    return torch.fft.irfft2(transform, s=(20, 24))


def test_flipping_phases_twice_gives_the_images_back(ctf):
    before = images()

    after = flip_phases(flip_phases(before, ctf), ctf)

    torch.testing.assert_close(after, before)


def test_flipping_the_phases_of_what_the_ctf_made_leaves_its_amplitudes(ctf):
    seen = apply_ctf(images(), ctf)

    torch.testing.assert_close(flip_phases(seen, ctf), apply_ctf(images(), ctf.abs()))


def test_a_point_becomes_the_point_spread_function(ctf):
    point = torch.zeros(2, 20, 24)
    point[:, 0, 0] = 1

    spread = torch.fft.rfft2(apply_ctf(point, ctf)).real
    inside = [y for y in range(20) if y != 10]  # off Nyquist frequency, as above
    torch.testing.assert_close(spread[:, inside, :12], ctf[:, inside, :12])


def test_one_ctf_serves_all_images_and_none(ctf):
    assert apply_ctf(images(3), ctf[:1]).shape == (3, 20, 24)
    assert apply_ctf(images(0), ctf[:1]).shape == (0, 20, 24)


def test_the_images_given_stay_as_they_are(ctf):
    given = images()

    flip_phases(given, ctf)

    torch.testing.assert_close(given, images())


def test_a_ctf_of_another_size_is_refused(ctf):
    with pytest.raises(ShapeError, match=r"ctf must have shape \(2 or 1, 24, 11\)"):
        apply_ctf(images().transpose(1, 2), ctf)
