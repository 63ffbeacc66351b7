"""What the helper process does with particle images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.alignment.transform import transform_images
from cryopick.io.stack_images import read_stack_images

__all__ = ["mean_and_deviation"]

_BATCH = 500

Poses = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def mean_and_deviation(
    stacks: Sequence[tuple[Path, NDArray[np.int64]]], poses: Poses | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Average images, and say how much they differ at each pixel.

    Parameters
    ----------
    stacks
        Files and places in them; poses are in this order.
    poses
        Angles in degrees and shifts in px that bring the images onto each other; None leaves
        them as they are.

    Returns
    -------
    tuple
        Mean and standard deviation, (y, x) each.
    """
    torch.set_num_threads(1)
    total = squares = None
    done = 0
    for path, places in stacks:
        for start in range(0, len(places), _BATCH):
            part = places[start : start + _BATCH]
            images = torch.from_numpy(read_stack_images(path, part).astype(np.float32))
            if poses is not None:
                at = slice(done, done + len(part))
                psi, x, y = (torch.from_numpy(np.array(p[at])) for p in poses)
                images = transform_images(images, psi=psi, shift_x=x, shift_y=y)
            done += len(part)
            sums, sums2 = images.sum(0).double(), images.square().sum(0).double()
            total = sums if total is None else total + sums
            squares = sums2 if squares is None else squares + sums2
    assert total is not None
    assert squares is not None
    mean = total / done
    deviation = (squares / done - mean.square()).clamp(min=0).sqrt()
    return mean.float().numpy(), deviation.float().numpy()
