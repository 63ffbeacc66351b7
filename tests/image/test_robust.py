"""Middle and spread in the presence of values that do not belong."""

from __future__ import annotations

import torch

from cryopick.image.robust import middle_and_spread


def test_a_normal_distribution_keeps_its_moments_with_a_tenth_of_outliers() -> None:
    values = 3.0 + 2.0 * torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    values[:1000] = 1e6
    values[1000:2000] = -1e6

    middle, spread = middle_and_spread(values.reshape(100, 200))

    assert abs(float(middle) - 3.0) < 0.06
    assert 2.0 < float(spread) < 2.5  # outliers widen it a little, and no more


def test_along_a_dimension_each_row_stands_alone() -> None:
    values = torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(2))

    middle, spread = middle_and_spread(values, dim=1)

    assert middle.shape == spread.shape == (4, 7)
    for i in range(4):
        for j in range(7):
            assert torch.equal(torch.stack((middle[i, j], spread[i, j])),
                               torch.stack(middle_and_spread(values[i, :, j])))  # fmt: skip


def test_equal_values_have_no_spread() -> None:
    assert [float(v) for v in middle_and_spread(torch.full((9,), 4.0))] == [4.0, 0.0]
