"""Round filters agree with their closed forms and answer best to what they are made for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cryopick.image.filters import high_pass, local_mean, log_disc, sphere_shell
from cryopick.image.fourier import frequency_grid

SIZE = 128


def distance():
    steps = torch.arange(SIZE, dtype=torch.float64) - SIZE // 2
    return torch.hypot(steps[:, None], steps[None, :])


def frequency():
    fy, fx = frequency_grid((SIZE, SIZE), dtype=torch.float64)
    return torch.hypot(fy, fx)


def filtered_center(image, transfer):
    response = torch.fft.irfft2(torch.fft.rfft2(image) * transfer, s=(SIZE, SIZE))
    return response[SIZE // 2, SIZE // 2].item()


def test_scale_normalised_log_answers_best_at_the_diameter_of_the_disc():
    disc = (distance() <= 15).double()
    diameters = np.arange(20, 44)

    answers = [filtered_center(disc, d**2 * log_disc(frequency(), diameter=d)) for d in diameters]

    assert diameters[int(np.argmax(answers))] == pytest.approx(30, abs=1)


def test_shell_is_the_projection_of_a_hollow_sphere():
    r = distance()
    outer = 2 * (30.0**2 - r**2).clamp_min(0).sqrt()
    inner = 2 * (18.0**2 - r**2).clamp_min(0).sqrt()
    expected = torch.fft.rfft2(torch.fft.ifftshift(outer - inner)).real
    expected = expected / (4 / 3 * math.pi * 30**3)

    transfer = sphere_shell(frequency(), diameter=60, hollowness=0.6, softness=0.0)

    assert torch.corrcoef(torch.stack([expected.flatten(), transfer.flatten()]))[0, 1] > 0.999
    assert transfer[0, 0].item() == pytest.approx(1 - 0.6**3)


def test_high_pass_removes_the_mean_and_keeps_fine_detail():
    transfer = high_pass(torch.tensor([0.0, 1 / 100, 0.5]), length=100.0)

    assert transfer[0] == 0
    assert transfer[1].item() == pytest.approx(1 - math.exp(-2), rel=1e-5)
    assert transfer[2].item() == pytest.approx(1.0)


@pytest.mark.parametrize("radius", [0, 2, 9])
def test_local_mean_of_a_constant_is_the_constant_inside(radius):
    means = local_mean(torch.full((2, 90, 101), 3.0), radius=radius)

    assert means.shape == (2, 90, 101)
    torch.testing.assert_close(means[:, 40:50, 40:50], torch.full((2, 10, 10), 3.0))


@pytest.mark.parametrize("radius", [3, 12])
def test_local_mean_spreads_a_point_over_its_window(radius):
    point = torch.zeros(121, 121)
    point[60, 60] = 1.0

    window = local_mean(point, radius=radius)

    y, x = torch.meshgrid(torch.arange(121) - 60, torch.arange(121) - 60, indexing="ij")
    width = ((window * y**2).sum() / window.sum()).sqrt().item()
    assert window.sum().item() == pytest.approx(1.0, abs=0.05)
    assert width == pytest.approx(math.sqrt(radius * (radius + 1)), rel=0.2)
    assert abs((window * x).sum().item()) < 1.0
