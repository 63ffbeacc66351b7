"""The reduced basis: what of the images stands out of the noise, order by angular order.

Rotations mix no two angular orders, so the covariance of randomly turned particles falls into one
matrix over rings for each order m, and its eigenvectors are a basis that is closed under rotation.
With z = sqrt(w) CTF X / sigma the whitened harmonics of an image, and N_m what noise of power 1
gives there (it passes the mask, then the CTF: N_m = P_m <CTF CTF'> sqrt(w w'), P_m of
`ring_prior.mask_noise`; what is multiplied before the mask has <CTF^2>^1/2 <CTF'^2>^1/2 instead),

    L^-1 (1/n sum z z^H) L^-H,    N_m = L L^H,

has the eigenvalues of white noise, at most (1 + sqrt(R / n))^2 (Marchenko & Pastur, 1967), where
there is no signal. Components above that edge, or those that hold a share of the variance above
the noise, are kept. Orders without one drop out of the search. For images multiplied by their CTF
before the mask, what the mask carries from ring to ring is neglected, and more is kept than needed.

The sums of two sets of particles add up to those of their union. Kritchman & Nadler (Chemometr.
Intell. Lab. Syst. 94 (2008) 19) give the rule for the edge, Zhao, Shkolnisky & Singer (IEEE Trans.
Comput. Imaging 2 (2016) 1) steerable principal components of projections.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.rings import RingBasis
from cryopick.alignment.search import Workspace, shift_tile
from cryopick.class2d.em_expect import Expectation, weigh_images
from cryopick.errors import ShapeError

__all__ = ["CovarianceSums", "ReducedBasis", "make_reduced_basis", "sum_covariance"]

_FEWEST_ORDERS = 5  # orders 0, 2 and 4 carry the norm term
_GAP = 3  # orders without a component end the basis
_FURTHER = 2.0
_TILE = 64
_SEEN = 1e-3  # of the largest noise of an order: rings with less see nothing through the mask
_WELL_SEEN = 0.5  # likewise, to measure the level of the noise
_RIDGE = 1e-3
_QUIET = 0.2  # quantile over the orders of a ring that is taken for noise alone
_BEYOND = 3.0  # spreads of the largest eigenvalue of noise that the edge is put higher


@dataclass(frozen=True, kw_only=True)
class CovarianceSums:
    """Sums over particles; those of two sets of them `merge`."""

    products: Tensor  # (B, R, R) complex128: sum of z z^H
    lens: Tensor  # (R, R) float64: sum of CTF CTF', the mean over angles; 1 of premultiplied images
    before: Tensor  # (R,) float64: sum of CTF^2 of premultiplied images, 1 of others
    count: int

    @classmethod
    def empty(cls, basis: RingBasis) -> Self:
        """Make sums of nothing."""
        r = basis.n_rings
        return cls(
            products=torch.zeros(basis.n_orders, r, r, dtype=torch.complex128),
            lens=torch.zeros(r, r, dtype=torch.float64),
            before=torch.zeros(r, dtype=torch.float64),
            count=0,
        )

    def merge(self, other: CovarianceSums) -> CovarianceSums:
        """Add the sums of other particles; neither is changed.

        Raises
        ------
        ShapeError
            If they are of other rings.
        """
        if self.products.shape != other.products.shape:
            raise ShapeError(
                "sums of two sets",
                must="be of the same rings",
                got=f"{tuple(self.products.shape)} and {tuple(other.products.shape)}",
                remedy="Make both in the same basis",
            )
        return CovarianceSums(
            products=self.products + other.products,
            lens=self.lens + other.lens,
            before=self.before + other.before,
            count=self.count + other.count,
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, ready for `numpy.savez`."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Restore what `to_arrays` gave."""
        return cls(
            products=torch.from_numpy(np.array(arrays["products"])),
            lens=torch.from_numpy(np.array(arrays["lens"])),
            before=torch.from_numpy(np.array(arrays["before"])),
            count=int(arrays["count"]),
        )


@dataclass(frozen=True, kw_only=True)
class ReducedBasis:
    """Components kept, of one version of the statistics."""

    version: int
    count: int  # particles it was made from
    n_rings: int
    eigenvalues: Tensor  # (B, R) float64, by order as in the ring basis, falling; 1 is noise
    ranks: Tensor  # (B,) int64: components kept
    orders: Tensor  # (B,) int64

    @property
    def n_orders(self) -> int:
        """Angular orders to use: to the last with a component, and half as many again.

        The covariance of single images does not show what averages of aligned ones will hold.
        """
        has_component = self.ranks[torch.argsort(self.orders)] > 0
        gaps = torch.nn.functional.max_pool1d(has_component.double()[None], _GAP, stride=1)[0]
        empty = (gaps == 0).nonzero()
        last = int(empty[0]) if len(empty) else len(has_component)
        return max(math.ceil(_FURTHER * last), _FEWEST_ORDERS)

    @property
    def n_components(self) -> int:
        """Real numbers that describe an image."""
        return int((self.ranks * torch.where(self.orders == 0, 1, 2)).sum())

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, ready for `numpy.savez`."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Restore what `to_arrays` gave."""
        values: dict[str, Any] = {n: int(arrays[n]) for n in ("version", "count", "n_rings")}
        for name in ("eigenvalues", "ranks", "orders"):
            values[name] = torch.from_numpy(np.array(arrays[name]))
        return cls(**values)


def sum_covariance(
    work: Expectation, indices: NDArray[np.int64], *, workspace: Workspace
) -> CovarianceSums:
    """Sum products of the harmonics of particles, each moved to where it is known to lie.

    Parameters
    ----------
    work
        Images, rings, noise and poses.
    indices
        The particles.
    workspace
        Buffers on the device of `work`.
    """
    basis = work.basis
    sums = CovarianceSums.empty(basis)
    products, lens, before = sums.products, sums.lens, sums.before
    for start in range(0, len(indices), _TILE):
        weighted = weigh_images(work, indices[start : start + _TILE])
        tile = shift_tile(
            weighted.real,
            weighted.imaginary,
            weighted.power,
            shifts=work.shifts[:1],
            basis=basis,
            workspace=workspace,
        )
        white = tile.weighted[..., 0] / weighted.inverse.sqrt().repeat(2, 1)  # (B, 2 R, n)
        real, imaginary = white[:, : basis.n_rings], white[:, basis.n_rings :]
        z = torch.complex(real, imaginary)
        products += (z @ z.mH).to(products)
        by_ring = weighted.lens.permute(1, 0, 2).flatten(1)  # (R, H n)
        lens += (by_ring @ by_ring.T / basis.n_angles).to(lens)
        before += weighted.ctf_power.sum(1).to(before)
    return CovarianceSums(products=products, lens=lens, before=before, count=len(indices))


def make_reduced_basis(
    sums: CovarianceSums,
    basis: RingBasis,
    noise_covariance: Tensor,
    *,
    share: float,
    rule: Literal["noise-edge", "variance"],
    variance: float,
    version: int,
) -> ReducedBasis:
    """Find the components of particles that stand out of their noise.

    Parameters
    ----------
    sums
        Of the particles.
    basis
        The rings of the sums, with all orders.
    noise_covariance
        (B, R, R) from `mask_noise`.
    share
        Of white noise power that the mask leaves.
    rule, variance
        Keep what is above the noise edge, or the largest components that together hold so many
        percent of the variance above the noise.
    version
        Of the result.
    """
    count = max(sums.count, 1)
    root = (basis.weights.double().cpu() * sums.before / count).sqrt()
    shape = share * root[:, None] * root * sums.lens / count
    noise = noise_covariance.double() * shape
    values, n_seen = _eigenvalues(sums.products / count, noise)
    if rule == "noise-edge":
        ranks = (values > _edge(n_seen, count)[:, None]).sum(1)
    else:
        ranks = _largest((values - 1).clamp_min(0), basis.orders, variance / 100)
    return ReducedBasis(
        version=version,
        count=sums.count,
        n_rings=basis.n_rings,
        eigenvalues=values,
        ranks=ranks,
        orders=basis.orders,
    )


def _eigenvalues(covariance: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (B, R) of the whitened covariance, falling, and rings seen at each order (B,).

    The level of the noise on each ring is taken from the quietest orders.
    """
    own = torch.diagonal(noise, dim1=1, dim2=2)  # (B, R)
    strength = own / own.amax(0).clamp_min(1e-300)
    is_seen = strength > _SEEN
    ratio = torch.diagonal(covariance, dim1=1, dim2=2).real / own.clamp_min(1e-300)
    ratio = torch.where(strength > _WELL_SEEN, ratio, torch.nan)
    level = torch.nanquantile(ratio, _QUIET, dim=0).clamp_min(1e-12).sqrt()
    noise = noise * level[:, None] * level
    both = (is_seen[:, :, None] & is_seen[:, None]).to(noise.dtype)
    eye = torch.eye(len(level), dtype=noise.dtype)
    alone = eye * (~is_seen).to(noise.dtype)[:, None]
    noise = noise * both + alone + _RIDGE * eye * (own * level**2)[:, None] * both
    lower = torch.linalg.cholesky(noise).to(covariance.dtype)
    inner = torch.linalg.solve_triangular(lower, covariance * both, upper=False)
    inner = torch.linalg.solve_triangular(lower, inner.mH, upper=False)
    values = torch.linalg.eigvalsh((inner + inner.mH) / 2).flip(1)
    return values, is_seen.sum(1)


def _edge(n_seen: Tensor, count: int) -> Tensor:
    """Eigenvalue that noise of `count` images stays below, for matrices of n_seen rings."""
    p, n = n_seen.double().clamp_min(1), float(count)
    total = math.sqrt(n) + p.sqrt()
    spread = total * (1 / math.sqrt(n) + 1 / p.sqrt()) ** (1 / 3) / n
    return total**2 / n + _BEYOND * spread


def _largest(excess: Tensor, orders: Tensor, share: float) -> Tensor:
    """Count, for each order, the components among the largest that hold a share of the whole."""
    weight = torch.where(orders == 0, 1.0, 2.0).double()[:, None]
    flat = excess.flatten()
    order = flat.argsort(descending=True, stable=True)
    held = (excess * weight).flatten()[order].cumsum(0)
    n_kept = int((held < share * held[-1] * (1 - 1e-12)).sum()) + 1
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[order[:n_kept]] = True
    return (kept.view_as(excess) & (excess > 0)).sum(1)
