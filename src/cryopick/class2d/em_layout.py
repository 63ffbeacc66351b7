"""Sizes of a run: mask, rings, working images, and the matrices between them."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from cryopick.alignment.rings import RingBasis, keep_orders, make_ring_basis
from cryopick.alignment.sampling import RingSampler, make_ring_sampler
from cryopick.class2d.em_images import Geometry, plan_geometry
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.em_state import ImageSource
from cryopick.class2d.ring_prior import mask_noise
from cryopick.errors import ParameterError

__all__ = ["Layout", "shift_grid"]

_FINEST = 8.0  # A, limit of the alignment if the user gives none
_MOST_RINGS = 64  # likewise
_FEWEST_RINGS = 3
_EDGE_PX = 5.0
_RINGS_PER_MASK = 1.12  # rings are this much finer than the transform of the mask asks
_EVERYWHERE = 1e9  # A, a mask that covers the box


class Layout:
    """What follows from box, pixel size, mask and resolution limit.

    Parameters
    ----------
    source
        The images.
    parameters
        What the user chose.
    farthest
        Longest shift of the particles before the run, A.
    mask_sigma
        Of a Gaussian that the mask is multiplied by, A.

    Raises
    ------
    ParameterError
        If the mask is larger than the box, or the resolution limit is beyond what the pixels hold.
    """

    def __init__(
        self,
        source: ImageSource,
        parameters: ClassificationParameters,
        *,
        farthest: float = 0.0,
        mask_sigma: float = math.inf,
    ) -> None:
        self._source, self._parameters = source, parameters
        _require_reach(source, parameters)
        self._reach = parameters.offset_range + farthest
        self.mask_diameter = _mask_diameter(source, parameters)
        self.mask_edge = _EDGE_PX * source.pixel_size
        self.mask_sigma = mask_sigma
        self._most_orders: tuple[int, int] | None = None
        self.spacing = 1 / (_RINGS_PER_MASK * self.mask_diameter)
        self.most_rings = _most_rings(source, parameters, self.spacing)
        self._samplers: dict[tuple[int, str], RingSampler] = {}
        self._mask_noise: dict[int, Tensor] = {}

    def resolution(self, n_rings: int) -> float:
        """Of so many rings, A."""
        return 1 / (n_rings * self.spacing)

    def geometry(self, n_rings: int) -> Geometry:
        """Sizes of the images that hold so many rings."""
        return plan_geometry(
            box_size=self._source.box_size,
            pixel_size=self._source.pixel_size,
            mask_diameter=self.mask_diameter,
            mask_edge=self.mask_edge,
            offset_range=self._reach,
            resolution=self.resolution(n_rings),
        )

    def bare_basis(self, n_rings: int, device: str = "cpu") -> RingBasis:
        """Rings without the matrices to sample them."""
        basis = make_ring_basis(
            resolution=self.resolution(n_rings),
            diameter=self.mask_diameter + 2 * self.mask_edge,
            box=self.geometry(n_rings).box,
            spacing=self.spacing,
            device=device,
        )
        if self._most_orders is None:
            return basis
        most, rings = self._most_orders
        return keep_orders(basis, math.ceil(most * max(n_rings / rings, 1)))

    def limit_orders(self, most: tuple[int, int] | None) -> tuple[int, int] | None:
        """Use fewer angular orders from now on.

        Parameters
        ----------
        most
            So many orders up to so many rings, and in proportion to the rings beyond; None: all
            that the mask asks.

        Returns
        -------
        tuple or None
            The limit before.
        """
        before = self._most_orders
        if most != before:
            self._most_orders = most
            self._mask_noise.clear()
            bases = {key: self.bare_basis(*key) for key in self._samplers}
            self._samplers = {k: replace(s, basis=bases[k]) for k, s in self._samplers.items()}
        return before

    def basis(self, n_rings: int) -> RingBasis:
        """Rings on the CPU."""
        return self.sampler(n_rings).basis

    def sampler(self, n_rings: int, device: str = "cpu") -> RingSampler:
        """Matrices from working images to rings; made once."""
        key = (n_rings, device)
        if key not in self._samplers:
            geometry = self.geometry(n_rings)
            self._samplers[key] = make_ring_sampler(
                self.bare_basis(n_rings, device),
                size=geometry.working_size,
                pixel_size=geometry.working_pixel,
                mask_diameter=_EVERYWHERE if self._is_filled else self.mask_diameter,
                mask_edge=self.mask_edge,
                mask_sigma=self.mask_sigma,
            )
        return self._samplers[key]

    def mask_noise(self, n_rings: int) -> Tensor:
        """Covariance of white noise inside the mask between rings; made once."""
        if n_rings not in self._mask_noise:
            side = self.geometry(n_rings).box
            diameter = 2 * side / torch.pi**0.5 if self._is_filled else self.mask_diameter
            self._mask_noise[n_rings] = mask_noise(
                self.basis(n_rings),
                mask_diameter=diameter,
                mask_edge=self.mask_edge,
                mask_sigma=self.mask_sigma,
            )
        return self._mask_noise[n_rings]

    @property
    def _is_filled(self) -> bool:
        return self._parameters.fill == "noise"


def shift_grid(reach: float, step: float) -> Tensor:
    """Lay out shifts on a square grid inside a circle, (S, 2) A; the first of them is none."""
    n = int(reach / step + 1e-6) if step > 0 else 0
    axis = torch.arange(-n, n + 1) * step
    grid = torch.cartesian_prod(axis, axis).float()
    grid = grid[grid.norm(dim=1) <= reach * (1 + 1e-6)]
    return grid[grid.norm(dim=1).argsort(stable=True)]


def _mask_diameter(source: ImageSource, parameters: ClassificationParameters) -> float:
    """Choose the diameter of the flat part of the mask, A."""
    side = source.box_size * source.pixel_size
    wanted = parameters.mask_diameter or min(1.2 * parameters.diameter, side)
    if wanted > side * (1 + 1e-6) or parameters.diameter > side * (1 + 1e-6):
        is_mask = parameters.mask_diameter is not None and wanted > side
        raise ParameterError(
            "mask_diameter" if is_mask else "diameter",
            must=f"fit in the box of {side:.0f} A",
            got=f"{wanted if is_mask else parameters.diameter:g} A",
            remedy="Lower it, or extract particles in a larger box",
        )
    return wanted


def _require_reach(source: ImageSource, parameters: ClassificationParameters) -> None:
    half = source.box_size * source.pixel_size / 2
    if parameters.offset_range > half:
        raise ParameterError(
            "offset_range",
            must=f"be at most half the box, {half:.0f} A",
            got=f"{parameters.offset_range:g} A",
            remedy="Lower --offset-range",
        )


def _most_rings(source: ImageSource, parameters: ClassificationParameters, spacing: float) -> int:
    """Count the rings up to the resolution limit."""
    nyquist = 2 * source.pixel_size
    limit = parameters.resolution_limit or max(_FINEST, 1.05 * nyquist)
    if limit < nyquist * (1 - 1e-6):
        raise ParameterError(
            "resolution_limit",
            must=f"be at least twice the pixel size, {nyquist:g} A",
            got=f"{limit:g} A",
            remedy="Raise --resolution-limit",
        )
    most = int(1 / (limit * spacing))
    if int(1 / (nyquist * spacing)) < _FEWEST_RINGS:
        raise ParameterError(
            "diameter",
            must=f"be several pixels of {source.pixel_size:g} A",
            got=f"{parameters.diameter:g} A",
            remedy="Raise --diameter, or --mask-diameter",
        )
    return max(_FEWEST_RINGS, most if parameters.resolution_limit else min(_MOST_RINGS, most))
