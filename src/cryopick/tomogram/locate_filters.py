"""Filters with a support of their own, so that a block with a halo gives what the volume gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

__all__ = ["Filters", "gaussian_filter", "local_maxima", "radial_frequency", "radius_grid"]


class Filters:
    """Kernels of odd sides that are correlated with blocks.

    Parameters
    ----------
    kernels
        (n, k, k, k), k odd; their middle is at k // 2.
    """

    def __init__(self, kernels: Tensor) -> None:
        self.kernels = kernels
        self.halo = kernels.shape[-1] // 2  # voxels that a block needs on each side
        self._transforms: dict[tuple[int, ...], Tensor] = {}

    def respond(self, block: Tensor) -> Tensor:
        """Correlate a block with all kernels where they lie within it.

        Parameters
        ----------
        block
            (z, y, x), with `halo` voxels on each side.

        Returns
        -------
        Tensor
            (n, z - 2 halo, y - 2 halo, x - 2 halo).
        """
        sides = tuple(next_fast_len(n, real=True) for n in block.shape)
        transform = torch.fft.rfftn(block, s=sides)
        inner = tuple(slice(0, n - 2 * self.halo) for n in block.shape)
        responses = [
            torch.fft.irfftn(transform * kernel, s=sides)[inner]
            for kernel in self._transform(sides, block.device)
        ]
        return torch.stack(responses)

    def _transform(self, sides: tuple[int, ...], device: torch.device) -> Tensor:
        """Conjugate transforms of the kernels; those of the usual block are kept."""
        if sides not in self._transforms:
            self._transforms.clear()
            self._transforms[sides] = torch.stack(
                [torch.fft.rfftn(k.to(device), s=sides).conj() for k in self.kernels]
            )
        return self._transforms[sides]


def gaussian_filter(block: Tensor, sigma: float) -> Tensor:
    """Smooth a block; 4 sigma are lost on each side.

    Parameters
    ----------
    block
        (z, y, x).
    sigma
        Voxels.
    """
    reach = int(np.ceil(4 * sigma))
    steps = torch.arange(-reach, reach + 1, dtype=block.dtype, device=block.device)
    weights = torch.exp(-(steps**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).reshape(1, 1, -1)
    for axis in range(3):
        rows = block.movedim(axis, -1)
        flat = rows.reshape(-1, 1, rows.shape[-1])
        smooth = torch.nn.functional.conv1d(flat, weights)
        block = smooth.reshape(*rows.shape[:-1], -1).movedim(-1, axis)
    return block


def local_maxima(response: Tensor, *, reach: int, least: float) -> Tensor:
    """Find voxels that are the largest of a cube about them.

    Parameters
    ----------
    response
        (z, y, x), with `reach` voxels more on each side than are searched.
    reach
        Half the side of the cube, voxels.
    least
        Smallest value of a maximum.

    Returns
    -------
    Tensor
        int64, (n, 3), in voxels of `response`.
    """
    largest = response[None, None]
    for axis in range(3):
        size = [2 * reach + 1 if a == axis else 1 for a in range(3)]
        largest = torch.nn.functional.max_pool3d(largest, size, stride=1)
    inner = response[tuple(slice(reach, n - reach) for n in response.shape)]
    return ((inner == largest[0, 0]) & (inner > least)).nonzero() + reach


def radius_grid(side: int, *, offset: Sequence[float] = (0.0, 0.0, 0.0)) -> Tensor:
    """Distance of each voxel of a cube of odd side from its middle plus `offset`, voxels."""
    steps = torch.arange(side, dtype=torch.float32) - side // 2
    z, y, x = (steps - float(o) for o in offset)
    distance: Tensor = (z[:, None, None] ** 2 + y[None, :, None] ** 2 + x**2).sqrt()
    return distance


def radial_frequency(side: int) -> Tensor:
    """Frequency of each element of the real transform of a cube, cycles per voxel."""
    full, half = torch.fft.fftfreq(side), torch.fft.rfftfreq(side)
    frequency: Tensor = (full[:, None, None] ** 2 + full[None, :, None] ** 2 + half**2).sqrt()
    return frequency
