"""Sums over posed images for the averages, in the same harmonics as the search.

N_m(r) = sum w Y_m(r, t) exp(-i m psi)        numerator
D_m(r) = sum w G_m(r) exp(-i m psi)           denominator, m = 0, 2, 4
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryopick.alignment.references import POWER_ORDERS
from cryopick.alignment.rings import RingBasis
from cryopick.alignment.search import Tile, Workspace

__all__ = ["PosedImages", "RingSums", "add_posed", "turn_phases"]


_LEAST_SHARE = 1e-3  # of an image's posterior, for a class and shift to count


@dataclass(frozen=True, kw_only=True)
class PosedImages:
    """Images of a tile at classes and shifts, each with its posterior over rotations."""

    image: Tensor  # (d,) int64: place in the tile
    class_index: Tensor  # (d,) int64
    shift_index: Tensor  # (d,) int64
    turns: Tensor  # (B, d) complex64: sum over psi of weight exp(-i m psi)

    @classmethod
    def from_posterior(
        cls, posterior: Tensor, class_index: Tensor, shift_index: Tensor, turns: Tensor
    ) -> PosedImages:
        """Take the pairs of class and shift that count, with all their rotations.

        Parameters
        ----------
        posterior
            (n, T, n_psi).
        class_index, shift_index
            (n, T).
        turns
            (n_psi, B) complex64 of `turn_phases`.
        """
        image, pair = (posterior.sum(2) > _LEAST_SHARE).nonzero(as_tuple=True)
        flat = posterior[image, pair]
        real, imaginary = flat @ turns.real, flat @ turns.imag
        return cls(
            image=image,
            class_index=class_index[image, pair],
            shift_index=shift_index[image, pair],
            turns=torch.complex(real, imaginary).T,
        )


def turn_phases(psi: Tensor, basis: RingBasis) -> Tensor:
    """exp(-i m psi) for (n,) rotations in rad: (n, B) complex64."""
    return torch.exp(-1j * psi[:, None] * basis.orders).to(torch.complex64)


@dataclass(frozen=True, kw_only=True)
class RingSums:
    """Running sums of K classes; `add_posed` adds in place."""

    numerator: Tensor  # (K, R, B) complex128
    denominator: Tensor  # (K, R, 3) complex128
    counts: Tensor  # (K,) float64

    @classmethod
    def empty(cls, n_classes: int, basis: RingBasis) -> RingSums:
        """Make sums of nothing."""
        device = basis.angles.device
        first = torch.zeros(n_classes, basis.n_rings, dtype=torch.complex128, device=device)
        return cls(
            numerator=first[..., None].repeat(1, 1, basis.n_orders),
            denominator=first[..., None].repeat(1, 1, len(POWER_ORDERS)),
            counts=torch.zeros(n_classes, dtype=torch.float64, device=device),
        )

    def cpu(self) -> RingSums:
        """Bring the sums to the CPU."""
        return RingSums(
            numerator=self.numerator.cpu(),
            denominator=self.denominator.cpu(),
            counts=self.counts.cpu(),
        )

    def weighted(self, weight: float) -> RingSums:
        """Scale the sums."""
        return RingSums(
            numerator=self.numerator * weight,
            denominator=self.denominator * weight,
            counts=self.counts * weight,
        )

    def merge(self, other: RingSums) -> RingSums:
        """Add the sums of another shard; neither is changed."""
        return RingSums(
            numerator=self.numerator + other.numerator.to(self.numerator),
            denominator=self.denominator + other.denominator.to(self.denominator),
            counts=self.counts + other.counts.to(self.counts),
        )


def add_posed(
    sums: RingSums, tile: Tile, posed: PosedImages, basis: RingBasis, workspace: Workspace
) -> None:
    """Add a tile's posed images to the sums, one matrix product for each order."""
    n_orders, rows, _, n_shifts = tile.weighted.shape
    n_posed, half = len(posed.image), rows // 2
    classes, mine = torch.unique(posed.class_index, return_inverse=True)
    k = len(classes)
    column = posed.image * n_shifts + posed.shift_index
    rings = workspace.get("rings", n_orders, rows, n_posed)
    torch.index_select(tile.weighted.view(n_orders, rows, -1), 2, column, out=rings)
    weights = workspace.get("turns", n_orders, 2 * k, n_posed).zero_()
    place = torch.arange(n_posed, device=column.device)
    weights[:, mine, place] = posed.turns.real
    weights[:, mine + k, place] = posed.turns.imag
    total = torch.bmm(weights, rings.transpose(1, 2))  # (B, 2 k, 2 R)
    real = total[:, :k, :half] - total[:, k:, half:]
    imaginary = total[:, :k, half:] + total[:, k:, :half]
    found = torch.complex(real, imaginary).permute(1, 2, 0).to(torch.complex128)
    sums.numerator.index_add_(0, classes, found)
    power = tile.power[:, posed.image] * posed.turns[: len(POWER_ORDERS)].T  # (R, d, 3)
    sums.denominator.index_add_(0, posed.class_index, power.transpose(0, 1).to(torch.complex128))
    sums.counts.index_add_(0, posed.class_index, posed.turns[0].real.double())
