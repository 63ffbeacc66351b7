"""Kernels of features: what they are, and what they see of waves and of noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryopick.tomogram.features import feature_values, keep_strongest, make_bank
from cryopick.tomogram.segment_parameters import FeatureParameters


def bank_of(mode, side=5, **more):
    return make_bank(FeatureParameters(mode=mode, **more), neighborhood_size=side)


def noise(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def values(bank, patches):
    return feature_values(bank.is_magnitude, bank.even @ patches.T, bank.odd @ patches.T)


@pytest.mark.parametrize("side", [3, 5])
def test_ffts_are_the_distinct_magnitudes_of_the_transform(side):
    patches = noise(20, side**3)
    transform = np.fft.fftn(patches.reshape(-1, side, side, side).numpy(), axes=(1, 2, 3))

    found = values(bank_of("ffts", side), patches)

    assert len(found) == (side**3 + 1) // 2
    torch.testing.assert_close(found[0], patches.sum(1))
    every = np.sort(np.abs(transform).reshape(20, -1)[:, 1:], 1)
    twice = np.sort(np.repeat(found[1:].T.numpy() ** 2, 2, axis=1), 1)
    np.testing.assert_allclose(twice, every, rtol=1e-8, atol=1e-10)


def test_intensities_are_the_voxels():
    patches = noise(4, 27)

    torch.testing.assert_close(values(bank_of("intensities", 3), patches), patches.T)


def test_gabor_pairs_have_no_mean_and_the_norm_of_one():
    bank = bank_of("gabor", num_sinusoids=6)

    assert not bank.is_magnitude.any()
    torch.testing.assert_close(bank.even[1:].sum(1), torch.zeros(len(bank) - 1).double())
    torch.testing.assert_close(bank.even.norm(dim=1), torch.ones(len(bank)).double())
    assert bank.even[0].min() > 0


def test_gabor_frequencies_cover_the_half_space_once():
    bank = bank_of("gabor", num_sinusoids=10)
    kernels = bank.even[1:].view(-1, 2, 125)

    n_mirrored = 10 * 10 // 2  # of the plane z = 0, but for the frequency zero
    assert len(kernels) <= 1000 - n_mirrored
    assert len(kernels) > 900
    likeness = (kernels[:, 0] @ kernels[:, 0].T).abs() * (kernels[:, 1] @ kernels[:, 1].T).abs()
    assert (likeness.fill_diagonal_(0) < 1 - 1e-6).all()


def test_the_energy_of_a_gabor_pair_does_not_depend_on_the_phase_of_a_wave():
    bank = bank_of("gabor", side=9, num_sinusoids=4)
    axis = torch.arange(9, dtype=torch.float64) - 4
    phases = torch.linspace(0, 6, 13, dtype=torch.float64)
    waves = torch.cos(2 * torch.pi * 0.25 * axis + phases[:, None])
    patches = waves[:, None, None, :].expand(-1, 9, 9, 9).reshape(13, -1)

    energy = (bank.even[1:] @ patches.T).view(-1, 2, 13).square().sum(1)

    strongest = energy[energy.mean(1).argmax()]
    assert float(strongest.std() / strongest.mean()) < 0.05


def test_the_strongest_filters_are_those_whose_measured_responses_vary_most():
    generator = torch.Generator().manual_seed(2)
    mixing = torch.randn(27, 27, generator=generator, dtype=torch.float64)
    patches = torch.randn(4000, 27, generator=generator, dtype=torch.float64) @ mixing
    bank = bank_of("gabor", side=3, num_sinusoids=4)

    kept = keep_strongest(bank, torch.cov(patches.T), 9)

    responses = (bank.even[1:] @ patches.T).var(1).view(-1, 2).sum(1)
    kept_responses = (kept.even[1:] @ patches.T).var(1).view(-1, 2).sum(1)
    assert len(kept) == 9
    torch.testing.assert_close(kept_responses.sort().values, responses.topk(4).values.sort().values)
