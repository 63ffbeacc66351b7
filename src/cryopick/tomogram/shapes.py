"""Shape of what lies about a pick: compact, a membrane or a filament; its size and axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from cryopick.tomogram.locate_shift import evidence_about
from cryopick.tomogram.locate_source import VoxelSource

__all__ = ["Extent", "connected_groups", "measure_curvatures", "measure_extents"]

Source = VoxelSource | NDArray[np.floating[Any]]
_STEPS = 9  # between two peaks, at which the ridge is looked at


@dataclass(frozen=True)
class Extent:
    """Size and axes of the evidence about each pick."""

    semi_axes: NDArray[np.float64]  # (n, 3) voxels, long to short, of a filled ellipsoid
    axes: NDArray[np.float64]  # (n, 3, 3): rows are directions x, y, z, long to short
    mass: NDArray[np.float64]  # (n,) sum of the evidence above the floor
    filled: NDArray[np.float64]  # (n,) voxels above half of the largest evidence


def measure_curvatures(
    source: Source, places: NDArray[np.float64], *, radius: float
) -> NDArray[np.float64]:
    """Principal curvatures of the evidence about each place.

    A quadratic form is fitted with Gaussian weights of sigma radius / 2, which averages over the
    noise of single voxels. A ball bends as much along all axes, a membrane along one, and a
    filament along two.

    Parameters
    ----------
    source
        Evidence, (z, y, x).
    places
        (n, 3): z, y, x in voxels.
    radius
        Of the ball that is looked at, voxels.

    Returns
    -------
    numpy.ndarray
        (n, 2): the second and the third curvature as shares of the first, at most 1.
    """
    half = max(int(np.ceil(radius)), 2)
    steps = np.mgrid[-half : half + 1, -half : half + 1, -half : half + 1].reshape(3, -1).T
    steps = steps[(steps**2).sum(1) <= max(radius, 2.0) ** 2].astype(np.float64)
    z, y, x = steps.T
    model = np.stack(
        [np.ones(len(z)), z, y, x, z * z / 2, y * y / 2, x * x / 2, z * y, z * x, y * x], 1
    )
    weights = np.exp(-(steps**2).sum(1) / (2 * (max(radius, 2.0) / 2) ** 2))[:, None]
    solve = np.linalg.solve(model.T @ (model * weights), (model * weights).T)
    index = tuple((steps + half).astype(int).T)
    ratios = np.ones((len(places), 2))
    for number, place in enumerate(places):
        cube, _ = evidence_about(source, place, half=half)
        c = solve @ cube.numpy()[index].astype(np.float64)
        form = np.array([[c[4], c[7], c[8]], [c[7], c[5], c[9]], [c[8], c[9], c[6]]])
        first, second, third = np.linalg.eigvalsh(form)  # the most negative first
        ratios[number] = (second / first, third / first) if first < 0 else (0.0, 0.0)
    return ratios


def connected_groups(
    source: Source,
    places: NDArray[np.float64],
    scores: NDArray[np.float64],
    *,
    reach: float,
    share: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Join peaks between which the evidence never falls far, and measure how far each group goes.

    Parameters
    ----------
    source
        Evidence, (z, y, x).
    places, scores
        (n, 3) z, y, x in voxels, and (n,).
    reach
        Largest distance of two peaks that are joined, voxels.
    share
        Of the lower peak, that the evidence keeps on the way.

    Returns
    -------
    tuple
        Number of the group of each peak, and the largest distance of two peaks in its group.
    """
    count = len(places)
    if count < 2:
        return np.arange(count), np.zeros(count)
    pairs = cKDTree(places).query_pairs(reach, output_type="ndarray")
    half = int(np.ceil(reach)) + 1
    joined = np.zeros(len(pairs), bool)
    cubes: dict[int, tuple[Any, Any]] = {}
    for number, (a, b) in enumerate(pairs):
        if a not in cubes:
            cubes = {a: evidence_about(source, places[a], half=half)}  # pairs come by the first
        cube, lower = cubes[a]
        way = np.linspace(places[a], places[b], _STEPS)[1:-1] - np.array(lower)
        ridge = cube[tuple(torch.from_numpy(np.round(way).astype(np.int64).T))]
        joined[number] = float(ridge.min()) > share * min(scores[a], scores[b])
    links = pairs[joined]
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(count, count))
    _, groups = connected_components(graph, directed=False)
    lengths = np.zeros(count)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        points = places[members]
        lengths[members] = max(float(np.linalg.norm(points - p, axis=1).max()) for p in points)
    return groups.astype(np.int64), lengths


def measure_extents(
    source: Source, places: NDArray[np.float64], *, radius: float, least: float
) -> Extent:
    """Size and principal axes of the evidence within a ball about each place.

    Parameters
    ----------
    source
        Evidence, (z, y, x).
    places
        (n, 3): z, y, x in voxels.
    radius
        Voxels.
    least
        Evidence that counts nothing.

    Returns
    -------
    Extent
        A filled ellipsoid of semi-axis a has the variance a^2 / 5 along it.
    """
    half = int(np.ceil(radius)) + 1
    grid = np.arange(-half, half + 1, dtype=np.float64)
    results = []
    for place in places:
        cube, _ = evidence_about(source, place, half=half)
        results.append(_extent(cube.numpy().astype(np.float64) - least, place, grid, radius))
    if not results:
        return Extent(np.zeros((0, 3)), np.zeros((0, 3, 3)), np.zeros(0), np.zeros(0))
    semi, axes, mass, filled = (np.array(r) for r in zip(*results, strict=True))
    return Extent(semi, axes, mass, filled)


def _extent(
    evidence: NDArray[np.float64],
    place: NDArray[np.float64],
    grid: NDArray[np.float64],
    radius: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float, float]:
    rest = place - np.round(place)
    away = np.stack(np.meshgrid(*(grid - r for r in rest), indexing="ij"), -1)
    inside = (away**2).sum(-1) <= radius**2
    weights = np.where(inside, evidence.clip(min=0), 0.0)
    mass = float(weights.sum())
    if mass <= 0:
        return np.zeros(3), np.eye(3), 0.0, 0.0
    offsets = away.reshape(-1, 3)
    flat = weights.ravel()
    mean = flat @ offsets / mass
    spread = (offsets - mean).T @ ((offsets - mean) * flat[:, None]) / mass
    variances, vectors = np.linalg.eigh(spread)
    semi = np.sqrt(5 * variances[::-1].clip(min=0))
    filled = float((weights > 0.5 * weights.max()).sum())
    return semi, vectors[::-1, ::-1].T.copy(), mass, filled
