"""What an iteration sums over its particles, for the maximisation step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce

import torch
from torch import Tensor

from cryopick.alignment.rings import RingBasis
from cryopick.alignment.sums import RingSums

__all__ = ["FAN_IN", "IterationSums", "fold_sums", "merge_in_tree"]

FAN_IN = 8  # sums that are added one after the other in each node of the tree


@dataclass(frozen=True, kw_only=True)
class IterationSums:
    """Running sums, added to in place; float64 on the device of the images."""

    sums: RingSums
    offset_square: Tensor  # (): posterior mean of |shift|^2, A^2
    image_power: Tensor  # (optics groups, R): |X|^2
    explained: Tensor  # (optics groups, R): what the classes take from it
    ctf_power: Tensor  # (optics groups, R): CTF^2 of premultiplied images, 1 of others
    optics_counts: Tensor  # (optics groups,)
    group_cross: Tensor  # (groups,): <Y, A>
    group_norm: Tensor  # (groups,): <G, |A|^2>

    @classmethod
    def empty(
        cls, basis: RingBasis, *, n_classes: int, n_optics: int, n_groups: int
    ) -> IterationSums:
        """Make sums of nothing."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=basis.angles.device)

        return cls(
            sums=RingSums.empty(n_classes, basis),
            offset_square=zeros(),
            image_power=zeros(n_optics, basis.n_rings),
            explained=zeros(n_optics, basis.n_rings),
            ctf_power=zeros(n_optics, basis.n_rings),
            optics_counts=zeros(n_optics),
            group_cross=zeros(n_groups),
            group_norm=zeros(n_groups),
        )

    def merge(self, other: IterationSums) -> IterationSums:
        """Add the sums of another shard; neither is changed."""
        added = {n: getattr(self, n) + getattr(other, n) for n in _TENSORS}
        return IterationSums(sums=self.sums.merge(other.sums), **added)

    def weighted(self, weight: float) -> IterationSums:
        """Scale what goes into the averages."""
        return replace(self, sums=self.sums.weighted(weight))

    def cpu(self) -> IterationSums:
        """Bring the sums to the CPU."""
        return IterationSums(sums=self.sums.cpu(), **{n: getattr(self, n).cpu() for n in _TENSORS})


def fold_sums(parts: Sequence[IterationSums]) -> IterationSums:
    """Add the sums of a node of the tree, in their order; on the CPU."""
    return reduce(IterationSums.merge, (part.cpu() for part in parts))


def merge_in_tree(parts: Iterable[IterationSums]) -> IterationSums:
    """Add the sums of shards in a tree that depends on their number alone.

    Eight neighbours are added in their order, then eight of these sums, and so on: whoever makes
    the nodes, the result is the same to the last bit. One sum for each level is kept.

    Raises
    ------
    ValueError
        If there are no parts.
    """
    levels: list[tuple[IterationSums, int]] = []  # sum so far, and of how many; lowest first

    def add(part: IterationSums, level: int) -> None:
        if level == len(levels):
            levels.append((part, 1))
            return
        total, count = levels[level]
        total, count = (total.merge(part), count + 1) if count else (part, 1)
        levels[level] = (total, count if count < FAN_IN else 0)
        if count == FAN_IN:
            add(total, level + 1)

    for part in parts:
        add(part.cpu(), 0)
    if not levels:
        raise ValueError("no sums to merge")
    level = 0
    while level < len(levels) - 1:  # nodes that are not full
        total, count = levels[level]
        level += 1
        if count:
            add(total, level)
    return levels[level][0]


_TENSORS = tuple(f.name for f in fields(IterationSums) if f.name != "sums")
