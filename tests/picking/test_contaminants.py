"""Picks of ice and of what lies beyond the rim are told from particles."""

from __future__ import annotations

import torch

from cryopick.picking.contaminants import is_inner_peak, is_unlike_particles


def field_with_bumps(heights, *, shape=(300, 300), seed=0):
    """White noise of variance 1 with a bump of radius 6 px for each height, on a grid."""
    image = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    y, x = torch.meshgrid(torch.arange(shape[0]), torch.arange(shape[1]), indexing="ij")
    pixels = []
    for i, height in enumerate(heights):
        row, column = 25 + 50 * (i // 5), 25 + 50 * (i % 5)
        image += height * torch.exp(-((y - row) ** 2 + (x - column) ** 2) / 36)
        pixels.append((row, column))
    return image, torch.tensor(pixels)


def test_a_lump_far_stronger_than_the_particles_is_unlike_them():
    heights = [2.0, 1.6, 2.4, 1.8, 2.2] * 5
    heights[7] = 9.0
    image, pixels = field_with_bumps(heights)

    unlike = is_unlike_particles(image, pixels, torch.ones(25, dtype=torch.bool), radius=10)

    assert unlike.nonzero().flatten().tolist() == [7]


def test_with_few_picks_nothing_is_called_unusual():
    image, pixels = field_with_bumps([2.0] * 9 + [20.0])

    unlike = is_unlike_particles(image, pixels, torch.ones(10, dtype=torch.bool), radius=10)

    assert not unlike.any()


def test_a_slope_that_ends_at_the_rim_of_the_search_is_no_peak():
    scores = torch.zeros(20, 30)
    scores[10, 12] = 3.0
    scores[:, 25:] = torch.arange(1.0, 6.0)  # rises out of the searched area

    assert is_inner_peak(scores, torch.tensor([[10, 12], [4, 25]])).tolist() == [True, False]
