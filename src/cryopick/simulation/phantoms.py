"""Phantoms: particles made by code, of the mass, symmetry and texture of proteins.

A shape is filled with helical rods that keep clear of each other, then with loops between
them, until the mass is that of protein at 1.35 g/ml; every residue is copied by the point
group. Smooth random clefts keep domains apart. The result has no fold, but at the resolution of
picking and 2D classes it has what a protein has: mass, outline, cavities, domains, rods 10 A
apart, one hand.
"""

from __future__ import annotations

import re
import zlib

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.errors import ParameterError
from cryopick.simulation.orientations import point_group
from cryopick.simulation.projection import Model
from cryopick.simulation.random_shapes import draw_shape
from cryopick.simulation.shapes import SHAPES, Shape

__all__ = ["PROTEIN_CONTRAST", "make_phantom", "phantom_names"]

PROTEIN_CONTRAST = 2.5  # V, mean inner potential of protein above that of vitreous ice

_RESIDUE_VOLUME = 135.0  # A^3: 110 Da at 1.35 g/ml
_RESIDUE_BLUR = 2.2  # A rms
_HELIX_RADIUS = 3.3  # A, where most of a helix's mass lies, side chains included
_HELIX_RISE = 1.5  # A per residue along the axis
_HELIX_TURN = np.deg2rad(100.0)  # per residue, right-handed
_HELIX_SPACING = 9.0  # A between axes
_LOOP_SPACING = 3.8  # A between points off the helices
_HELIX_SHARE = 0.6  # of the residues, as in a mostly helical protein
_CLEFT_DISTANCE = 26.0  # A between clefts, the size of a domain
_CLEFT_SHARE = 0.2  # of the shape's volume
_CLEFT_WAVES = 60  # random waves that make the clefts, copies included
_PROPOSALS = 3000
_CELL = 3.0  # A, of the grid that remembers what is taken

Points = NDArray[np.float64]


def phantom_names() -> tuple[str, ...]:
    """Names of the phantoms that have a shape of their own."""
    return tuple(SHAPES)


def make_phantom(name: str, *, diameter: float | None = None, seed: int = 0) -> Model:
    """Make one phantom; the same name, diameter and seed give the same particle, always.

    Parameters
    ----------
    name
        One of `phantom_names`; or ``random``, ``random1``, ``random2``, ...: a shape drawn from
        the name and the seed.
    diameter
        Of the sphere that holds it, A; without one its natural size. A larger one has more
        residues, not larger ones.
    seed
        Another seed gives another particle of the same shape, and another random shape.

    Returns
    -------
    Model
        Residues as points, the centre of mass at 0, main axis along z.

    Raises
    ------
    ParameterError
        If there is no such phantom or `diameter` is below 30 A.

    Examples
    --------
    >>> make_phantom("ring").symmetry
    'D6'
    """
    shape = _shape(name, seed)
    if diameter is not None and not diameter >= 30:
        raise ParameterError(
            "diameter", must="be at least 30 A", got=f"{diameter:g} A", remedy="Give a larger one"
        )
    generator = np.random.default_rng([zlib.crc32(name.encode()), seed])
    natural = _Region(shape, 1.0, generator).sample(20000, generator)
    extent = 2 * float(np.linalg.norm(natural, axis=1).max())
    region = _Region(shape, diameter / extent if diameter else 1.0, generator)
    points = _fill(region, generator)
    points = points - points.mean(0)
    return Model(
        name=name,
        positions=torch.from_numpy(points.astype(np.float32)),
        weights=torch.full((len(points),), PROTEIN_CONTRAST * _RESIDUE_VOLUME),
        blur=_RESIDUE_BLUR,
        symmetry=shape.symmetry,
        diameter=2 * float(np.linalg.norm(points, axis=1).max()),
    )


def _shape(name: str, seed: int) -> Shape:
    if re.fullmatch(r"random(0|[1-9]\d*)?", name):
        return draw_shape(np.random.default_rng([zlib.crc32(name.encode()), seed, 1]))
    if name not in SHAPES:
        raise ParameterError(
            "phantom",
            must=f"be one of {', '.join(SHAPES)}, random, or random and a number",
            got=name,
            remedy="Or give a file with --model",
        )
    return SHAPES[name]


class _Region:
    """Where protein may be: a shape at its size, less clefts that have its symmetry."""

    def __init__(self, shape: Shape, scale: float, generator: np.random.Generator) -> None:
        self._shape = shape
        self._scale = scale
        self.group = point_group(shape.symmetry)
        self.half_widths = scale * np.array(shape.half_widths)
        count = max(3, _CLEFT_WAVES // len(self.group))
        waves = generator.standard_normal((count, 3))
        waves *= 2 * np.pi / _CLEFT_DISTANCE / np.linalg.norm(waves, axis=1, keepdims=True)
        self._waves = (waves @ self.group).reshape(-1, 3)
        self._phases = np.tile(generator.uniform(0, 2 * np.pi, count), len(self.group))
        probe = generator.uniform(-self.half_widths, self.half_widths, (4000, 3))
        self._lowest = float(np.quantile(self._texture(probe), _CLEFT_SHARE))

    def contains(self, points: Points) -> NDArray[np.bool_]:
        """Whether each point (n, 3) may hold protein."""
        inside = self._shape.contains(points / self._scale)
        inside[inside] = self._texture(points[inside]) > self._lowest
        return inside

    def sample(self, count: int, generator: np.random.Generator) -> Points:
        """Points spread evenly over the region; of `count` in its box those inside remain."""
        points = generator.uniform(-self.half_widths, self.half_widths, (count, 3))
        return points[self.contains(points)]

    def _texture(self, points: Points) -> Points:
        return np.asarray(np.cos(points @ self._waves.T + self._phases).sum(1))


class _Taken:
    """A grid over the region that remembers which places are near a point."""

    def __init__(self, region: _Region, spacing: float) -> None:
        reach = int(np.ceil(spacing / _CELL))
        self._half = region.half_widths.max() * np.sqrt(3) + spacing + 2 * _CELL
        size = int(2 * self._half / _CELL) + 2
        self._grid = np.zeros((size, size, size), bool)
        steps = np.mgrid[-reach : reach + 1, -reach : reach + 1, -reach : reach + 1]
        steps = steps.reshape(3, -1).T
        self._stencil = steps[np.linalg.norm(steps, axis=1) * _CELL < spacing]

    def _cells(self, points: Points) -> NDArray[np.int64]:
        return np.asarray(np.floor((points + self._half) / _CELL), np.int64)

    def has(self, points: Points) -> NDArray[np.bool_]:
        """Whether each point (..., 3) is near one that was added."""
        cells = self._cells(points)
        taken: NDArray[np.bool_] = self._grid[cells[..., 0], cells[..., 1], cells[..., 2]]
        return taken

    def add(self, points: Points) -> None:
        """Take the surroundings of points (n, 3)."""
        cells = (self._cells(points)[:, None, :] + self._stencil).reshape(-1, 3)
        self._grid[cells[:, 0], cells[:, 1], cells[:, 2]] = True


def _fill(region: _Region, generator: np.random.Generator) -> Points:
    volume = float(np.prod(2 * region.half_widths))
    volume *= len(region.sample(40000, generator)) / 40000
    wanted = max(1, round(volume / _RESIDUE_VOLUME / len(region.group)))
    helices = _add_helices(region, round(_HELIX_SHARE * wanted), generator)
    loops = _add_loops(region, wanted - len(helices), helices, generator)
    unit = np.concatenate([helices, loops])
    return _copies(region.group, unit)


def _copies(group: Points, points: Points) -> Points:
    return np.asarray((group @ points.T).transpose(0, 2, 1).reshape(-1, 3))


def _add_helices(region: _Region, wanted: int, generator: np.random.Generator) -> Points:
    """Place rods that stay inside and clear of each other and of their symmetry mates."""
    taken = _Taken(region, _HELIX_SPACING)
    found: list[Points] = [np.empty((0, 3))]
    count = 0
    for _ in range(4):
        starts = region.sample(_PROPOSALS * 4, generator)[:_PROPOSALS]
        directions = generator.standard_normal((len(starts), 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = generator.uniform(12, 40, len(starts))
        along = np.linspace(-0.5, 0.5, 15)
        axes = starts[:, None] + (lengths[:, None] * along)[..., None] * directions[:, None]
        inside = region.contains(axes.reshape(-1, 3)).reshape(len(starts), -1).all(1)
        for axis, direction, length in zip(
            axes[inside], directions[inside], lengths[inside], strict=True
        ):
            if count >= wanted:
                return np.concatenate(found)
            if taken.has(axis).any() or _meets_its_mates(axis, region.group):
                continue
            taken.add(_copies(region.group, axis))
            found.append(_helix(axis[len(axis) // 2], direction, length, generator))
            count += len(found[-1])
    return np.concatenate(found)


def _meets_its_mates(axis: Points, group: Points) -> bool:
    mates = _copies(group[1:], axis)[:, None]
    return bool(len(mates) and (np.linalg.norm(mates - axis, axis=2) < _HELIX_SPACING).any())


def _helix(
    middle: Points, direction: Points, length: float, generator: np.random.Generator
) -> Points:
    """Residues of a right-handed helix about a straight axis."""
    steps = np.arange(max(4, round(length / _HELIX_RISE)))
    across = np.cross(direction, [0.0, 0.6, 0.8] if abs(direction[0]) > 0.5 else [1.0, 0, 0])
    across /= np.linalg.norm(across)
    other = np.cross(direction, across)
    angle = generator.uniform(0, 2 * np.pi) + _HELIX_TURN * steps
    height = (steps - steps.mean()) * _HELIX_RISE
    ring = np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * other
    return np.asarray(middle + height[:, None] * direction + _HELIX_RADIUS * ring)


def _add_loops(
    region: _Region, wanted: int, helices: Points, generator: np.random.Generator
) -> Points:
    """Fill what is left: first places clear of all others, then any place inside."""
    taken = _Taken(region, _LOOP_SPACING)
    if len(helices):
        taken.add(_copies(region.group, helices))
    found: list[Points] = []
    for may_touch in (False, True):
        while len(found) < wanted:
            points = region.sample(20000, generator)
            free = points if may_touch else points[~taken.has(points)]
            if len(free) < 0.02 * len(points):  # nearly full: no use in going on
                break
            for point in free[: wanted - len(found)]:
                if may_touch or not taken.has(point):
                    taken.add(_copies(region.group, point[None]))
                    found.append(point)
    return np.array(found).reshape(-1, 3)
