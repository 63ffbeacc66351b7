"""Shapes of particles that nobody designed: unions of ellipsoids under a point group.

A particle is put together body by body, round or long: the first near its symmetry mates, each
other one grown onto those there. Then it may get a void or a pore. Candidates that fall apart,
or that are too thin, too light or too heavy for a protein, are drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryopick.simulation.orientations import draw_angles, euler_matrices, point_group
from cryopick.simulation.shapes import Shape

__all__ = ["draw_shape"]

Points = NDArray[np.float64]

_SYMMETRIES = {  # and how often each is drawn, of 100
    "C1": 25,
    "C2": 18,
    "D2": 11,
    "C3": 9,
    "D3": 8,
    "C4": 6,
    "C6": 5,
    "D4": 5,
    "T": 4,
    "D5": 3,
    "D7": 3,
    "O": 3,
}
_DIAMETERS = (86.0, 250.0)  # A; when filled, a shape may lose or gain a few
_VOLUMES = (7e4, 4.2e6)  # A^3: 45 kDa to 2.7 MDa, as a fifth of it is clefts
_LEAST_RADIUS = 11.0  # A, of a body: a bundle of helices
_LEAST_THICKNESS = 9.0  # A rms along the shortest axis of the particle
_ROD_SHARE = 0.3  # of the bodies
_ELONGATED_SHARE = 0.3  # of the particles
_FURTHEST = 4.0  # radii from the centre to the first body
_CELLS = 36  # across a candidate that is looked at


@dataclass(frozen=True, kw_only=True)
class _Union:
    """Ellipsoids, all symmetry mates among them, and what is hollow."""

    centers: Points  # (m, 3)
    axes: Points  # (m, 3, 3): rows are the semi-axes
    void_radius: float = 0.0  # of a ball about the centre
    pore_radius: float = 0.0  # of a channel along z

    def contains(self, points: Points) -> NDArray[np.bool_]:
        """Whether each point (n, 3) is in a body and not in the hollow."""
        x, y, z = points.T
        terms = np.stack([x * x, y * y, z * z, x * y, x * z, y * z, x, y, z, np.ones_like(x)], 1)
        inside = np.asarray((terms @ self._quadrics() < 1).any(axis=1))
        if self.void_radius:
            inside &= np.linalg.norm(points, axis=1) > self.void_radius
        if self.pore_radius:
            inside &= np.hypot(x, y) > self.pore_radius
        return inside

    def half_widths(self) -> Points:
        """Half the sides of a box about the centre that holds all, (3,)."""
        reach = np.abs(self.centers) + np.linalg.norm(self.axes, axis=1)
        return np.asarray(reach.max(axis=0))

    def scaled(self, factor: float) -> _Union:
        """Make all of it `factor` times as large."""
        return _Union(
            centers=self.centers * factor,
            axes=self.axes * factor,
            void_radius=self.void_radius * factor,
            pore_radius=self.pore_radius * factor,
        )

    def _quadrics(self) -> Points:
        """Coefficients (10, m) of each ellipsoid's equation, below 1 inside."""
        inverse = self.axes / (self.axes**2).sum(axis=2, keepdims=True)
        form = inverse.transpose(0, 2, 1) @ inverse
        linear = -2 * np.einsum("mij,mj->mi", form, self.centers)
        constant = np.einsum("mij,mi,mj->m", form, self.centers, self.centers)
        mixed = 2 * form[:, [0, 0, 1], [1, 2, 2]]
        square = form[:, [0, 1, 2], [0, 1, 2]]
        return np.concatenate([square, mixed, linear, constant[:, None]], axis=1).T


def draw_shape(generator: np.random.Generator) -> Shape:
    """Draw one shape.

    Parameters
    ----------
    generator
        Source of randomness; the same gives the same shape.

    Returns
    -------
    Shape
        With a natural diameter of 80 to 260 A, in one piece, of 45 kDa to 3 MDa. Its symmetry is
        C1, C2, C3, C4, C6, D2, D3, D4, D5, D7, T or O, low ones the most often.
    """
    shares = np.array(list(_SYMMETRIES.values())) / sum(_SYMMETRIES.values())
    symmetry = str(generator.choice(list(_SYMMETRIES), p=shares))
    group = point_group(symmetry)
    while True:
        union = _hollowed(_draw_bodies(symmetry, group, generator), len(group), generator)
        diameter = float(np.exp(generator.uniform(*np.log(_DIAMETERS))))
        sized = _sized(union, diameter)
        if sized is not None:
            x, y, z = sized.half_widths().tolist()
            return Shape(
                symmetry=symmetry,
                half_widths=(x, y, z),
                contains=sized.contains,
                help=f"drawn at random, {diameter:.0f} A",
            )


def _draw_bodies(symmetry: str, group: Points, generator: np.random.Generator) -> _Union:
    """Grow an asymmetric unit of bodies with radii of about 1, and copy it."""
    order = len(group)
    fewest, most = (3, 6) if order == 1 else (2, 4) if order == 2 else (1, 3 if order < 6 else 2)
    count = int(generator.integers(fewest, most + 1))
    radii = np.exp(generator.normal(0, 0.25, count))
    stretch = np.exp(generator.normal(0, 0.2, (count, 3)))
    stretch[generator.random(count) < _ROD_SHARE] *= [0.75, 0.75, 1.9]
    turns = euler_matrices(draw_angles(count, generator=generator))
    axes = (radii[:, None] * stretch)[:, :, None] * turns
    growth = np.ones(3)
    if symmetry not in "TO" and generator.random() < _ELONGATED_SHARE:
        growth = np.array([1, 1, 3.0])
    centers = [_first_center(symmetry, group, float(radii[0]), generator)]
    for number in range(1, count):
        other = int(generator.integers(number))
        direction = generator.standard_normal(3) * growth
        direction /= np.linalg.norm(direction)
        reach = (radii[other] + radii[number]) * generator.uniform(0.55, 0.9)
        centers.append(centers[other] + reach * direction)
    copies = np.concatenate([np.array(centers) @ g.T for g in group])
    volumes = np.tile(np.linalg.norm(axes, axis=2).prod(axis=1), order)
    return _Union(
        centers=copies - np.average(copies, axis=0, weights=volumes),  # along axes of symmetry
        axes=np.concatenate([axes @ g.T for g in group]),
    )


def _first_center(
    symmetry: str, group: Points, radius: float, generator: np.random.Generator
) -> Points:
    """Place (3,) at which a ball of this radius overlaps with its nearest mates."""
    if len(group) == 1:
        return np.zeros(3)
    direction = generator.standard_normal(3)
    if symmetry.startswith("C"):
        direction[2] = 0
    direction /= np.linalg.norm(direction)
    to_mate = np.linalg.norm(group[1:] @ direction - direction, axis=1).min()
    away = min(generator.uniform(0.8, 1.6) / max(float(to_mate), 1e-3), _FURTHEST)
    return np.asarray(away * radius * direction)


def _hollowed(union: _Union, order: int, generator: np.random.Generator) -> _Union:
    """Sometimes cut a ball out of the middle, or a channel along the main axis."""
    kind, size = generator.random(), generator.uniform(0.15, 0.4)
    radius = float(size * union.half_widths().min())
    if kind < (0.2 if order >= 3 else 0.06):
        return replace(union, void_radius=radius)
    if kind < (0.4 if order >= 3 else 0.1):
        return replace(union, pore_radius=0.7 * radius)
    return union


def _sized(union: _Union, diameter: float) -> _Union | None:
    """Bring a candidate to its size; None if it is no likely protein."""
    from scipy.ndimage import label

    half = float(union.half_widths().max())
    line = (np.arange(_CELLS) + 0.5) / _CELLS * 2 * half - half
    grid = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1)
    inside = union.contains(grid.reshape(-1, 3)).reshape(grid.shape[:3])
    if not inside.any():
        return None
    pieces, _ = label(inside)
    if np.bincount(pieces[inside]).max() < 0.995 * inside.sum():
        return None
    places = grid[inside]
    factor = diameter / 2 / float(np.linalg.norm(places, axis=1).max())
    volume = len(places) * (2 * half / _CELLS * factor) ** 3
    thickness = factor * float(np.sqrt(np.linalg.eigvalsh(np.cov(places.T))[0]))
    thinnest = factor * float(np.linalg.norm(union.axes, axis=2).min())
    is_likely = (
        _VOLUMES[0] <= volume <= _VOLUMES[1]
        and thickness >= _LEAST_THICKNESS
        and thinnest >= _LEAST_RADIUS
    )
    return union.scaled(factor) if is_likely else None
