"""Train the networks that score classes, on classes whose members are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cryopick.selection.class_features import GROUPS
from cryopick.selection.class_network import ClassNetwork

__all__ = ["LabelledClasses", "train_network"]

_RATE, _DECAY, _BATCH = 3e-3, 1e-3, 96
_LEFT_OUT = 0.15  # chance of any one group
_BARE, _FOREIGN = 0.25, 0.12  # chance of a bare stack, of another program's run
_UNSEEN = 0.12  # chance of the picture being left out
_OF_PICTURE = frozenset({"contrast", "background", "edge", "shape", "texture"})
_OF_US_ALONE = frozenset({"halves", "members"})
_QUALITY = 0.5  # weight of its loss against that of the purity
_SMALL = 20.0  # members of a class that counts in full


@dataclass(frozen=True, kw_only=True)
class LabelledClasses:
    """Classes of many runs, and what is known of them."""

    images: Tensor  # (n, y, x) float32, as `ClassInputs.images`
    features: Tensor  # (n, f) float32, NaN where unknown
    purity: Tensor  # (n,) 0..1
    quality: Tensor  # (n,) 0..1
    counts: Tensor  # (n,) members
    runs: NDArray[np.int64]  # (n,) which set each is of: they are held out together

    def take(self, rows: NDArray[np.int64]) -> LabelledClasses:
        """Take some of the classes."""
        index = torch.from_numpy(rows)
        return LabelledClasses(
            images=self.images[index],
            features=self.features[index],
            purity=self.purity[index],
            quality=self.quality[index],
            counts=self.counts[index],
            runs=self.runs[rows],
        )


def train_network(
    classes: LabelledClasses,
    *,
    epochs: int,
    seed: int,
    report: Callable[[int, float], None] | None = None,
) -> ClassNetwork:
    """Train one network.

    Soft labels with cross-entropy, so that a value of 0.7 means that 0.7 is expected; Adam with a
    rate that rises and falls along a cosine. Pictures are turned, mirrored, moved, scaled and
    given noise at random, and groups of measures are left out.

    Parameters
    ----------
    classes
        What to learn from.
    epochs
        Passes over them.
    seed
        The same seed gives the same network.
    report
        Called with the epoch and its mean loss.
    """
    generator = torch.Generator().manual_seed(seed)
    network = ClassNetwork(GROUPS, seed=seed)
    network.adapt(classes.features)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    steps = -(-len(classes.purity) // _BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _pace(step / max(1, epochs * steps))
    )
    for epoch in range(epochs):
        order = torch.randperm(len(classes.purity), generator=generator)
        total = 0.0
        for rows in torch.split(order, _BATCH):
            loss = _loss(network, classes, rows, generator)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += loss.item() * len(rows)
        if report is not None:
            report(epoch, total / len(order))
    return network.eval()


def _pace(progress: float) -> float:
    """Rate in units of the largest: up in the first twentieth, then down along a cosine."""
    if progress < 0.05:
        return progress / 0.05 + 0.02
    return 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95)) + 0.005


def _loss(
    network: ClassNetwork, classes: LabelledClasses, rows: Tensor, generator: torch.Generator
) -> Tensor:
    looks = network.see_once(vary_pictures(classes.images[rows], generator))
    known = _draw_known(len(rows), generator)
    logits = network(classes.features[rows], looks, known)
    weight = (classes.counts[rows] / _SMALL).clamp(0.3, 1.5).sqrt()
    losses = [
        functional.binary_cross_entropy_with_logits(logits[:, k], truth[rows], weight=weight)
        for k, truth in enumerate((classes.purity, classes.quality))
    ]
    return losses[0] + _QUALITY * losses[1]


def _draw_known(count: int, generator: torch.Generator) -> Tensor:
    """Which groups, and last the picture, each class may use, (n, groups + 1)."""
    names = list(GROUPS)
    known = torch.rand(count, len(names) + 1, generator=generator) > _LEFT_OUT
    chance = torch.rand(count, 3, generator=generator)
    for k, name in enumerate(names):
        if name not in _OF_PICTURE:
            known[:, k] &= chance[:, 0] > _BARE
        if name in _OF_US_ALONE:
            known[:, k] &= chance[:, 1] > _FOREIGN
    known[:, -1] = chance[:, 2] > _UNSEEN
    return known.float()


def vary_pictures(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, mirror, move and scale pictures a little, and add a little noise.

    Parameters
    ----------
    images
        (n, y, x).
    generator
        Source of randomness.
    """
    count, size = len(images), images.shape[-1]
    draws = torch.rand(count, 6, generator=generator)
    angle = 2 * math.pi * draws[:, 0]
    scale = 1 + 0.16 * (draws[:, 1] - 0.5)
    mirror = torch.where(draws[:, 2] < 0.5, -1.0, 1.0)
    move = (draws[:, 3:5] - 0.5) * 4 / size
    turn = torch.stack(
        [
            torch.stack([angle.cos() * scale * mirror, -angle.sin() * scale, move[:, 0]], 1),
            torch.stack([angle.sin() * scale * mirror, angle.cos() * scale, move[:, 1]], 1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(turn, [count, 1, size, size], align_corners=False)
    moved = functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]
    noise = torch.randn(moved.shape, generator=generator) * (0.15 * draws[:, 5, None, None])
    return moved + noise * (moved != 0)
