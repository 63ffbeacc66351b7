"""Class averages from their sums, by a Wiener filter learned from all classes together.

A class of a few dozen noisy particles is mostly noise. What all classes have in common tells the
two apart: how much power the averages have at each angular order m, and how it goes together from
ring to ring. With U_c the unregularised average of class c and N_c its noise, both in the
harmonics of order m over rings, the prior covariance is what is left of the classes' mean power
when the power of the noise is taken away,

    S_m = sum_c v_c (U_c U_c^H - N_c),   negative eigenvalues set to 0,
    A_c = S_m (S_m + N_c / T)^-1 U_c.

White noise inside a circular mask is not independent from ring to ring: its covariance, the
integral of mask^2 J_m(2 pi k rho) J_m(2 pi k' rho) rho, is computed once (`mask_noise`).

RELION's prior is the diagonal of this, averaged over m, for each class alone. The covariance
Wiener filter is that of Bhamre, Zhang & Singer (J. Struct. Biol. 195, 2016), here for averages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import jv
from torch import Tensor

from cryopick.alignment.references import POWER_ORDERS
from cryopick.alignment.rings import RingBasis
from cryopick.alignment.sums import RingSums
from cryopick.image.masks import gaussian_mask, soft_mask

__all__ = ["RegularisedAverages", "mask_noise", "regularise"]

_POINTS = 160  # of the integral over the mask
_RIDGE = 1e-3  # of the noise's diagonal, for rings closer than the mask resolves
_LEAST = 1e-4  # eigenvalue of the prior, in units of the mean noise
_FLOOR = 1e-3  # of a ring's mean, least denominator


@dataclass(frozen=True, kw_only=True)
class RegularisedAverages:
    """Averages of K classes and the spectra they were filtered with."""

    harmonics: Tensor  # (K, R, B) complex64
    noise: Tensor  # (K, R): noise power of the unregularised averages
    signal: Tensor  # (R,): mean power of the classes without noise
    ssnr: Tensor  # (R,): signal over the mean noise of an average
    freedom: Tensor  # (K,): Fourier pixels of the half plane that the filter leaves an average


def mask_noise(
    basis: RingBasis, *, mask_diameter: float, mask_edge: float, mask_sigma: float = math.inf
) -> Tensor:
    """Covariance between rings of unit white noise inside the mask, for each order.

    Returns
    -------
    Tensor
        (B, R, R) float32; the diagonals sum to about 1 over all orders, negative ones too.
    """
    rho = torch.linspace(0, mask_diameter / 2 + mask_edge, _POINTS, dtype=torch.float64)
    mask = soft_mask(rho, diameter=mask_diameter, edge=mask_edge)
    density = (mask * gaussian_mask(rho, sigma=mask_sigma)) ** 2 * rho
    argument = 2 * math.pi * basis.frequencies.cpu().double()[:, None] * rho
    orders = basis.orders.cpu().numpy()
    bessel = torch.from_numpy(np.stack([jv(m, argument.numpy()) for m in orders]))
    covariance = (bessel * density) @ bessel.transpose(1, 2) / density.sum()
    return covariance.to(basis.angles)


def regularise(
    sums: RingSums,
    basis: RingBasis,
    noise_covariance: Tensor,
    *,
    share: float,
    regularisation: float,
    coupling: float = 0.5,
) -> RegularisedAverages:
    """Divide the sums and filter the averages.

    Parameters
    ----------
    sums
        Of K classes.
    basis
        Their rings.
    noise_covariance
        (B, R, R) from `mask_noise`.
    share
        Of white noise power that the mask leaves: noise is known unmasked, averages are masked.
    regularisation
        T: noise is taken to be that many times weaker than it is.
    coupling
        How much of the covariance between different rings to believe, from 0 to 1.
    """
    average, noise = _divide(sums, basis)
    noise = noise * share
    shape = noise.mean(0).clamp_min(1e-30)  # (R,): how the noise goes with the ring
    level = (noise / shape).mean(1)  # (K,): and with the class
    amplitude = shape.sqrt()
    white = average.permute(2, 0, 1) / amplitude  # (B, K, R)
    trust = 1 / level.clamp_min(1e-30)
    trust = (trust / trust.max()).sqrt()
    trust = trust / trust.sum()
    power = torch.einsum("k,mkr,mkq->mrq", trust.to(white.dtype), white, white.conj())
    excess = power - (trust * level).sum() * noise_covariance
    diagonal = torch.diagonal(excess, dim1=1, dim2=2).real
    excess = coupling * excess + (1 - coupling) * torch.diag_embed(diagonal).to(excess.dtype)
    filtered, freedom = _wiener(
        white, excess, noise_covariance, level / regularisation, level.mean()
    )
    freedom = share * (basis.weights[:, None] * _over_orders(freedom, basis)).sum(0)
    signal = (_over_orders(diagonal, basis) * shape).clamp_min(0)
    return RegularisedAverages(
        harmonics=(filtered * amplitude).permute(1, 2, 0).to(torch.complex64),
        noise=noise,
        signal=signal,
        ssnr=signal / (shape * (trust * level).sum()),
        freedom=freedom,
    )


def _divide(sums: RingSums, basis: RingBasis) -> tuple[Tensor, Tensor]:
    """Unregularised averages (K, R, B) and the power of their noise on each ring (K, R)."""
    orders = torch.tensor(POWER_ORDERS, device=basis.angles.device)
    factor = torch.where(orders == 0, 1.0, 2.0)
    phase = torch.exp(1j * orders[:, None] * basis.angles) * factor[:, None]
    denominator = (sums.denominator.to(torch.complex64) @ phase.to(torch.complex64)).real
    mean = sums.denominator[..., 0].real.float()
    floor = (_FLOOR * mean).clamp_min(_FLOOR * mean.mean(0) + 1e-12)[..., None]
    denominator = torch.maximum(denominator, floor)
    rings = basis.to_half_rings(sums.numerator.to(torch.complex64)) / denominator
    noise = (basis.weights[:, None] / denominator).mean(2)
    return basis.to_harmonics(rings), noise


def _wiener(
    white: Tensor, excess: Tensor, noise: Tensor, level: Tensor, mean_level: Tensor
) -> tuple[Tensor, Tensor]:
    """Filter (B, K, R) with prior `excess` and noise `level` of each class, both (B, R, R).

    In the basis where the noise is 1 and the prior diagonal, each class is filtered by a factor;
    what is left of unit noise is given too, (B, R, K).
    """
    own = torch.diagonal(noise, dim1=1, dim2=2)
    ridge = torch.diag_embed(_RIDGE * own + 1e-9)
    root = torch.linalg.cholesky(noise + ridge).to(excess.dtype)
    inner = torch.linalg.solve_triangular(root, excess, upper=False)
    inner = torch.linalg.solve_triangular(root, inner.mH, upper=False)
    values, vectors = torch.linalg.eigh((inner + inner.mH) / 2)
    values = values.clamp_min(_LEAST * float(mean_level))  # (B, R)
    parts = torch.linalg.solve_triangular(root, white.mT, upper=False)  # (B, R, K)
    parts = vectors.mH @ parts
    factors = values[..., None] / (values[..., None] + level)
    filtered: Tensor = root @ (vectors @ (parts * factors))
    passed = (root @ vectors).abs().square() @ factors
    return filtered.mT, passed


def _over_orders(diagonal: Tensor, basis: RingBasis) -> Tensor:
    """Sum (B, ...) over all orders, negative ones too."""
    factor = torch.where(basis.orders == 0, 1.0, 2.0)
    return (diagonal * factor.view(-1, *[1] * (diagonal.dim() - 1))).sum(0)
