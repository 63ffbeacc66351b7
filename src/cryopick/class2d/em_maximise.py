"""The maximisation step: from the sums of all shards to the next averages, noise and priors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from cryopick.alignment.rings import RingBasis
from cryopick.alignment.sums import RingSums
from cryopick.class2d.em_expect import ShardResult

__all__ = ["IterationSums", "find_scales", "find_sigma_offset", "merge_shards", "update_noise"]

_LEAST_SIGMA_OFFSET = 2.0  # A
_SCALE_RANGE = 5.0  # a group's contrast stays within this factor of the median
_FEWEST = 10.0  # particles' worth of prior that a group's scale is 1


@dataclass(frozen=True, kw_only=True)
class IterationSums:
    """Sums of all shards; tensors float64 on the CPU."""

    sums: RingSums
    offset_square: float
    image_power: Tensor
    explained: Tensor
    ctf_power: Tensor
    optics_counts: Tensor
    group_cross: Tensor
    group_norm: Tensor


def merge_shards(shards: Iterable[ShardResult]) -> IterationSums:
    """Add shards in the order they come in."""
    merged: IterationSums | None = None
    for shard in shards:
        part = _on_cpu(shard)
        merged = part if merged is None else _add(merged, part)
    assert merged is not None, "an iteration has at least one shard"
    return merged


def _on_cpu(shard: ShardResult) -> IterationSums:
    sums = shard.sums
    return IterationSums(
        sums=RingSums(
            numerator=sums.numerator.cpu(),
            denominator=sums.denominator.cpu(),
            counts=sums.counts.cpu(),
        ),
        offset_square=shard.offset_square,
        image_power=shard.image_power.cpu(),
        explained=shard.explained.cpu(),
        ctf_power=shard.ctf_power.cpu(),
        optics_counts=shard.optics_counts.cpu(),
        group_cross=shard.group_cross.cpu(),
        group_norm=shard.group_norm.cpu(),
    )


def _add(first: IterationSums, second: IterationSums) -> IterationSums:
    return IterationSums(
        sums=first.sums.merge(second.sums),
        offset_square=first.offset_square + second.offset_square,
        image_power=first.image_power + second.image_power,
        explained=first.explained + second.explained,
        ctf_power=first.ctf_power + second.ctf_power,
        optics_counts=first.optics_counts + second.optics_counts,
        group_cross=first.group_cross + second.group_cross,
        group_norm=first.group_norm + second.group_norm,
    )


def update_noise(noise: Tensor, totals: IterationSums, basis: RingBasis, *, share: float) -> Tensor:
    """Power of the noise per optics group and ring from what the averages leave of the images.

    Parameters
    ----------
    noise
        (optics groups, most rings) of the iteration before; rings not in use stay.
    share
        Of white noise power that the mask leaves: the result is of unmasked noise.
    """
    counts = totals.optics_counts[:, None]
    left = (totals.image_power - totals.explained) / share
    per_image = left / totals.ctf_power.clamp_min(1e-6)
    old = noise[:, : basis.n_rings]
    image_power = totals.image_power / totals.ctf_power.clamp_min(1e-6) / share
    updated = noise.clone()
    fresh = torch.maximum(per_image, 0.1 * image_power).to(noise.dtype)
    updated[:, : basis.n_rings] = torch.where(counts > 0, fresh, old)
    return updated


def find_sigma_offset(totals: IterationSums) -> float:
    """Spread of the shifts along one axis, A."""
    count = max(float(totals.optics_counts.sum()), 1.0)
    return max(math.sqrt(totals.offset_square / count / 2), _LEAST_SIGMA_OFFSET)


def find_scales(scales: Tensor, totals: IterationSums) -> Tensor:
    """Contrast of each group against the averages: sum <Y, A> / sum <G, |A|^2>, mean 1.

    The sums have been made with images and averages scaled by `scales` already. Small groups are
    drawn towards 1 as if they had some average particles more.
    """
    norm = totals.group_norm
    n_images = float(totals.optics_counts.sum())
    typical = float(norm.sum()) / max(n_images, 1.0)
    ratio = float(totals.group_cross.sum()) / max(float(norm.sum()), 1e-30)
    factor = (totals.group_cross / max(ratio, 1e-30) + _FEWEST * typical) / (
        norm + _FEWEST * typical + 1e-30
    )
    fresh = scales.double() * factor
    median = fresh.median().clamp_min(1e-6)
    fresh = fresh.clamp(median / _SCALE_RANGE, median * _SCALE_RANGE)
    return (fresh / fresh.mean()).to(scales.dtype)
