"""Where a partition begins: classes by expectation-maximisation, which breaks symmetry best.

Equal-size K-means from images at random rotations ends in poor optima where classes are small and
noisy. Each partition begins from a run of `EmClassifier` with a seed of its own instead; sizes are
made equal, and mirrors are found, by the passes that follow (`stable_partition`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.em import EmClassifier
from cryopick.class2d.em_images import recentre
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.em_schedule import fine_iterations
from cryopick.class2d.em_state import EmState
from cryopick.class2d.stable_engine import Poses2d
from cryopick.class2d.stable_images import StableImages
from cryopick.class2d.stable_partition import Partition, Shares
from cryopick.class2d.stable_workers import Run

__all__ = ["FirstClasses", "PreparedSource"]

_KEPT_BYTES = 1 << 28
_REACH = 4.0  # px at a target radius of 29: shifts searched around the prealignment
_RADIUS = 29
_MASK = 1.2  # times the diameter, as `class2d em`


class PreparedSource:
    """Prepared images of a pool, moved to their centres, as an `ImageSource`.

    There is a lens where images are weighed by their CTF: phases have been flipped, or the CTF
    multiplied.
    """

    def __init__(self, images: StableImages, rows: NDArray[np.int64], whole: Tensor) -> None:
        self.images, self._rows, self._whole = images, rows, whole
        self.box_size = images.shrink.size
        self.pixel_size = images.shrink.pixel_size
        self.group_numbers = np.zeros(len(rows), np.int64)
        known = images.is_multiplied
        is_multiplied = np.zeros(len(rows), bool) if known is None else known[rows]
        self.optics_numbers = is_multiplied.astype(np.int64)
        self.is_premultiplied = np.array([False, True])
        self.is_phase_flipped = ~self.is_premultiplied

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Read images (m, y, x), float32."""
        return recentre(self.images.pixels[self._rows[indices]].float(), self._whole[indices])

    def ctf_parameters(self, indices: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Give the CTF, (m, 9), where it counts."""
        known = self.images.lens if self.images.has_lens else None
        return None if known is None else known[self._rows[indices]]


class FirstClasses:
    """The first classes of one partition, iteration by iteration.

    Use as a context manager, or `close` it.

    Parameters
    ----------
    images
        All images.
    rows
        (n,) those of the pool.
    centred
        Of these, from the prealignment.
    n_classes
        Classes to make.
    seed
        Of this partition.
    threads, device, run
        To use, and workers; the result does not depend on the threads.
    """

    def __init__(
        self,
        images: StableImages,
        rows: NDArray[np.int64],
        centred: Poses2d,
        *,
        n_classes: int,
        seed: int,
        threads: int,
        device: str,
        run: Run,
    ) -> None:
        shrink = images.shrink
        self._whole = torch.round(centred.shifts).long()
        self._pixel_size = shrink.pixel_size
        diameter = 2 * shrink.radius * shrink.pixel_size
        reach = _REACH * shrink.radius / _RADIUS * shrink.pixel_size
        self._parameters = ClassificationParameters(
            classes=n_classes, diameter=diameter, offset_range=reach, offset_step=reach / 2.5,
            mask_diameter=min(_MASK * diameter, shrink.size * shrink.pixel_size),
            ctf="full", junk=False, seed=seed,
        )  # fmt: skip
        source = PreparedSource(images, rows, self._whole)
        self._classifier = EmClassifier(
            source, self._parameters,
            devices=[device], threads=threads, keep_bytes=_KEPT_BYTES, workers=run.shards(source),
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads and let go of images."""
        self._classifier.close()

    def start(self) -> EmState:
        """Begin with averages of random images."""
        return self._classifier.start()

    def advance(self, state: EmState) -> EmState:
        """Do one iteration; the state is finished when classes have settled.

        The passes that follow refine poses, so the iterations of `EmClassifier` that do are left.
        """
        fresh = self._classifier.advance(state)
        last = self._parameters.iterations - fine_iterations(self._parameters)
        has_settled = fresh.fine_from is not None or fresh.iteration >= last
        has_seen_all = fresh.visited == state.visited  # in this iteration: round the whole circle
        return replace(fresh, is_finished=fresh.is_finished or (has_settled and has_seen_all))

    def partition(self, state: EmState, noise: Tensor) -> Partition:
        """Give the classes of a state; `noise` (most rings,) is the power of the noise."""
        found, offset = state.poses, self._whole.numpy()
        n = len(offset)
        poses = Poses2d(
            psi=np.deg2rad(found.psi).astype(np.float32),
            shift_x=(found.shift_x / self._pixel_size + offset[:, 0]).astype(np.float32),
            shift_y=(found.shift_y / self._pixel_size + offset[:, 1]).astype(np.float32),
            mirror=np.zeros(n, bool),
        )
        label, one = found.class_index.astype(np.int64), np.ones(n, np.float32)
        return Partition(
            label=label,
            poses=poses,
            shares=Shares(image=np.arange(n), label=label, weight=one, poses=poses),
            noise=noise,
            n_rings=len(noise),
            n_classes=self._parameters.n_classes,
        )
