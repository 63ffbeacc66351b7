"""Sizes and the prior that Topaz works with, from the particle's diameter and the labels."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from cryopick.errors import DataError, ParameterError

__all__ = [
    "TopazScale",
    "choose_scale",
    "disc_pixels",
    "effective_particles",
    "prior_inflation",
]

_FIELD_OF_VIEW = 71  # px: what the network resnet8 sees
_LEAST_DOWNSCALE = 4  # of RELION
_COARSEST = 8.0  # A/px that are still right for Topaz (its manual: 4 to 8)
_ACROSS = 16  # px across a particle that the least factor must leave
_FULL = 0.9  # share of the pixels in labelled discs, as Topaz counts, that leaves no background


class TopazScale(NamedTuple):
    """How Topaz sees a micrograph."""

    downscale: int
    pixel_size: float  # A/px after shrinking
    training_radius: int  # px after shrinking: a pixel this close to a centre is a particle
    picking_radius: int  # px after shrinking: of two peaks this close the higher one stays


def choose_scale(*, diameter: float, pixel_size: float, downscale: int = 0) -> TopazScale:
    """Choose the shrinking and the radii as RELION does.

    The factor is round(2 D / a / 71) for a diameter D and a pixel size a, so that the network
    sees two diameters; the radii are D / 8 and D / 2, rounded. RELION's least factor of 4 is
    kept as far as a particle stays 16 px wide and pixels do not become coarser than 8 A:
    micrographs that are binned already, or hold small particles, are shrunk less.

    Parameters
    ----------
    diameter
        Of a particle, A.
    pixel_size
        A/px of the micrographs.
    downscale
        The factor, if it is not to be chosen.

    Raises
    ------
    ParameterError
        If a radius would be 0: every pixel would be a peak of its own.

    Examples
    --------
    >>> choose_scale(diameter=180, pixel_size=0.885)
    TopazScale(downscale=6, pixel_size=5.31, training_radius=4, picking_radius=17)
    """
    coarsest = min(_COARSEST, diameter / _ACROSS)
    least = min(_LEAST_DOWNSCALE, max(1, int(coarsest / pixel_size)))
    factor = downscale or max(_round(2 * diameter / pixel_size / _FIELD_OF_VIEW), least)
    size = round(pixel_size * factor, 9)
    scale = TopazScale(factor, size, _round(diameter / (8 * size)), _round(diameter / (2 * size)))
    if scale.training_radius < 1:
        raise ParameterError(
            "diameter",
            must=f"be at least 4 px of {size:g} A, as Topaz gets them, so that radii are 1 px",
            got=f"{diameter:g} A",
            remedy="Check --diameter and --pixel-size, or lower --downscale",
        )
    return scale


def _round(value: float) -> int:
    return math.floor(value + 0.5)


def disc_pixels(radius: int) -> int:
    """Count the pixels no further than `radius` px from a pixel.

    Examples
    --------
    >>> [disc_pixels(r) for r in (1, 2, 3, 4)]
    [5, 13, 29, 49]
    """
    steps = range(-radius, radius + 1)
    return sum(x * x + y * y <= radius * radius for x in steps for y in steps)


def prior_inflation(version: str, *, radius: int) -> int:
    """Factor by which a version of Topaz counts the pixels of a particle too high.

    Topaz 0.3 counts those of a disc once for each of the 2 r + 1 layers of a cube.

    Examples
    --------
    >>> prior_inflation("0.3.20", radius=3), prior_inflation("0.2.5", radius=3)
    (7, 1)
    """
    return 2 * radius + 1 if re.match(r"0\.3(\.|$)", version) else 1


def effective_particles(
    *,
    expected: float,
    labelled: float,
    radius: int,
    inflation: int,
    pixels: float,
    is_whole: bool = False,
) -> float:
    """Find the number to tell Topaz so that it expects the right share of the unlabelled.

    Topaz turns a number n into n A f / N of the N pixels, where A is the area of a disc and f
    its error (`prior_inflation`), takes the labelled m A f / N off and expects the rest among
    the unlabelled. It should be (n - m) A / N, which m + (n - m) / f gives.

    Parameters
    ----------
    expected, labelled
        Particles in a micrograph, on average.
    radius
        Of training, px.
    inflation
        The factor f.
    pixels
        In a micrograph, on average, after shrinking.
    is_whole
        The loss is one from which the labelled are not taken off (Topaz's PU): n / f.

    Raises
    ------
    ParameterError
        If no more than the labelled are expected: Topaz would take all else for background.
    DataError
        If the discs fill the micrograph.

    Examples
    --------
    >>> effective_particles(expected=70, labelled=28, radius=3, inflation=7, pixels=1e5)
    34.0
    """
    if not expected > labelled:
        raise ParameterError(
            "particles_per_micrograph",
            must=f"be above the {labelled:.4g} that are labelled in a micrograph",
            got=f"{expected:.4g}",
            remedy="Raise --particles-per-micrograph, or leave it out",
        )
    number = expected / inflation if is_whole else labelled + (expected - labelled) / inflation
    if number * inflation * disc_pixels(radius) > _FULL * pixels:
        raise DataError(
            "particles",
            must=f"leave background between discs of {radius} px, the radius of training",
            got=f"{expected:.4g} expected in {pixels:.4g} px",
            remedy="Check --diameter and --particles-per-micrograph, or lower --downscale",
        )
    return number
