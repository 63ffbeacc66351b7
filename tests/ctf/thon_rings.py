"""Fields with Thon rings of known defocus: white signal through a CTF, and white noise."""

from __future__ import annotations

import torch
from torch import Tensor

from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.ctf.field_ctf import FieldCtf

PIXEL_SIZE = 1.5  # A
LENS = {"voltage": 300.0, "spherical_aberration": 2.7, "amplitude_contrast": 0.1}


def field_of(
    ctf: FieldCtf,
    *,
    shape: tuple[int, int] = (1024, 1024),
    pixel_size: float = PIXEL_SIZE,
    signal: float = 1.5,
    seed: int = 0,
) -> Tensor:
    """A field whose signal, before the CTF and an envelope, has that many times the noise."""
    generator = torch.Generator().manual_seed(seed)
    transfer = evaluate_ctf(shape, pixel_size=pixel_size, bfactor=100.0, **ctf._asdict())[0]
    white = torch.fft.rfft2(torch.randn(shape, generator=generator))
    rings = torch.fft.irfft2(white * transfer, s=shape)
    return signal * rings + torch.randn(shape, generator=generator)


def ctf_of(defocus: float, astigmatism: float = 0.0, angle: float = 0.0, **lens: float) -> FieldCtf:
    return FieldCtf(
        defocus_u=defocus + astigmatism / 2,
        defocus_v=defocus - astigmatism / 2,
        defocus_angle=angle,
        **(LENS | lens),
    )


def mean_defocus(ctf: FieldCtf) -> float:
    return (ctf.defocus_u + ctf.defocus_v) / 2


def angle_between(one: float, other: float) -> float:
    """Least turn in degrees between two directions that have no head."""
    return abs((one - other + 90) % 180 - 90)
