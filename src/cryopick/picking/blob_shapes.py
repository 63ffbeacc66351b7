"""Transforms of simple shapes, as a bank of matched filters for particles nobody has seen yet."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cryopick.image.filters import sphere_shell
from cryopick.picking.blob_parameters import LEAST_ELONGATION

__all__ = ["BlobFilter", "blob_filters", "count_filters", "ellipse", "ring"]

_HOLLOWNESS = 0.6  # inner over outer diameter of shells and rings
_SOFTNESS = {"ball": 0.1, "shell": 0.04, "disc": 0.15, "ring": 0.06, "ellipse": 0.15}
_ELLIPSE_ANGLES = 8  # over half a turn
_SMALLEST = 0.9  # smallest filter over smallest diameter: particles look smaller than they are
_LARGEST_STEP = 1.2  # from one size to the next


class BlobFilter(NamedTuple):
    """One shape of the bank."""

    kind: str
    diameter: float  # A; of an ellipse the mean of its axes
    psi: float  # deg from x to the long axis of an ellipse; else 0
    transfer: Tensor  # (y, x // 2 + 1), real


def ellipse(
    fy: Tensor, fx: Tensor, *, long_axis: float, short_axis: float, angle: float, softness: float
) -> Tensor:
    """Transform of a flat ellipse with soft edges.

    Parameters
    ----------
    fy, fx
        Frequencies that broadcast to the result, 1/A.
    long_axis, short_axis
        Diameters, A; equal ones make a disc.
    angle
        Degrees from x towards y to the long axis.
    softness
        Standard deviation of the Gaussian that blurs it, as a fraction of each diameter.

    Returns
    -------
    Tensor
        1 at the origin.

    Notes
    -----
    2 J1(q) / q with q = pi |(a f_long, b f_short)| (Bracewell, The Fourier Transform and Its
    Applications: the jinc, with the similarity theorem).
    """
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along = long_axis * (fx * cosine + fy * sine)
    across = short_axis * (fy * cosine - fx * sine)
    scaled = torch.hypot(along, across)
    return _jinc(scaled) * torch.exp(-2 * (math.pi * softness * scaled).square())


def ring(fy: Tensor, fx: Tensor, *, diameter: float, hollowness: float, softness: float) -> Tensor:
    """Transform of a flat ring with soft edges: a disc less its inner disc, 1 at the origin.

    Parameters
    ----------
    fy, fx
        Frequencies that broadcast to the result, 1/A.
    diameter
        Outer, A.
    hollowness
        Inner over outer diameter, in [0, 1).
    softness
        Standard deviation of the Gaussian that blurs it, as a fraction of the diameter.
    """
    scaled = diameter * torch.hypot(fy, fx)
    sharp = _jinc(scaled) - hollowness**2 * _jinc(hollowness * scaled)
    blur = torch.exp(-2 * (math.pi * softness * scaled).square())
    return sharp * blur / (1 - hollowness**2)


def _jinc(scaled: Tensor) -> Tensor:
    """2 J1(pi x) / (pi x): transform of a disc of diameter 1."""
    q = math.pi * scaled
    safe = torch.where(q > 1e-3, q, 1.0)
    return torch.where(q > 1e-3, 2 * torch.special.bessel_j1(safe) / safe, 1.0)


def blob_filters(
    fy: Tensor,
    fx: Tensor,
    *,
    shapes: tuple[str, ...],
    min_diameter: float,
    max_diameter: float,
    apparent: bool = True,
) -> list[BlobFilter]:
    """Make the bank: every shape in every size.

    Parameters
    ----------
    fy, fx
        (y, 1) and (1, x // 2 + 1), 1/A.
    shapes
        Of ball, shell, disc, ring, ellipse. Ellipses have axes of the smallest and the largest
        diameter, and are left out where these are alike.
    min_diameter, max_diameter
        A.
    apparent
        Whether the sizes begin somewhat below the smallest diameter, as particles look smaller.

    Returns
    -------
    list of BlobFilter
        In the order of `shapes`.
    """
    frequency = torch.hypot(fy, fx)
    filters: list[BlobFilter] = []
    for kind in shapes:
        if kind == "ellipse":
            filters += _ellipses(fy, fx, max_diameter, min_diameter)
            continue
        smallest = _SMALLEST * min_diameter if apparent else min_diameter
        for size in _sizes(smallest, max_diameter):
            filters.append(BlobFilter(kind, size, 0.0, _round_shape(kind, frequency, size)))
    return filters


def count_filters(*, shapes: tuple[str, ...], min_diameter: float, max_diameter: float) -> int:
    """Count the filters of `blob_filters`."""
    none = torch.zeros(1, 1)
    return len(
        blob_filters(
            none, none, shapes=shapes, min_diameter=min_diameter, max_diameter=max_diameter
        )
    )


def _sizes(smallest: float, largest: float) -> list[float]:
    ratio = largest / smallest
    steps = max(1, math.ceil(math.log(ratio) / math.log(_LARGEST_STEP)))
    return [smallest * ratio ** (i / steps) for i in range(steps + 1)]


def _ellipses(fy: Tensor, fx: Tensor, long_axis: float, short_axis: float) -> list[BlobFilter]:
    if long_axis / short_axis < LEAST_ELONGATION:
        return []
    mean = (long_axis + short_axis) / 2
    return [
        BlobFilter("ellipse", mean, angle, _ellipse(fy, fx, long_axis, short_axis, angle))
        for angle in (180.0 * step / _ELLIPSE_ANGLES for step in range(_ELLIPSE_ANGLES))
    ]


def _ellipse(fy: Tensor, fx: Tensor, long_axis: float, short_axis: float, angle: float) -> Tensor:
    return ellipse(
        fy,
        fx,
        long_axis=long_axis,
        short_axis=short_axis,
        angle=angle,
        softness=_SOFTNESS["ellipse"],
    )


def _round_shape(kind: str, frequency: Tensor, size: float) -> Tensor:
    softness = _SOFTNESS[kind]
    none = torch.zeros_like(frequency)
    if kind == "disc":
        return ring(none, frequency, diameter=size, hollowness=0.0, softness=softness)
    if kind == "ring":
        return ring(none, frequency, diameter=size, hollowness=_HOLLOWNESS, softness=softness)
    hollowness = _HOLLOWNESS if kind == "shell" else 0.0
    transfer = sphere_shell(frequency, diameter=size, hollowness=hollowness, softness=softness)
    return transfer / (1 - hollowness**3)
