"""Matrices of a stable classification: from images to rings, and of the noise in their mask."""

from __future__ import annotations

import functools
import threading
from typing import Any

from torch import Tensor

from cryopick.alignment.rings import make_ring_basis
from cryopick.alignment.sampling import RingSampler, make_ring_sampler
from cryopick.class2d.ring_prior import mask_noise

__all__ = ["RingMatrices"]

_EDGE = 4.0  # px, of the soft mask
_KEPT_SAMPLERS = 2  # of some 20 to 120 MB


class RingMatrices:
    """Matrices from images of one size to rings; the last few are kept.

    Unpickled ones are those that the process has, so that all work of a run shares them.

    Parameters
    ----------
    size, radius
        Of the images and of the particle, px.
    spacing
        Of the rings, 1/px.
    device
        Where images are compared.
    """

    def __init__(self, size: int, radius: float, spacing: float, device: str) -> None:
        self._of = (size, radius, spacing, device)
        self._samplers: dict[int, RingSampler] = {}
        self._noise: dict[int, Tensor] = {}
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the matrices behind."""
        return _matrices_of_process, self._of

    def on(self, device: str) -> RingMatrices:
        """Those of another device, which all work of a process shares."""
        size, radius, spacing, _ = self._of
        return _matrices_of_process(size, radius, spacing, device)

    def sampler(self, n_rings: int) -> RingSampler:
        """From images to rings."""
        with self._lock:
            known = self._samplers.get(n_rings)
            if known is None:
                known = self._samplers[n_rings] = self._make(n_rings)
                while len(self._samplers) > _KEPT_SAMPLERS:
                    self._samplers.pop(next(iter(self._samplers)))
            return known

    def noise_covariance(self, n_rings: int) -> Tensor:
        """Covariance of white noise in the mask from ring to ring; made once."""
        with self._lock:
            if n_rings not in self._noise:
                self._noise[n_rings] = mask_noise(
                    self.sampler(n_rings).basis, mask_diameter=2 * self._of[1], mask_edge=_EDGE
                )
            return self._noise[n_rings]

    def _make(self, n_rings: int) -> RingSampler:
        size, radius, spacing, device = self._of
        basis = make_ring_basis(
            resolution=1 / (n_rings * spacing), diameter=2 * (radius + _EDGE), box=float(size),
            spacing=spacing, device=device,
        )  # fmt: skip
        return make_ring_sampler(
            basis, size=size, pixel_size=1.0, mask_diameter=2 * radius, mask_edge=_EDGE
        )


@functools.lru_cache(maxsize=2)  # of the CPU, and of a GPU
def _matrices_of_process(size: int, radius: float, spacing: float, device: str) -> RingMatrices:
    return RingMatrices(size, radius, spacing, device)
