"""Small tomograms with balls at known places, for tests of the segmentation."""

from __future__ import annotations

import numpy as np

from cryopick.io.mrc import write_mrc

SHAPE = (70, 80, 90)  # no side is a multiple of a tile
VOXEL_SIZE = 10.0
RADIUS = 6  # voxels


def make_tomogram(seed=0, *, shape=SHAPE, noise=1.0, n_balls=14, gain=1.0, offset=0.0):
    """Dark balls in white noise: the volume, and where the balls are."""
    draw = np.random.default_rng(seed)
    places = np.indices(shape)
    truth = np.zeros(shape, bool)
    while n_balls:
        center = [draw.uniform(RADIUS + 2, n - RADIUS - 2) for n in shape]
        distance = np.sqrt(sum((p - c) ** 2 for p, c in zip(places, center, strict=True)))
        if not (truth & (distance < 2 * RADIUS)).any():
            truth |= distance < RADIUS
            n_balls -= 1
    volume = noise * draw.normal(size=shape) - truth
    return (gain * volume + offset).astype(np.float32), truth


def write_tomogram(path, seed=0, **more):
    """Write one and return where its balls are."""
    volume, truth = make_tomogram(seed, **more)
    write_mrc(path, volume, pixel_size=VOXEL_SIZE)
    return truth


def likeness(found, truth):
    """Dice coefficient of two masks."""
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())
