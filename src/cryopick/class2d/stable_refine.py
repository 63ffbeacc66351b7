"""Refinement of classes that have been accepted: expectation-maximisation from their averages.

In the search for classes every image is compared with averages that it has no part in, made of a
half of a class: that keeps the test honest, and poses coarse. Here classes are known. All images
that fit one share in the averages, weighed by the posterior of their poses and, where there is a
lens, by their CTF; a class and its mirror image are held to be the same (`MirroredClassifier`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.rings import RingBasis
from cryopick.alignment.sums import RingSums
from cryopick.class2d.em import EmClassifier
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.em_state import EmState
from cryopick.class2d.ring_prior import RegularisedAverages
from cryopick.class2d.stable_engine import Poses2d, fold_mirrors
from cryopick.class2d.stable_images import Shrink, StableImages
from cryopick.class2d.stable_start import PreparedSource
from cryopick.class2d.stable_workers import Run

__all__ = ["ITERATIONS", "MirroredClassifier", "Refinement", "mirror_images"]

ITERATIONS = 8  # of a refinement, at most
_REACH, _STEP = 6.0, 4.0  # px at a target radius of 29: shifts that are searched at first
_RADIUS = 29
_MASK = 1.2  # times the diameter, as `class2d em`
_KEPT_BYTES = 1 << 29


class MirroredClassifier(EmClassifier):
    """A classification whose second half of classes are the mirror images of the first."""

    def _regularised(self, sums: RingSums, basis: RingBasis) -> RegularisedAverages:
        """Average both halves together."""
        counts = sums.counts.float()
        found = super()._regularised(fold_mirrors(sums), basis)
        both = (counts[: len(counts) // 2] + counts[len(counts) // 2 :]).repeat(2)
        share = counts / both.clamp_min(1e-9)  # of what a class gains by its members
        return replace(
            found,
            harmonics=torch.cat([found.harmonics, found.harmonics.conj()]),
            noise=found.noise.repeat(2, 1),
            freedom=found.freedom.repeat(2) * share,
        )


def mirror_images(images: Tensor) -> Tensor:
    """Take x to -x about pixel ``n // 2``; (..., y, x)."""
    turned = torch.flip(images, (-1,))
    return torch.roll(turned, 1, -1) if images.shape[-1] % 2 == 0 else turned


class Refinement:
    """The refinement of classes and of the poses of their images, iteration by iteration.

    Use as a context manager, or `close` it.

    Parameters
    ----------
    images
        All images.
    rows
        (n,) those that fit a class.
    averages
        (K, size, size) of the classes, white particles.
    shifts
        (n, 2) px: x and y, as far as they are known.
    resolution
        Finest detail that is compared, px.
    seed
        Of random choices.
    threads, device, run
        To use, and workers; the result does not depend on the threads.
    """

    def __init__(
        self,
        images: StableImages,
        rows: NDArray[np.int64],
        averages: Tensor,
        shifts: Tensor,
        *,
        resolution: float,
        seed: int,
        threads: int,
        device: str,
        run: Run,
    ) -> None:
        self._averages, self._pixel_size = averages, images.shrink.pixel_size
        parameters = _parameters(images.shrink, len(averages), resolution=resolution, seed=seed)
        length = shifts.norm(dim=1, keepdim=True) * self._pixel_size
        # most particles are near the middle: the spread of shifts says more than one noisy shift
        self._whole = torch.where(length > parameters.offset_range, torch.round(shifts), 0.0).long()
        source = PreparedSource(images, rows, self._whole)
        self._classifier = MirroredClassifier(
            source, parameters,
            devices=[device], threads=threads, keep_bytes=_KEPT_BYTES, workers=run.shards(source),
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._classifier.close()

    def start(self) -> EmState:
        """Begin with the averages and their mirror images."""
        both = torch.cat([self._averages, mirror_images(self._averages)])
        return self._classifier.start(both)

    def advance(self, state: EmState) -> EmState:
        """Do one iteration."""
        return self._classifier.advance(state)

    def found(self, state: EmState) -> tuple[NDArray[np.int64], Poses2d]:
        """Give the classes (n,) of a state, and the poses in them."""
        k, found, whole = len(self._averages), state.poses, self._whole.numpy()
        poses = Poses2d(
            psi=np.deg2rad(found.psi).astype(np.float32),
            shift_x=(found.shift_x / self._pixel_size + whole[:, 0]).astype(np.float32),
            shift_y=(found.shift_y / self._pixel_size + whole[:, 1]).astype(np.float32),
            mirror=found.class_index >= k,
        )
        return found.class_index.astype(np.int64) % k, poses


def _parameters(
    shrink: Shrink, n_classes: int, *, resolution: float, seed: int
) -> ClassificationParameters:
    """Choose how classes and their mirror images are refined."""
    pixel, scale = shrink.pixel_size, shrink.radius / _RADIUS
    diameter = 2 * shrink.radius * pixel
    return ClassificationParameters(
        classes=2 * n_classes, diameter=diameter,
        mask_diameter=min(_MASK * diameter, shrink.size * pixel),
        iterations=ITERATIONS, offset_range=_REACH * scale * pixel,
        offset_step=_STEP * scale * pixel, junk=False, batches=False,
        resolution_limit=resolution * pixel, seed=seed,
    )  # fmt: skip
