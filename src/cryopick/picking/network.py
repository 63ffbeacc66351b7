"""The network that finds particles: a map of how likely a particle is centred at each place.

A small encoder and decoder with skip connections (Ronneberger et al., 2015) on a field in which
the particle is `PARTICLE` pixels wide. It gives, on a grid of every second pixel, the logit of a
particle's centre and the way from the grid point to it. Features are normalised over channels at
each place, never over the field, so that a field cut into tiles gives what it gives as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MARGIN", "PARTICLE", "STRIDE", "PickNetwork", "apply_in_tiles"]

PARTICLE = 24.0  # px: diameter of the particle in the fields that the network sees
STRIDE = 2  # px between the places of its answer
_CHANNELS = (20, 32, 48, 64)  # at strides 2, 4, 8, 16
_COARSEST = STRIDE * 2 ** (len(_CHANNELS) - 1)
MARGIN = 96  # px, more than half of the receptive field, a multiple of the coarsest stride
_PRIOR = -4.0  # logit to begin with: most places hold no particle


class _Norm(nn.Module):
    """Bring the mean square over channels to a learned one, at each place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, values: Tensor) -> Tensor:
        power = values.square().mean(1, keepdim=True)
        return values * torch.rsqrt(power + 1e-4) * self.gain[:, None, None]


class _Block(nn.Module):
    """Two convolutions of 3 x 3."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = _Norm(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, values: Tensor) -> Tensor:
        seen = functional.silu(self.norm(self.first(values)))
        return seen + functional.silu(self.second(seen))


class PickNetwork(nn.Module):
    """Logits of centres and the ways to them.

    Parameters
    ----------
    seed
        Of the weights to begin from.
    """

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first = _CHANNELS[0]
            self.stem = nn.Conv2d(1, first, 5, stride=STRIDE, padding=2)
            self.enter = _Block(first, first)
            self.down = nn.ModuleList(_Block(a, b) for a, b in pairwise(_CHANNELS))
            self.up = nn.ModuleList(_Block(a + b, a) for a, b in reversed([*pairwise(_CHANNELS)]))
            self.head = nn.Conv2d(first, 3, 1)
            self.head.weight.data *= 0.1
        self.prior = nn.Parameter(torch.tensor(_PRIOR))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, fields: Tensor) -> Tensor:
        """Look at fields.

        Parameters
        ----------
        fields
            (n, y, x), particles white, deviation about 1; y and x multiples of 16.

        Returns
        -------
        Tensor
            (n, 3, y / 2, x / 2): logit of a centre, and y and x of the way to it in px from the
            pixel ``STRIDE * (row, column)``.
        """
        seen = fields[:, None].contiguous(memory_format=torch.channels_last)  # faster by half
        values = self.enter(functional.silu(self.stem(seen)))
        kept = [values]
        for block in self.down:
            values = block(functional.avg_pool2d(values, 2))
            kept.append(values)
        kept.pop()
        for block in self.up:
            wider = functional.interpolate(values, scale_factor=2.0, mode="nearest")
            values = block(torch.cat([kept.pop(), wider], dim=1))
        found: Tensor = self.head(values)
        return torch.cat([found[:, :1] + self.prior, found[:, 1:]], dim=1)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """All weights by name."""
        return {n: v.detach().cpu().contiguous().numpy() for n, v in self.state_dict().items()}

    def load_arrays(self, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        """Take weights by name.

        Raises
        ------
        RuntimeError
            If one is missing, too many, or of another shape.
        """
        self.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in arrays.items()})


def apply_in_tiles(network: PickNetwork, field: Tensor, *, tile: int) -> Tensor:
    """Look at a field of any size in tiles; the tiles do not show in the answer.

    Parameters
    ----------
    network
        On the device of `field`.
    field
        (y, x) as `PickNetwork.forward` takes it.
    tile
        Side of what is answered at once, px; memory grows with it.

    Returns
    -------
    Tensor
        (3, ceil(y / 2), ceil(x / 2)).
    """
    height, width = field.shape
    rows, columns = (-(-n // _COARSEST) * _COARSEST for n in (height, width))
    padded = functional.pad(field, (0, columns - width, 0, rows - height))
    step = max(_COARSEST, tile // _COARSEST * _COARSEST)
    found = field.new_zeros(3, rows // STRIDE, columns // STRIDE)
    with torch.inference_mode():
        for top in range(0, rows, step):
            for left in range(0, columns, step):
                _answer(network, padded, found, top, left, step)
    return found[:, : -(-height // STRIDE), : -(-width // STRIDE)]


def _answer(
    network: PickNetwork, padded: Tensor, found: Tensor, top: int, left: int, step: int
) -> None:
    """Fill in the answer of one tile, seen with its surroundings."""
    rows, columns = padded.shape
    bottom, right = min(top + step, rows), min(left + step, columns)
    first_row, first_column = max(0, top - MARGIN), max(0, left - MARGIN)
    seen = padded[
        first_row : min(bottom + MARGIN, rows), first_column : min(right + MARGIN, columns)
    ]
    answer = network(seen[None])[0]
    y, x = (top - first_row) // STRIDE, (left - first_column) // STRIDE
    high, wide = (bottom - top) // STRIDE, (right - left) // STRIDE
    target = found[:, top // STRIDE : bottom // STRIDE, left // STRIDE : right // STRIDE]
    target.copy_(answer[:, y : y + high, x : x + wide])
