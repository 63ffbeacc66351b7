"""Class averages as the alignment engine wants them: harmonics, ready for the matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryopick.alignment.rings import RingBasis

__all__ = ["POWER_ORDERS", "References", "power_harmonics", "prepare_references"]

POWER_ORDERS = (0, 2, 4)  # harmonics kept of CTF^2 / sigma^2 and of |A|^2


@dataclass(frozen=True, kw_only=True)
class References:
    """K averages; a reference never sees a CTF."""

    basis: RingBasis
    harmonics: Tensor  # (K, R, B) complex64
    matrix: Tensor  # (B, 2 K, 2 R): takes (re, im) of an image's rings to (re, im) of products
    power: Tensor  # (K, R, 3) complex64: harmonics 0, 2, 4 of |A|^2

    def __len__(self) -> int:
        return len(self.harmonics)


def power_harmonics(power: Tensor, basis: RingBasis) -> Tensor:
    """Harmonics 0, 2 and 4 of a real function of the half rings, (..., H) to (..., 3) complex."""
    orders = torch.tensor(POWER_ORDERS, device=power.device)
    kernel = torch.exp(-1j * basis.angles[:, None] * orders) / basis.n_angles
    return power.to(torch.complex64) @ kernel.to(torch.complex64)


def prepare_references(harmonics: Tensor, basis: RingBasis) -> References:
    """Lay out averages for the search.

    Parameters
    ----------
    harmonics
        (K, R, B) complex, orders as in `basis`.
    basis
        Rings of the averages.
    """
    harmonics = harmonics.to(torch.complex64)
    by_order = harmonics.permute(2, 0, 1)
    real, imaginary = by_order.real, by_order.imag
    rows = [torch.cat([real, imaginary], dim=2), torch.cat([-imaginary, real], dim=2)]
    power = basis.to_half_rings(harmonics).abs().square()
    return References(
        basis=basis,
        harmonics=harmonics,
        matrix=torch.cat(rows, dim=1).contiguous(),
        power=power_harmonics(power, basis),
    )
