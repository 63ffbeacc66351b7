"""From pixels to half rings: a dense, exact Fourier transform inside a soft circle.

The real part of the transform of a real image depends on the sum of opposite pixels alone, the
imaginary part on their difference. Both are one real matrix product with half of the pixels
inside the mask; the mask is folded into the matrices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryopick.alignment.rings import RingBasis
from cryopick.checks import require_shape
from cryopick.errors import ParameterError
from cryopick.image.masks import gaussian_mask, soft_mask

__all__ = ["RingSampler", "make_ring_sampler"]


@dataclass(frozen=True, kw_only=True)
class RingSampler:
    """Samples images of one size on the rings of one basis."""

    basis: RingBasis
    size: int  # px
    pixel_size: float  # A
    first: Tensor  # (p,) int64: flat places of the pixels of one half of the circle
    second: Tensor  # (p,) int64: flat places of the pixels opposite to them
    cosines: Tensor  # (H R, p) with the mask, over the number of pixels
    sines: Tensor  # (H R, p) with the mask, over the number of pixels
    share: float  # of white noise power of the box that the mask leaves

    def sample(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Transform images, each about its own pixel n // 2.

        Parameters
        ----------
        images
            (n, size, size) float32.

        Returns
        -------
        tuple of Tensor
            Real and imaginary parts, (H, R, n) each, divided by the number of pixels, so that
            they do not change when an image is shrunk.
        """
        require_shape(images, f"n {self.size} {self.size}", name="images")
        flat = images.flatten(1)
        one, other = flat[:, self.first], flat[:, self.second]
        middle = (self.size // 2) * (self.size + 1)
        shape = (self.basis.n_angles, self.basis.n_rings, len(images))
        real = (self.cosines @ (one + other).T) + flat[:, middle] / self.size**2
        imaginary = self.sines @ (one - other).T
        return real.view(shape), imaginary.view(shape)

    def to_images(self, half_rings: Tensor) -> Tensor:
        """Sum rings into images: the transform backwards, inside the mask.

        Parameters
        ----------
        half_rings
            (k, R, H) complex.

        Returns
        -------
        Tensor
            (k, size, size) float32.
        """
        k, pixels = len(half_rings), self.size**2
        weighted = half_rings * (self.basis.weights[:, None] * (2 / self.basis.n_angles))
        rows = weighted.permute(0, 2, 1).reshape(k, -1)
        even, odd = (rows.real @ self.cosines) * pixels, (rows.imag @ self.sines) * pixels
        images = torch.zeros(k, pixels, device=half_rings.device)
        images[:, self.first] = even + odd
        images[:, self.second] = even - odd
        images[:, (self.size // 2) * (self.size + 1)] = rows.real.sum(1)
        return images.view(k, self.size, self.size)


def make_ring_sampler(
    basis: RingBasis,
    *,
    size: int,
    pixel_size: float,
    mask_diameter: float,
    mask_edge: float,
    mask_sigma: float = math.inf,
) -> RingSampler:
    """Make the matrices that take an image to half rings.

    Parameters
    ----------
    basis
        Rings, on the device where images will be.
    size
        Side of the images, px, even.
    pixel_size
        A/px.
    mask_diameter, mask_edge
        Circle where the mask is 1 and the width of its soft edge, A; cut at the box.
    mask_sigma
        Of a Gaussian that the mask is multiplied by, A.

    Raises
    ------
    ParameterError
        If the last ring is beyond the Nyquist frequency of the images.
    """
    if basis.resolution < 2 * pixel_size * (1 - 1e-6):
        raise ParameterError(
            "resolution",
            must=f"be at least twice the pixel size, {2 * pixel_size:g} A",
            got=f"{basis.resolution:g} A",
            remedy="Raise --resolution-limit",
        )
    device, half = basis.angles.device, size // 2
    axis = torch.arange(1 - half, half, dtype=torch.float64, device=device)  # symmetric
    y, x = (g.flatten() for g in torch.meshgrid(axis, axis, indexing="ij"))
    radius = torch.hypot(x, y) * pixel_size
    mask = soft_mask(radius, diameter=mask_diameter, edge=mask_edge)
    mask = mask * gaussian_mask(radius, sigma=mask_sigma)
    upper = (mask > 0) & ((y > 0) | ((y == 0) & (x > 0)))
    y, x, mask_half = y[upper], x[upper], mask[upper]
    frequency = basis.frequencies.double() * pixel_size
    kx = (torch.cos(basis.angles.double())[:, None] * frequency).flatten()
    ky = (torch.sin(basis.angles.double())[:, None] * frequency).flatten()
    phase = 2 * math.pi * (kx[:, None] * x + ky[:, None] * y)
    return RingSampler(
        basis=basis,
        size=size,
        pixel_size=pixel_size,
        first=((y + half) * size + x + half).long(),
        second=((half - y) * size + half - x).long(),
        cosines=(torch.cos(phase) * mask_half / size**2).float(),
        sines=(-torch.sin(phase) * mask_half / size**2).float(),
        share=float((mask**2).sum()) / size**2,
    )
