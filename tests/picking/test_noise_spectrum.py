"""The spectrum of a background is that of the noise, whatever stands in the gaps."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from cryopick.errors import ShapeError
from cryopick.image.fourier import frequency_grid
from cryopick.picking.noise_spectrum import noise_power

SHAPE = (400, 500)
PIXEL_SIZE = 3.0
FREQUENCY = torch.hypot(*frequency_grid(SHAPE, pixel_size=PIXEL_SIZE))


def coloured_noise(transfer, seed=0):
    white = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    return torch.fft.irfft2(torch.fft.rfft2(white) * transfer, s=SHAPE)


def rings(values, *, edges=(0.0, 0.02, 0.05, 0.08, 0.11, 0.14)):
    bands = pairwise(edges)
    return [values[(low <= FREQUENCY) & (high > FREQUENCY)].mean().item() for low, high in bands]


def measure(image, is_background):
    return noise_power(image, is_background, FREQUENCY, pixel_size=PIXEL_SIZE, reach=90.0)


def test_white_noise_of_variance_4_has_power_4_everywhere():
    power = measure(coloured_noise(torch.tensor(2.0)), torch.ones(SHAPE, dtype=torch.bool))

    assert rings(power) == pytest.approx([4.0] * 5, rel=0.05)


def test_coloured_noise_is_measured_between_strong_particles():
    transfer = torch.exp(-((FREQUENCY * 10) ** 2)) + 0.5
    image = coloured_noise(transfer)
    is_background = torch.ones(SHAPE, dtype=torch.bool)
    for y in range(0, 400, 50):
        for x in range(0, 500, 50):
            image[y : y + 30, x : x + 30] += 9.0
            is_background[y : y + 30, x : x + 30] = False

    ratio = measure(image, is_background) / transfer.square()

    assert rings(ratio) == pytest.approx([1.0] * 5, rel=0.06)


def test_the_scale_of_the_field_scales_the_power_by_its_square():
    image, everything = coloured_noise(1 / (1 + 50 * FREQUENCY)), torch.ones(SHAPE).bool()

    assert torch.allclose(measure(10 * image, everything), 100 * measure(image, everything))


def test_frequencies_that_were_filtered_away_are_not_blown_up():
    image = coloured_noise((FREQUENCY < 0.05).float())

    power = measure(image, torch.ones(SHAPE, dtype=torch.bool))

    assert power.min() >= power.max() / 6.01


def test_a_stack_is_refused():
    with pytest.raises(ShapeError):
        measure(torch.zeros(2, *SHAPE), torch.ones(SHAPE, dtype=torch.bool))
