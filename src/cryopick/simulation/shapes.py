"""The shapes of the phantoms: for each, which points of space its protein may fill.

Lengths are in A at the natural size of the phantom. Each shape is a function of points
(n, 3), columns x, y, z, and is true inside. It has the symmetry of its point group, with the
main axis along z.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHAPES", "Shape"]

Points = NDArray[np.float64]
Inside = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One phantom before it is filled."""

    symmetry: str
    half_widths: tuple[float, float, float]  # of the box that holds it: x, y, z in A
    contains: Callable[[Points], Inside]
    help: str


def _cylinder(points: Points) -> tuple[Points, Points, Points]:
    x, y, z = points.T
    return np.hypot(x, y), np.arctan2(y, x), z


def _as_bool(inside: object) -> Inside:
    return np.asarray(inside, np.bool_)


def _balls(points: Points, centers: Points, radii: Points) -> Inside:
    distance = np.linalg.norm(points[:, None, :] - centers, axis=2)
    return _as_bool((distance < radii).any(axis=1))


def _barrel(points: Points) -> Inside:
    """Four stacked rings of seven, three chambers and narrow gates: a 20S proteasome."""
    r, phi, z = _cylinder(points)
    level = np.abs(z)
    ring_twist = np.where(level > 37, 0.3, 0.0) * np.sign(z)
    lobes = 0.05 * np.cos(7 * (phi - ring_twist))
    groove = 8.0 * np.exp(-(((level - 37) / 5) ** 2)) + 5.0 * np.exp(-((level / 4) ** 2))
    outer = np.where(level > 37, 55.0, 57.0) * (1 + lobes) - groove
    gates = 17 * np.exp(-(((level - 37) / 9) ** 2)) + 20 * np.exp(-(((level - 75) / 10) ** 2))
    inner = 28 - gates
    return _as_bool((level < 74 - 0.02 * r) & (r < outer) & (r > inner))


def _shell(points: Points) -> Inside:
    """Hollow sphere with a bulge in each of 24 places: apoferritin."""
    radius = np.linalg.norm(points, axis=1)
    unit = points / np.maximum(radius, 1e-6)[:, None]
    cubic = (unit**4).sum(1)  # 1 on the 4-fold axes, 1/3 on the 3-fold ones
    sixth = (unit**2).prod(1) * 27  # 1 on the 3-fold axes
    is_wall = (radius > 41 + 3 * cubic) & (radius < 62 - 5 * np.abs(cubic - 0.6))
    return _as_bool(is_wall & (cubic < 0.98) & (sixth < 0.98))


def _rod(points: Points) -> Inside:
    """Two long arms that meet at a waist: an elongated dimer."""
    arm = np.array([[6, 5, 0], [24, 8, 4], [46, -3, 10], [66, 5, -6], [84, -4, 4], [78, 16, 12]])
    centers = np.concatenate([arm, arm * [-1, -1, 1]]).astype(float)
    return _balls(points, centers, np.tile([18, 21, 19, 21, 18, 14.0], 2))


def _small(points: Points) -> Inside:
    """Three domains round a cleft: an enzyme of about 60 kDa."""
    centers = np.array([[-16, -4, 4], [15, -8, -3], [2, 17, -8], [4, 4, 19.0]])
    return _balls(points, centers, np.array([22, 20, 17, 13.0]))


def _asymmetric(points: Points) -> Inside:
    """Two unequal bodies, stalks and a cleft: like a ribosome."""
    large = np.array(
        [[0, -28, 0], [42, -25, 12], [-45, -22, 5], [5, -62, -20], [-20, -50, 38], [25, -45, -42]]
    )
    stalks = np.array([[82, -5, 25], [-86, -8, 12], [0, 8, 70.0]])
    little = np.array([[10, 50, 5], [-30, 54, 14], [40, 42, -14], [-5, 60, -36], [-50, 38, 36.0]])
    centers = np.concatenate([large, stalks, little])
    radii = np.array([58, 42, 40, 42, 38, 36, 17, 19, 22, 36, 30, 27, 25, 18.0])
    x, y, z = points.T
    cleft = np.abs(y - 22 - 0.12 * x) < 2.5 + 0.04 * np.abs(z)
    bridges = (np.hypot(x - 20, z) < 13) | (np.hypot(x + 28, z - 12) < 12)
    return _as_bool(_balls(points, centers, radii) & (~cleft | bridges))


def _ring(points: Points) -> Inside:
    """Double ring of six with a wide pore: an AAA+ ATPase."""
    r, phi, z = _cylinder(points)
    level = np.abs(z)
    twist = 0.25 * np.sign(z) * np.clip(level / 20, 0, 1)
    lobes = np.cos(6 * (phi - twist))
    outer = 62 + 5 * lobes - 0.010 * (level - 22) ** 2 - 4 * np.exp(-((level / 4) ** 2))
    inner = 15 + 0.15 * level
    return _as_bool((level < 38 + 4 * lobes * (r > 35)) & (r < outer) & (r > inner))


def _tetramer(points: Points) -> Inside:
    """Four long subunits in a D2 arrangement: like beta-galactosidase."""
    centers = np.array([[24, 18, 12], [46, 30, 4], [66, 22, 14], [40, 50, -4], [12, 40, 22.0]])
    signs = np.array([[1, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1.0]])
    copies = (signs[:, None, :] * centers).reshape(-1, 3)
    return _balls(points, copies, np.tile([22, 21, 17, 16, 15.0], 4))


def _cage(points: Points) -> Inside:
    """Twelve subunits on the edges of a tetrahedron round a void."""
    corners = np.array([[1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1.0]]) * 29
    threefold = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    knobs = [np.array([[52, 14, -9.0]])]
    knobs += [knobs[0] @ threefold.T, knobs[0] @ threefold.T @ threefold.T]
    signs = np.array([[1, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1.0]])
    copies = np.concatenate([signs * knob for knob in np.concatenate(knobs)])
    radius = np.linalg.norm(points, axis=1)
    outer = _balls(points, corners, np.full(4, 27.0)) | _balls(points, copies, np.full(12, 15.0))
    return _as_bool(outer & (radius > 22))


def _hollow(points: Points) -> Inside:
    """Open barrel with eight staves and a wide bore."""
    r, phi, z = _cylinder(points)
    outer = 63 + 2 * np.cos(8 * phi) - 6 * (np.abs(z) / 80) ** 4
    return _as_bool((np.abs(z) < 80) & (r < outer) & (r > 34))


def _globule(points: Points) -> Inside:
    """Compact body of two halves with a groove, bumps and two arms: a large ribosome."""
    body = np.array([[0, -18, 0], [52, -32, 22], [-55, -20, -18], [12, -58, 36], [-15, -48, -50]])
    head = np.array([[0, 60, 8], [36, 56, -26], [-38, 58, 20]])
    arms = np.array([[96, 0, 30], [-98, 4, -22]])
    centers = np.concatenate([body, head, arms]).astype(float)
    radii = np.array([88, 58, 56, 52, 56, 60, 48, 48, 24, 22.0])
    x, y, z = points.T
    groove = (np.abs(y - 38 - 0.1 * x) < 3) & (np.hypot(x, z) > 30)
    return _as_bool(_balls(points, centers, radii) & ~groove)


def _dumbbell(points: Points) -> Inside:
    """Two balls on a short bar."""
    x, y, z = points.T
    bar = (np.abs(x) < 60) & (np.hypot(y, z) < 20)
    balls = np.hypot(np.hypot(np.abs(x) - 55, y), z) < 50
    return _as_bool(balls | bar)


SHAPES: dict[str, Shape] = {
    "barrel": Shape(
        symmetry="D7",
        half_widths=(62, 62, 75),
        contains=_barrel,
        help="hollow barrel of four rings, 115 x 150 A, like a proteasome",
    ),
    "shell": Shape(
        symmetry="O",
        half_widths=(63, 63, 63),
        contains=_shell,
        help="hollow sphere, 120 A, like apoferritin",
    ),
    "rod": Shape(
        symmetry="C2",
        half_widths=(104, 48, 48),
        contains=_rod,
        help="elongated dimer, 200 x 60 A",
    ),
    "small": Shape(
        symmetry="C1",
        half_widths=(40, 40, 40),
        contains=_small,
        help="three domains, 75 A, about 60 kDa",
    ),
    "asymmetric": Shape(
        symmetry="C1",
        half_widths=(108, 108, 100),
        contains=_asymmetric,
        help="two unequal bodies with stalks, 200 A, like a ribosome",
    ),
    "ring": Shape(
        symmetry="D6",
        half_widths=(70, 70, 44),
        contains=_ring,
        help="double ring with a pore, 130 x 80 A",
    ),
    "tetramer": Shape(
        symmetry="D2",
        half_widths=(86, 70, 42),
        contains=_tetramer,
        help="four long subunits, 165 x 130 x 75 A, like beta-galactosidase",
    ),
    "cage": Shape(
        symmetry="T",
        half_widths=(70, 70, 70),
        contains=_cage,
        help="twelve subunits round a void, 125 A",
    ),
    "hollow": Shape(
        symmetry="D8",
        half_widths=(66, 66, 80),
        contains=_hollow,
        help="open hollow barrel, 130 x 160 A",
    ),
    "globule": Shape(
        symmetry="C1",
        half_widths=(122, 122, 110),
        contains=_globule,
        help="compact globule of two halves, 240 A, like a large ribosome",
    ),
    "dumbbell": Shape(
        symmetry="D2",
        half_widths=(105, 50, 50),
        contains=_dumbbell,
        help="two balls on a bar, 210 x 100 A",
    ),
}
