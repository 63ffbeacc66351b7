from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from cryopick.alignment.sums import RingSums
from cryopick.class2d.em_sums import FAN_IN, IterationSums, fold_sums, merge_in_tree


def sums_of(seed: int) -> IterationSums:
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return IterationSums(
        sums=RingSums(
            numerator=torch.complex(some(2, 3, 4), some(2, 3, 4)),
            denominator=torch.complex(some(2, 3, 3), some(2, 3, 3)),
            counts=some(2),
        ),
        **{f.name: some(2) for f in fields(IterationSums) if f.name != "sums"},
    )


def merge_by_levels(parts: list[IterationSums]) -> IterationSums:
    """Add as a cluster does, level by level."""
    while len(parts) > 1:
        parts = [fold_sums(parts[n : n + FAN_IN]) for n in range(0, len(parts), FAN_IN)]
    return parts[0]


@pytest.mark.parametrize("count", [1, 2, 8, 9, 16, 17, 63, 64, 65, 73, 130, 513])
def test_sums_in_a_stream_are_those_of_the_tree_to_the_last_bit(count: int) -> None:
    parts = [sums_of(n) for n in range(count)]

    streamed, by_levels = merge_in_tree(iter(parts)), merge_by_levels(parts)

    assert torch.equal(streamed.sums.numerator, by_levels.sums.numerator)
    assert torch.equal(streamed.sums.counts, by_levels.sums.counts)
    assert torch.equal(streamed.image_power, by_levels.image_power)
    total = sum(part.image_power for part in parts)
    torch.testing.assert_close(streamed.image_power, total)


def test_nothing_has_no_sum() -> None:
    with pytest.raises(ValueError, match="no sums"):
        merge_in_tree([])
