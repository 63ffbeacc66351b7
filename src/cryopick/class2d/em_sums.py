"""What an iteration sums over its particles, for the maximisation step."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from cryopick.alignment.rings import RingBasis
from cryopick.alignment.sums import RingSums

__all__ = ["IterationSums"]


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


_TENSORS = tuple(f.name for f in fields(IterationSums) if f.name != "sums")
