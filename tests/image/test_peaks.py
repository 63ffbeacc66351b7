"""Peaks: found where they are, below the grid, at their distance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryopick.image.peaks import local_maxima, refine_peaks, suppress_close


def bump(center_yx, *, shape=(40, 50), sigma=3.0):
    y, x = torch.meshgrid(torch.arange(shape[0]), torch.arange(shape[1]), indexing="ij")
    squared = (y - center_yx[0]) ** 2 + (x - center_yx[1]) ** 2
    return torch.exp(-squared / (2 * sigma**2))


def test_local_maxima_are_sorted_and_above_the_floor():
    scores = bump((10, 10)) + 0.6 * bump((10, 40)) + 0.2 * bump((30, 25))

    found = local_maxima(scores, radius=3, floor=0.3)

    assert found.tolist() == [[10, 10], [10, 40]]


def test_no_maxima_in_a_field_of_minus_infinity():
    found = local_maxima(torch.full((8, 8), -torch.inf), radius=1, floor=0.0)

    assert found.shape == (0, 2)


@pytest.mark.parametrize("offset", [(-0.4, 0.3), (0.0, 0.0), (0.25, -0.49)])
def test_peak_of_a_smooth_bump_is_found_to_a_fiftieth_of_a_pixel(offset):
    truth = torch.tensor([20 + offset[0], 30 + offset[1]])
    scores = bump(truth.tolist())

    positions, heights = refine_peaks(scores, torch.tensor([[20, 30]]))

    torch.testing.assert_close(positions[0], truth, atol=0.02, rtol=0)
    assert heights[0].item() == pytest.approx(1.0, abs=2e-3)


def test_refining_leaves_the_scores_and_peaks_on_the_rim_alone():
    scores = bump((0, 49))
    before = scores.clone()

    positions, _ = refine_peaks(scores, torch.tensor([[0, 49]]))

    assert positions.tolist() == [[0.0, 49.0]]
    assert torch.equal(scores, before)


def test_close_points_lose_to_better_ones():
    points = np.array([[0.0, 0.0], [0.0, 3.0], [0.0, 6.0], [20.0, 0.0]])

    kept = suppress_close(points, min_distance=4.0)

    assert kept.tolist() == [0, 2, 3]  # the second falls to the first and so spares the third


def test_each_point_can_have_its_own_reach():
    points = np.array([[0.0, 0.0], [0.0, 3.0], [0.0, 10.0]])

    kept = suppress_close(points, min_distance=np.array([2.0, 8.0, 1.0]))

    assert kept.tolist() == [0, 1]


def test_no_points_suppress_nothing():
    assert suppress_close(np.zeros((0, 2)), min_distance=1.0).tolist() == []
