"""Rotations: Euler angles as RELION counts them, point groups, and ways to draw orientations."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from cryopick.alignment.point_groups import close_group
from cryopick.errors import ParameterError

__all__ = ["draw_angles", "euler_matrices", "point_group", "view_numbers"]

Angles = NDArray[np.float64]  # (n, 3): rot, tilt, psi in degrees
_PREFERRED_WIDTH = 12.0  # deg, spread about a preferred view
_GOLDEN = math.pi * (3 - math.sqrt(5))


def euler_matrices(angles: Angles) -> NDArray[np.float64]:
    """Rotation matrices of RELION's Euler angles.

    Parameters
    ----------
    angles
        (n, 3): rot, tilt and psi, degrees.

    Returns
    -------
    numpy.ndarray
        (n, 3, 3). A point r = (x, y, z) of the model comes to lie at ``matrix @ r``; the
        projection runs along z of the result, whose x and y are those of the image.

    Notes
    -----
    Rz(-psi) Ry(-tilt) Rz(-rot) with the usual right-handed Rz and Ry, as in Heymann, Chagoyen
    & Belnap, J. Struct. Biol. 151 (2005); checked against ``relion_project``.
    """
    rot, tilt, psi = np.deg2rad(np.asarray(angles, np.float64)).reshape(-1, 3).T
    zero, one = np.zeros_like(rot), np.ones_like(rot)

    def about_z(angle: NDArray[np.float64]) -> NDArray[np.float64]:
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[c, s, zero], [-s, c, zero], [zero, zero, one]]).transpose(2, 0, 1)

    c, s = np.cos(tilt), np.sin(tilt)
    about_y = np.array([[c, zero, -s], [zero, one, zero], [s, zero, c]]).transpose(2, 0, 1)
    matrices: NDArray[np.float64] = about_z(psi) @ about_y @ about_z(rot)
    return matrices


def draw_angles(
    count: int, *, generator: np.random.Generator, preferred_fraction: float = 0.0
) -> Angles:
    """Draw orientations: uniform, or partly heaped about three views that lie as on a surface.

    Parameters
    ----------
    count
        How many.
    generator
        Source of randomness.
    preferred_fraction
        Share of the orientations near a preferred view: the top view (tilt 0) for half of
        them, and two side views (tilt 90) for the others.

    Returns
    -------
    numpy.ndarray
        (count, 3): rot, tilt and psi, degrees.
    """
    rot = generator.uniform(-180, 180, count)
    tilt = np.rad2deg(np.arccos(generator.uniform(-1, 1, count)))
    psi = generator.uniform(-180, 180, count)
    is_preferred = generator.random(count) < preferred_fraction
    which = generator.choice(3, count, p=(0.5, 0.3, 0.2))
    spread = _PREFERRED_WIDTH * generator.standard_normal((count, 2))
    # near tilt 0 the spread is of a tip in any direction, hence a two-dimensional radius
    near_tilt = np.where(which == 0, np.hypot(spread[:, 0], spread[:, 1]), 90 + spread[:, 0])
    near_rot = np.where(which == 0, rot, np.array([0.0, 20.0, 75.0])[which] + spread[:, 1])
    rot, tilt = np.where(is_preferred, near_rot, rot), np.where(is_preferred, near_tilt, tilt)
    return np.stack([rot, tilt, psi], axis=1)


def point_group(symmetry: str) -> NDArray[np.float64]:
    """All rotations of a point group.

    Parameters
    ----------
    symmetry
        ``C1``, ``C2``, ... (axis z), ``D2``, ... (also x), ``T`` and ``O`` (2- or 4-fold axis
        z, 3-fold axis along x = y = z).

    Returns
    -------
    numpy.ndarray
        (order, 3, 3); the first is the identity.

    Raises
    ------
    ParameterError
        If there is no such group.
    """
    match = re.fullmatch(r"([CD])([1-9]\d*)|([TO])", symmetry)
    if not match:
        raise ParameterError(
            "symmetry", must="be Cn, Dn, T or O", got=symmetry, remedy="Try C1 or D7"
        )
    letter = match.group(1) or match.group(3)
    threefold = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    if letter in "CD":
        generators = [_turn_about_z(360 / int(match.group(2)))]
        if letter == "D":
            generators.append(np.diag([1.0, -1, -1]))
    else:
        generators = [_turn_about_z(180 if letter == "T" else 90), threefold]
    return close_group(generators)


def view_numbers(
    matrices: NDArray[np.float64], *, symmetry: str = "C1", count: int = 24
) -> NDArray[np.int64]:
    """Give views a number; views with the same look alike but for in-plane rotation.

    Parameters
    ----------
    matrices
        (n, 3, 3) as `euler_matrices` gives them.
    symmetry
        Point group of the particle; equivalent directions get one number.
    count
        Number of directions spread over the sphere to which the nearest is sought.

    Returns
    -------
    numpy.ndarray
        (n,), from 0 to `count` - 1; a symmetric particle uses fewer numbers.
    """
    directions = matrices[:, 2, :]
    generic = np.array([0.36, 0.48, 0.8])  # off every axis: picks one of the equivalents
    equivalents = np.einsum("gij,nj->ngi", point_group(symmetry), directions)
    chosen = np.argmax(equivalents @ generic, axis=1)
    directions = equivalents[np.arange(len(directions)), chosen]
    steps = np.arange(count) + 0.5
    z = 1 - 2 * steps / count
    ring = np.sqrt(1 - z * z)
    spiral = np.stack([ring * np.cos(_GOLDEN * steps), ring * np.sin(_GOLDEN * steps), z], 1)
    nearest: NDArray[np.int64] = np.argmax(directions @ spiral.T, axis=1)
    return nearest


def _turn_about_z(degrees: float) -> NDArray[np.float64]:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
