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

__all__ = ["Draws", "RingSums", "add_posed", "gather_posed"]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Poses of the images of a tile: some for each image, with weights that sum to 1 or less."""

    image: Tensor  # (d,) int64: place in the tile
    class_index: Tensor  # (d,) int64
    shift_index: Tensor  # (d,) int64
    psi: Tensor  # (d,) rad
    weight: Tensor  # (d,)


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
        kind = {"dtype": torch.complex128, "device": device}
        return cls(
            numerator=torch.zeros(n_classes, basis.n_rings, basis.n_orders, **kind),
            denominator=torch.zeros(n_classes, basis.n_rings, len(POWER_ORDERS), **kind),
            counts=torch.zeros(n_classes, dtype=torch.float64, device=device),
        )

    def merge(self, other: RingSums) -> RingSums:
        """Add the sums of another shard; neither is changed."""
        return RingSums(
            numerator=self.numerator + other.numerator.to(self.numerator),
            denominator=self.denominator + other.denominator.to(self.denominator),
            counts=self.counts + other.counts.to(self.counts),
        )


def gather_posed(tile: Tile, draws: Draws, basis: RingBasis) -> Tensor:
    """Take each draw's image at its shift and turn it onto its class: (R, B, d) complex64."""
    n_orders, rows, n, n_shifts = tile.weighted.shape
    column = draws.image * n_shifts + draws.shift_index
    rings = tile.weighted.view(n_orders, rows, n * n_shifts).index_select(2, column)
    half = rows // 2
    phase = torch.exp(-1j * basis.orders[:, None] * draws.psi).to(torch.complex64)
    return (torch.complex(rings[:, :half], rings[:, half:]) * phase[:, None]).transpose(0, 1)


def add_posed(
    sums: RingSums, tile: Tile, draws: Draws, basis: RingBasis, workspace: Workspace
) -> None:
    """Add a tile's draws to the sums, one matrix product for each order."""
    n_orders, rows, _, n_shifts = tile.weighted.shape
    k, n_draws, half = len(sums.counts), len(draws.image), rows // 2
    column = draws.image * n_shifts + draws.shift_index
    rings = workspace.get("rings", n_orders, rows, n_draws)
    torch.index_select(tile.weighted.view(n_orders, rows, -1), 2, column, out=rings)
    turn = basis.orders[:, None] * draws.psi
    weights = workspace.get("weights", n_orders, 2 * k, n_draws).zero_()
    place = torch.arange(n_draws, device=column.device)
    weights[:, draws.class_index, place] = torch.cos(turn) * draws.weight
    weights[:, draws.class_index + k, place] = -torch.sin(turn) * draws.weight
    total = torch.bmm(weights, rings.transpose(1, 2))  # (B, 2 K, 2 R)
    real = total[:, :k, :half] - total[:, k:, half:]
    imaginary = total[:, :k, half:] + total[:, k:, :half]
    sums.numerator.add_(torch.complex(real, imaginary).permute(1, 2, 0))
    orders = torch.tensor(POWER_ORDERS, device=column.device)
    phase = torch.exp(-1j * draws.psi[:, None] * orders).to(torch.complex64)
    power = tile.power[:, draws.image] * phase * draws.weight[:, None]  # (R, d, 3)
    sums.denominator.index_add_(0, draws.class_index, power.transpose(0, 1).to(torch.complex128))
    sums.counts.index_add_(0, draws.class_index, draws.weight.double())
