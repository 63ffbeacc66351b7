"""Poses below the grid: a few Newton steps on the log-likelihood of rotation and shift.

With Z the weighted image and A the class turned back by psi, both on half rings,

    L(psi, t) = 2 Re <Z exp(-2 pi i k t), A(psi)> - norm(psi) - |t0 + t|^2 / (2 s^2)

whose first and second derivatives follow from factors -2 pi i k (shift) and i m (rotation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryopick.alignment.references import POWER_ORDERS, References
from cryopick.alignment.rings import RingBasis

__all__ = ["RefinedPoses", "refine_poses"]


@dataclass(frozen=True, kw_only=True)
class RefinedPoses:
    """Poses of n images."""

    psi: Tensor  # (n,) rad
    shift: Tensor  # (n, 2) A
    log_likelihood: Tensor  # (n,)


def refine_poses(
    real: Tensor,
    imaginary: Tensor,
    power: Tensor,
    references: References,
    *,
    class_index: Tensor,
    psi: Tensor,
    shift: Tensor,
    before: Tensor,
    sigma_offset: float,
    largest_turn: float,
    largest_shift: float,
    n_steps: int = 2,
) -> RefinedPoses:
    """Climb to the nearest maximum of the likelihood, staying near the start.

    Parameters
    ----------
    real, imaginary
        (H, R, n): w CTF X / sigma^2.
    power
        (R, n, 3) complex: harmonics of w CTF^2 / sigma^2.
    references
        The classes.
    class_index, psi, shift
        (n,), (n,) rad, (n, 2) A: where to start.
    before
        (n, 2) A: the shift the images have had already; the prior is on the sum.
    sigma_offset
        Spread of the prior on shifts along one axis, A.
    largest_turn, largest_shift
        How far from the start to go, rad and A.
    n_steps
        Newton steps.
    """
    basis = references.basis
    image = torch.complex(real, imaginary).permute(2, 1, 0)  # (n, R, H)
    norm = torch.einsum("rnj,nrj->nj", power, references.power[class_index].conj())
    harmonics = references.harmonics[class_index]
    place, value = torch.cat([psi[:, None], shift], dim=1), psi.new_full((len(psi),), -math.inf)
    start, best = place, place
    reach = place.new_tensor([largest_turn, largest_shift, largest_shift])
    for step in range(n_steps + 1):
        likelihood, slope, bend = _derivatives(image, harmonics, norm, basis, place)
        offset = before + place[:, 1:]
        likelihood = likelihood - offset.square().sum(1) / (2 * sigma_offset**2)
        slope[:, 1:] -= offset / sigma_offset**2
        bend[:, [1, 2], [1, 2]] -= 1 / sigma_offset**2
        is_better = likelihood > value
        value = torch.where(is_better, likelihood, value)
        best = torch.where(is_better[:, None], place, best)
        if step < n_steps:
            place = best + _newton_step(slope, bend, reach) * is_better[:, None]
            place = torch.minimum(torch.maximum(place, start - reach), start + reach)
    return RefinedPoses(psi=best[:, 0], shift=best[:, 1:], log_likelihood=value)


def _newton_step(slope: Tensor, bend: Tensor, reach: Tensor) -> Tensor:
    """Solve for the top of the local paraboloid, made concave, in units of `reach`."""
    scaled = -bend * reach[:, None] * reach
    values, vectors = torch.linalg.eigh(scaled)
    floor = 1e-3 * values.abs().amax(1, keepdim=True).clamp_min(1e-6)
    values = torch.maximum(values.abs(), floor)
    along = torch.einsum("nij,ni->nj", vectors, slope * reach)
    step = torch.einsum("nij,nj->ni", vectors, along / values)
    return step.clamp(-1, 1) * reach


def _derivatives(
    image: Tensor, harmonics: Tensor, norm: Tensor, basis: RingBasis, place: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """L (n,), its gradient (n, 3) and its second derivatives (n, 3, 3) in psi, x, y."""
    order = basis.orders.to(basis.angles)
    psi = place[:, 0]
    turned = harmonics * torch.exp(1j * psi[:, None] * order)[:, None]
    towards = (1j * order).to(torch.complex64)
    derivatives = [basis.to_half_rings(turned * towards**p).conj() for p in range(3)]
    kx, ky = (k.T.contiguous() for k in basis.wave_vectors)  # (R, H)
    phase = -2 * math.pi * (kx * place[:, 1, None, None] + ky * place[:, 2, None, None])
    moved = image * torch.polar(torch.ones_like(phase), phase) * (2 / basis.n_angles)
    product = [moved * d for d in derivatives]

    def total(values: Tensor) -> Tensor:
        return values.sum((1, 2))

    two_pi = 2 * math.pi
    even = torch.tensor(POWER_ORDERS, device=psi.device, dtype=torch.float32)
    factor = torch.where(even == 0, 1.0, 2.0)
    norms = norm * factor * torch.exp(-1j * psi[:, None] * even)
    likelihood = total(product[0].real) - norms.real.sum(1)
    slope = torch.stack(
        [
            total(product[1].real) - (-1j * even * norms).real.sum(1),
            two_pi * total(product[0].imag * kx),
            two_pi * total(product[0].imag * ky),
        ],
        dim=1,
    )
    xx, xy, yy = (total(product[0].real * k) for k in (kx * kx, kx * ky, ky * ky))
    px, py = (total(product[1].imag * k) * two_pi for k in (kx, ky))
    pp = total(product[2].real) + (even**2 * norms).real.sum(1)
    square = two_pi**2
    rows = [pp, px, py, px, -square * xx, -square * xy, py, -square * xy, -square * yy]
    return likelihood, slope, torch.stack(rows, dim=1).view(-1, 3, 3)
