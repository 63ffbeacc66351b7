"""Running sums of class averages in Cartesian Fourier space, with the full CTF, batch by batch.

    A_c = sum_i w_i rotate(shift(CTF_i X_i)) / (sum_i w_i CTF_i^2 + prior)

Each image is multiplied by its CTF before it is moved, so that what the CTF has carried into the
corners of the box comes back first; the CTF of the denominator is evaluated in the frame of the
class, its axis of astigmatism turned with the image (`cryopick.alignment.transform` states the
convention). Rotation, shift and transform being linear, images are summed as images and
transformed once, at the end, by `cryopick.class2d.averages`.

Particles with even and odd numbers are summed apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cryopick.alignment.transform import transform_rffts
from cryopick.checks import require_above, require_shape
from cryopick.class2d.half_sets import ring_numbers
from cryopick.errors import DataError, ParameterError, ShapeError

__all__ = ["AverageSums", "ClassPoses", "CtfOfTurn", "merge_sums"]

CtfOfTurn = Callable[[Tensor], Tensor]


class ClassPoses(NamedTuple):
    """Where images belong: they are shifted by (shift_x, shift_y), then turned by psi."""

    particle_index: Tensor  # (n,) int64: even and odd ones are summed apart
    class_index: Tensor  # (n,) int64, from 0; images with a negative one are left out
    psi: Tensor  # (n,) deg
    shift_x: Tensor  # (n,) px
    shift_y: Tensor  # (n,) px
    weight: Tensor | None = None  # (n,) posterior; None is 1
    is_best: Tensor | None = None  # (n,) bool: whether to count it as a member; None is all


@dataclass(frozen=True, kw_only=True)
class AverageSums:
    """Running sums of every class and half set; `add` adds to the tensors in place."""

    images: Tensor  # (2, k, n, n) float64: sum of w CTF X, turned onto the class
    ctf_power: Tensor  # (2, k, n, n // 2 + 1) float64: sum of w CTF^2 in the frame of the class
    soft_counts: Tensor  # (2, k) float64: sum of the weights
    hard_counts: Tensor  # (2, k) int64: members

    @classmethod
    def empty(cls, *, n_classes: int, size: int, device: torch.device | str = "cpu") -> AverageSums:
        """Make sums of nothing, for images of `size` px; 24 bytes per class and pixel."""
        require_above(n_classes, 0, name="n_classes")
        require_above(size, 3, name="size", unit="px")

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, device=device, dtype=torch.float64)

        return cls(
            images=zeros(2, n_classes, size, size),
            ctf_power=zeros(2, n_classes, size, size // 2 + 1),
            soft_counts=zeros(2, n_classes),
            hard_counts=torch.zeros(2, n_classes, device=device, dtype=torch.int64),
        )

    @property
    def size(self) -> int:
        """Side of the images, px."""
        return int(self.images.shape[-1])

    @property
    def n_classes(self) -> int:
        """Number of classes, the empty ones too."""
        return int(self.images.shape[1])

    def add(
        self,
        images: Tensor,
        poses: ClassPoses,
        *,
        ctf: CtfOfTurn | None = None,
        premultiplied: bool = False,
        noise: Tensor | None = None,
    ) -> None:
        """Add images to the classes they belong to.

        Parameters
        ----------
        images
            (n, size, size), real; an image with several poses is repeated.
        poses
            Of the n images, on their device.
        ctf
            Gives the CTF of the images after a turn of (n,) deg from x towards y, that is with
            ``defocus_angle + turn``, as (n or 1, size, size // 2 + 1). It is called for no turn
            and for psi. Of phase-flipped images give the absolute value. None corrects nothing.
        premultiplied
            Whether the images have been multiplied by their CTF already.
        noise
            (size // 2 + 1,) or (n, size // 2 + 1) variance of the noise on each ring, in one
            unit for all: noisier images count less. None counts all alike.

        Raises
        ------
        ShapeError
            If the axes are others than these.
        ParameterError
            If a class index is beyond the last class.
        DataError
            If an image holds a value that is not finite.
        """
        poses = self._checked(images, poses)
        kept = poses.class_index >= 0
        if not bool(kept.any()):
            return
        rffts = torch.fft.rfft2(images.float())
        power = torch.ones((), device=images.device)
        if ctf is not None:
            if not premultiplied:
                rffts = rffts * self._evaluated(ctf, torch.zeros_like(poses.psi))
            power = self._evaluated(ctf, poses.psi).square()
        weight = poses.weight if poses.weight is not None else torch.ones_like(poses.psi)
        weights = weight.float()[:, None, None]
        if noise is not None:
            weights = weights * self._ring_weights(noise.to(weights))
        moved = transform_rffts(
            (rffts * weights)[kept],
            size=self.size,
            psi=poses.psi[kept],
            shift_x=poses.shift_x[kept],
            shift_y=poses.shift_y[kept],
        )
        power = (power * weights).expand(len(images), *self.ctf_power.shape[2:])[kept]
        self._accumulate(poses, kept, moved, power, weight)

    def _checked(self, images: Tensor, poses: ClassPoses) -> ClassPoses:
        require_shape(images, f"n {self.size} {self.size}", name="images")
        for name, values in poses._asdict().items():
            if values is not None:
                require_shape(values, f"{len(images)}", name=name)
        if len(images) and int(poses.class_index.max()) >= self.n_classes:
            raise ParameterError(
                "class_index",
                must=f"be below the number of classes, {self.n_classes}",
                got=int(poses.class_index.max()),
                remedy="Count classes from 0",
            )
        if not bool(torch.isfinite(images).all()):
            raise DataError(
                "images",
                must="hold finite numbers",
                got="NaN or infinity",
                remedy="Leave out the particles that are damaged",
            )
        return poses

    def _evaluated(self, ctf: CtfOfTurn, turn: Tensor) -> Tensor:
        values = ctf(turn)
        allowed = {(count, self.size, self.size // 2 + 1) for count in (1, len(turn))}
        if tuple(values.shape) not in allowed:
            raise ShapeError(
                "ctf",
                must=f"give ({len(turn)} or 1, {self.size}, {self.size // 2 + 1}) values",
                got=tuple(values.shape),
                remedy="Evaluate it for the size of the images",
            )
        return values.float()

    def _ring_weights(self, noise: Tensor) -> Tensor:
        """Put 1 / noise onto the samples of the transform; corners take the last ring's."""
        require_shape(noise, f"... {self.size // 2 + 1}", name="noise")
        ring = ring_numbers(self.size, device=noise.device).clamp_max(self.size // 2)
        inverse = torch.where(noise > 0, 1 / noise, 0.0)
        return inverse.reshape(-1, noise.shape[-1])[:, ring]

    def _accumulate(
        self, poses: ClassPoses, kept: Tensor, moved: Tensor, power: Tensor, weight: Tensor
    ) -> None:
        half = poses.particle_index[kept] % 2
        row = half * self.n_classes + poses.class_index[kept]
        is_best = poses.is_best[kept] if poses.is_best is not None else torch.ones_like(row)
        for total, values in (
            (self.images, moved),
            (self.ctf_power, power),
            (self.soft_counts, weight[kept]),
            (self.hard_counts, is_best),
        ):
            total.flatten(0, 1).index_add_(0, row, values.to(total.dtype))


def merge_sums(first: AverageSums, second: AverageSums) -> AverageSums:
    """Add the sums of two shards of the particles; neither is changed.

    Raises
    ------
    ShapeError
        If they differ in image size or number of classes.
    """
    if first.images.shape != second.images.shape:
        raise ShapeError(
            "sums of two shards",
            must="be of the same classes and image size",
            got=f"{tuple(first.images.shape)} and {tuple(second.images.shape)}",
            remedy="Make both with the same n_classes and size",
        )
    return AverageSums(
        images=first.images + second.images,
        ctf_power=first.ctf_power + second.ctf_power,
        soft_counts=first.soft_counts + second.soft_counts,
        hard_counts=first.hard_counts + second.hard_counts,
    )
