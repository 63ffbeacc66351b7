"""The network that scores a class from its picture and what is measured of it.

A few convolutions look at the picture, turned in all four ways that keep its pixels, so that the
score of a class does not depend on how its average is turned; their mean joins what the measures
give. Two values come out: the expected purity of the members (are they particles?)
and the quality of the class (do they show one view, well aligned?).

Each group of measures, and the picture, can be *unknown*: it is then 0 and a flag says so. In
training groups are left out at random, so that the network can do with whatever there is and the
difference that knowing a group makes can be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SCORE_FLOOR", "ClassNetwork", "combine"]

SCORE_FLOOR = 0.8  # score of a pure class whose members have nothing in common
_CHANNELS = (12, 24, 32, 48)
_LOOK, _MEASURED, _HIDDEN = 24, 32, 24
Values = TypeVar("Values", Tensor, NDArray[np.float64])
_CLIP = 4.0  # deviations: measures beyond are taken as this


def combine(purity: Values, quality: Values) -> Values:
    """Score of a class, 0 to 1, from its purity and quality.

    Junk scores 0 however sharp; a pure class scores 0.8 if its members have nothing in common
    and 1 if they show one view.
    """
    return purity * (SCORE_FLOOR + (1 - SCORE_FLOOR) * quality)


class ClassNetwork(nn.Module):
    """Purity and quality, as logits, of classes.

    Parameters
    ----------
    groups
        Names of the measures in each group, as `cryopick.selection.class_features.GROUPS`.
    seed
        Of the weights to begin from.
    """

    centre: Tensor
    scale: Tensor
    membership: Tensor

    def __init__(self, groups: Mapping[str, Sequence[str]], *, seed: int = 0) -> None:
        super().__init__()
        names = list(groups)
        members = [k for k, name in enumerate(names) for _ in groups[name]]
        self.n_groups = len(names)
        self.register_buffer("centre", torch.zeros(len(members)))
        self.register_buffer("scale", torch.ones(len(members)))
        self.register_buffer("membership", torch.tensor(members), persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            channels = (1, *_CHANNELS)
            self.convolutions = nn.ModuleList(
                nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(channels)
            )
            self.look = nn.Linear(2 * _CHANNELS[-1], _LOOK)
            self.measured = nn.Linear(2 * len(members), _MEASURED)
            self.hidden = nn.Linear(_LOOK + 1 + _MEASURED, _HIDDEN)
            self.output = nn.Linear(_HIDDEN, 2)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def adapt(self, features: Tensor) -> None:
        """Take middle and spread of the measures, robustly, from those of many classes (n, f)."""
        table = features.double()
        middle = table.nanmedian(0).values.nan_to_num(0.0)
        offset = table - middle
        spread = 1.4826 * offset.abs().nanmedian(0).values.nan_to_num(1.0)
        deviation = offset.square().nanmean(0).sqrt().nan_to_num(1.0)
        self.centre.copy_(middle)
        self.scale.copy_(torch.maximum(spread, 0.3 * deviation).clamp(min=1e-3))

    def see(self, images: Tensor) -> Tensor:
        """Look at pictures, (n, y, x) to (n, 24); alike for all four turns."""
        seen = [self.see_once(torch.rot90(images, turn, (1, 2))) for turn in range(4)]
        return torch.stack(seen).mean(0)

    def see_once(self, images: Tensor) -> Tensor:
        """Look at pictures as they are turned."""
        values = images[:, None].contiguous(memory_format=torch.channels_last)  # twice as fast
        for number, convolution in enumerate(self.convolutions):
            values = convolution(values)
            if number < len(_CHANNELS) - 1:
                values = functional.avg_pool2d(values, 2)
            values = functional.silu(values)
        pooled = torch.cat([values.mean((2, 3)), values.amax((2, 3))], dim=1)
        return functional.silu(self.look(pooled))

    def think(self, features: Tensor, looks: Tensor, known: Tensor) -> Tensor:
        """Join measures and looks.

        Parameters
        ----------
        features
            (n, f), NaN where unknown.
        looks
            (n, 24) of `see`.
        known
            (n, groups + 1) 0 or 1: whether each group, and last the picture, may be used.

        Returns
        -------
        Tensor
            (n, 24), from which `output` makes the two logits.
        """
        usable = known[:, :-1][:, self.membership] * torch.isfinite(features)
        values = ((features - self.centre) / self.scale).clamp(-_CLIP, _CLIP)
        values = torch.where(usable > 0, values, torch.zeros_like(values))
        measured = functional.silu(self.measured(torch.cat([values, usable], dim=1)))
        sight = known[:, -1:]
        return functional.silu(self.hidden(torch.cat([looks * sight, sight, measured], dim=1)))

    def forward(self, features: Tensor, looks: Tensor, known: Tensor) -> Tensor:
        """Logits of purity and quality, (n, 2); parameters as for `think`."""
        logits: Tensor = self.output(self.think(features, looks, known))
        return logits

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """All weights by name."""
        return {
            n: v.detach().cpu().contiguous().numpy().astype(np.float32)
            for n, v in self.state_dict().items()
        }

    def load_arrays(self, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        """Take weights by name.

        Raises
        ------
        KeyError, RuntimeError
            If one is missing, too many, or of another shape.
        """
        self.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in arrays.items()})
