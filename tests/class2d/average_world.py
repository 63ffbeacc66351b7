"""Particles of one analytic phantom, seen through known CTFs from known poses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryopick.class2d.average_sums import ClassPoses
from cryopick.ctf.apply import apply_ctf
from cryopick.ctf.evaluate import evaluate_ctf

SIZE, PIXEL_SIZE = 64, 4.0


def phantom(*, psi=0.0, shift_x=0.0, shift_y=0.0, seed=0, size=SIZE) -> Tensor:
    """Forty Gaussian balls as an image (y, x), float64; seen by a particle in this pose."""
    generator = torch.Generator().manual_seed(seed)
    radius = 0.26 * size * torch.rand(40, generator=generator, dtype=torch.float64).sqrt()
    angle = 2 * math.pi * torch.rand(40, generator=generator, dtype=torch.float64)
    place = torch.polar(radius, angle)
    back = math.radians(-psi)  # X = shift(-shift) rotate(-psi) A
    place = place * complex(math.cos(back), math.sin(back)) - complex(shift_x, shift_y)
    steps = torch.arange(size, dtype=torch.float64) - size // 2
    x, y = (
        torch.exp(-((steps - p[:, None]) ** 2) / (2 * 1.25**2)) for p in (place.real, place.imag)
    )
    height = 0.5 + torch.rand(40, generator=generator, dtype=torch.float64)
    return torch.einsum("k,ky,kx->yx", height, y, x)


@dataclass(frozen=True, kw_only=True)
class World:
    images: Tensor
    poses: ClassPoses
    defocus: Tensor
    defocus_angle: Tensor

    def ctf(self, turn: Tensor, rows: slice = slice(None)) -> Tensor:
        defocus = self.defocus[rows]
        return evaluate_ctf(
            (SIZE, SIZE),
            pixel_size=PIXEL_SIZE,
            defocus_u=defocus + 2500,
            defocus_v=defocus - 2500,
            defocus_angle=self.defocus_angle[rows] + turn,
            voltage=300.0,
            spherical_aberration=2.7,
            amplitude_contrast=0.1,
        )


def make_world(count=60, *, noise=0.0, n_classes=1, seed=1, extra_psi=0.0) -> World:
    """Particles with strong astigmatism; class c shows phantom(seed=c)."""
    generator = torch.Generator().manual_seed(seed)
    psi = 360 * torch.rand(count, generator=generator) + extra_psi
    shift_x, shift_y = 2 * torch.randn(2, count, generator=generator)
    class_index = torch.arange(count) // 2 % n_classes
    images = torch.stack(
        [
            phantom(psi=float(p), shift_x=float(x), shift_y=float(y), seed=int(c))
            for p, x, y, c in zip(psi, shift_x, shift_y, class_index, strict=True)
        ]
    ).float()
    world = World(
        images=images,
        poses=ClassPoses(torch.arange(count), class_index, psi, shift_x, shift_y),
        defocus=8000 + 17000 * torch.rand(count, generator=generator),
        defocus_angle=180 * torch.rand(count, generator=generator),
    )
    seen = apply_ctf(images, world.ctf(torch.zeros(count)))
    seen = seen + noise * torch.randn(seen.shape, generator=generator)
    return World(
        images=seen,
        poses=world.poses,
        defocus=world.defocus,
        defocus_angle=world.defocus_angle,
    )


def rows_of(poses: ClassPoses, rows: slice) -> ClassPoses:
    return ClassPoses(*(None if v is None else v[rows] for v in poses))
