"""Noise is measured where no particle is, and thresholds keep what they promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryopick.image.filters import log_disc
from cryopick.image.fourier import frequency_grid
from cryopick.image.peaks import local_maxima
from cryopick.picking.background import (
    exclude_discs,
    expected_false_peaks,
    standardise,
    threshold_for,
    threshold_for_discoveries,
)

SHAPE = (512, 512)
NOISE = {"roughness": 0.05, "area": 1e5}


def smooth_noise(seed):
    generator = torch.Generator().manual_seed(seed)
    frequency = torch.hypot(*frequency_grid(SHAPE))
    white = torch.randn(SHAPE, generator=generator)
    return torch.fft.irfft2(torch.fft.rfft2(white) * log_disc(frequency, diameter=14.0), s=SHAPE)


def test_standardised_noise_has_mean_0_and_deviation_1():
    noise = 7.0 * smooth_noise(0) + 3.0

    result = standardise(noise[None], torch.ones(SHAPE, dtype=torch.bool), radius=60)

    assert result.scores.mean().item() == pytest.approx(0.0, abs=0.02)
    assert result.scores.std().item() == pytest.approx(1.0, abs=0.02)


def test_noise_that_differs_from_place_to_place_is_levelled():
    noise = smooth_noise(1)
    noise[:, 256:] *= 5

    scores = standardise(noise[None], torch.ones(SHAPE, dtype=torch.bool), radius=30).scores[0]

    assert scores[:, 320:].std() / scores[:, :192].std() == pytest.approx(1.0, abs=0.2)


def test_particles_outside_the_background_do_not_raise_the_noise():
    noise = smooth_noise(2)
    noise = noise / noise.std()
    is_background = torch.ones(SHAPE, dtype=torch.bool)
    is_background[100:140, 100:140] = False
    noise[100:140, 100:140] += 50

    scores = standardise(noise[None], is_background, radius=30).scores[0]

    assert scores[is_background].std().item() == pytest.approx(1.0, abs=0.1)
    assert scores[110:130, 110:130].mean().item() == pytest.approx(50, rel=0.15)


def test_number_of_noise_peaks_is_what_the_formula_says():
    found, expected = 0, 0.0
    for seed in range(40):
        everywhere = torch.ones(SHAPE, dtype=torch.bool)
        result = standardise(smooth_noise(seed)[None], everywhere, radius=170)
        found += len(local_maxima(result.scores[0], radius=2, floor=3.5))
        expected += expected_false_peaks(
            3.5, roughness=float(result.roughness[0]), area=float(everywhere.sum())
        )

    assert expected > 100
    assert found == pytest.approx(expected, rel=0.3)


@pytest.mark.parametrize("false_peaks", [0.01, 0.5, 20.0])
def test_threshold_inverts_the_expected_number(false_peaks):
    threshold = threshold_for(false_peaks, **NOISE)

    assert expected_false_peaks(threshold, **NOISE) == pytest.approx(false_peaks, rel=1e-6)


def test_an_empty_field_keeps_the_strict_threshold():
    noise_peaks = np.array([threshold_for(n, **NOISE) for n in range(1, 80)])

    threshold = threshold_for_discoveries(
        noise_peaks, false_peaks=0.5, false_share=0.1, at_least=10, **NOISE
    )

    assert threshold == threshold_for(0.5, **NOISE)


def test_a_crowded_field_lowers_the_threshold_until_a_tenth_is_noise():
    many = np.linspace(12.0, 1.0, 300)

    threshold = threshold_for_discoveries(
        many, false_peaks=0.5, false_share=0.1, at_least=10, **NOISE
    )

    picked = (many >= threshold).sum()
    assert threshold < threshold_for(0.5, **NOISE)
    assert expected_false_peaks(threshold, **NOISE) <= 0.1 * picked
    assert expected_false_peaks(threshold - 0.1, **NOISE) > 0.1 * picked


def test_excluded_discs_have_their_radius_and_leave_the_mask_alone():
    mask = torch.ones(50, 60, dtype=torch.bool)

    result = exclude_discs(mask, torch.tensor([[20.2, 30.0]]), radius=5.0)

    assert mask.all()
    assert (~result).sum().item() == pytest.approx(np.pi * 25, rel=0.05)
    assert not result[20, 30]
