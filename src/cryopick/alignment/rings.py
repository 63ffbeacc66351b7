"""Fourier rings and their angular harmonics: the basis in which a rotation is a phase.

The transform X of a real image is sampled on rings of radius k_r = r dk, r = 1 ... R, at H angles
of half a turn; the other half is the complex conjugate. With M = 2 H angles,

    a_m(r) = 1/M sum_theta X(r, theta) exp(-i m theta),    a_-m = (-1)^m conj(a_m)

so only m = 0 ... B - 1 are kept. A particle inside a circle of diameter D has no harmonics beyond
m = 2 pi k_R D / 2, which sets B and H. Even harmonics depend on the real part of the half ring
alone, odd ones on its imaginary part: two real matrix products of half the size. Harmonics are
therefore stored even ones first (`RingBasis.orders`).

An image turned by psi from x towards y has the harmonics a_m exp(-i m psi).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryopick.checks import require_above
from cryopick.errors import ParameterError

__all__ = ["RingBasis", "change_basis", "keep_orders", "make_ring_basis"]

_MARGIN = 2  # harmonics beyond the sharp band limit


@dataclass(frozen=True, kw_only=True)
class RingBasis:
    """Rings, angles and harmonics; all tensors float32 on one device."""

    spacing: float  # 1/A, between rings
    diameter: float  # A, of the circle the images are confined to
    frequencies: Tensor  # (R,) 1/A
    weights: Tensor  # (R,) Fourier pixels of the half plane that each ring stands for
    angles: Tensor  # (H,) rad, half a turn
    orders: Tensor  # (B,) int64: 0, 2, 4, ..., 1, 3, ...
    n_even: int  # how many of the orders are even
    from_even: Tensor  # (2 n_even, H): real parts of half rings to even harmonics, (m, re/im)
    from_odd: Tensor  # (2 n_odd, H): imaginary parts of half rings to odd harmonics

    @property
    def n_rings(self) -> int:
        """R."""
        return len(self.frequencies)

    @property
    def n_angles(self) -> int:
        """H, of half a turn."""
        return len(self.angles)

    @property
    def n_orders(self) -> int:
        """B."""
        return len(self.orders)

    @property
    def wave_vectors(self) -> tuple[Tensor, Tensor]:
        """Frequencies along x and y of each sample, (H, R), 1/A."""
        kx = torch.cos(self.angles)[:, None] * self.frequencies
        ky = torch.sin(self.angles)[:, None] * self.frequencies
        return kx, ky

    @property
    def resolution(self) -> float:
        """Of the last ring, A."""
        return 1 / (self.spacing * self.n_rings)

    def to_half_rings(self, harmonics: Tensor) -> Tensor:
        """Sum harmonics (..., R, B) complex into half rings (..., R, H) complex."""
        order = self.orders.to(self.angles)
        phase = torch.exp(1j * order[:, None] * self.angles)
        sign = 1 - 2 * (order % 2)
        mirrored = torch.where(order == 0, 0.0, sign)
        return harmonics @ phase + (harmonics.conj() * mirrored) @ phase.conj()

    def to_harmonics(self, half_rings: Tensor) -> Tensor:
        """Take the harmonics (..., R, B) of half rings (..., R, H), both complex."""
        even = half_rings.real @ self.from_even.T
        odd = half_rings.imag @ self.from_odd.T
        pairs = torch.cat([even, odd], dim=-1)
        return torch.view_as_complex(pairs.reshape(*pairs.shape[:-1], -1, 2))


def make_ring_basis(
    *,
    resolution: float,
    diameter: float,
    box: float,
    spacing: float | None = None,
    device: torch.device | str = "cpu",
) -> RingBasis:
    """Lay out the rings for images confined to a circle.

    Parameters
    ----------
    resolution
        Of the last ring, A.
    diameter
        Of the circle, its soft edge included, A.
    box
        Side of the images, A: noise is counted in its Fourier pixels.
    spacing
        Between rings, 1/A; 1 / (1.12 diameter) if not given, a little finer than the
        transform of a circle asks.
    device
        Of the tensors.

    Raises
    ------
    ParameterError
        If a length is not above 0, or the resolution leaves less than two rings.
    """
    for name, value in (("resolution", resolution), ("diameter", diameter), ("box", box)):
        require_above(value, 0, name=name, unit="A")
    spacing = spacing or 1 / (1.12 * diameter)
    n_rings = _count_rings(resolution, spacing, diameter)
    ring = torch.arange(1, n_rings + 1, dtype=torch.float64)
    n_orders = math.ceil(math.pi * n_rings * spacing * diameter) + _MARGIN
    n_angles = math.ceil((2 * n_orders + 1) / 4) * 2
    angles = torch.arange(n_angles, dtype=torch.float64) * (math.pi / n_angles)
    orders = torch.cat([torch.arange(0, n_orders, 2), torch.arange(1, n_orders, 2)])
    n_even = (n_orders + 1) // 2
    rows = _order_sums(orders, angles, n_even)

    def put(values: Tensor) -> Tensor:
        return values.to(device=device, dtype=torch.float32)

    return RingBasis(
        spacing=spacing,
        diameter=diameter,
        frequencies=put(ring * spacing),
        weights=put(math.pi * ring * spacing * spacing * box * box),
        angles=put(angles),
        orders=orders.to(device),
        n_even=n_even,
        from_even=put(rows[: 2 * n_even]),
        from_odd=put(rows[2 * n_even :]),
    )


def _count_rings(resolution: float, spacing: float, diameter: float) -> int:
    n_rings = round(1 / (resolution * spacing))
    if n_rings < 2:
        raise ParameterError(
            "resolution",
            must=f"be finer than {1 / (1.5 * spacing):.0f} A for a mask of {diameter:.0f} A",
            got=f"{resolution:g} A",
            remedy="Lower --resolution-limit",
        )
    return n_rings


def _order_sums(orders: Tensor, angles: Tensor, n_even: int) -> Tensor:
    """Rows (order, re/im) that take half rings to harmonics, (2 B, angles)."""
    kernel = torch.exp(-1j * orders[:, None] * angles) / len(angles)
    kernel[n_even:] *= 1j
    return torch.view_as_real(kernel).transpose(1, 2).flatten(0, 1)


def keep_orders(basis: RingBasis, n_orders: int) -> RingBasis:
    """Leave out the orders from `n_orders` on; the samples of the rings stay."""
    if n_orders >= basis.n_orders:
        return basis
    n_even, n_odd = (n_orders + 1) // 2, n_orders // 2
    odd = basis.orders[basis.n_even : basis.n_even + n_odd]
    return replace(
        basis,
        orders=torch.cat([basis.orders[:n_even], odd]),
        n_even=n_even,
        from_even=basis.from_even[: 2 * n_even],
        from_odd=basis.from_odd[: 2 * n_odd],
    )


def change_basis(harmonics: Tensor, old: RingBasis, new: RingBasis) -> Tensor:
    """Carry harmonics (..., R, B) to a basis of equal spacing: cut, or filled with 0.

    Raises
    ------
    ParameterError
        If the rings of the two are not equally far apart.
    """
    if old.spacing != new.spacing:
        raise ParameterError(
            "spacing of the rings",
            must=f"be {old.spacing:g} 1/A, as before",
            got=f"{new.spacing:g} 1/A",
            remedy="Make both bases with the same spacing",
        )
    n_rings, n_orders = min(old.n_rings, new.n_rings), min(old.n_orders, new.n_orders)
    sorted_by_order = harmonics[..., torch.argsort(old.orders)]
    changed = harmonics.new_zeros(*harmonics.shape[:-2], new.n_rings, new.n_orders)
    changed[..., :n_rings, :n_orders] = sorted_by_order[..., :n_rings, :n_orders]
    return changed[..., new.orders]
