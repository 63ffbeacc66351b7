"""Particles of a tomogram: where they are, how sure that is, and how large they are.

Method `matched` filters the tomogram with balls against the spectrum of its noise, takes the maxima
that noise does not make, leaves out those on membranes and filaments, and moves each to the middle
of the object it is part of. Method `segment` begins at the objects of a segmentation instead and
asks the same responses how sure each is. `dog` and `threshold` are the plain baselines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.errors import ParameterError
from cryopick.tomogram.kinds import invariant_features
from cryopick.tomogram.locate_beads import Bead
from cryopick.tomogram.locate_instances import Instances, find_instances
from cryopick.tomogram.locate_parameters import TomogramPickParameters
from cryopick.tomogram.locate_peaks import Peaks, find_peaks, suppress_close
from cryopick.tomogram.locate_prepare import prepare_tomogram
from cryopick.tomogram.locate_refine import FLOOR, NEAR_BEAD, refine_places, scores_at
from cryopick.tomogram.locate_search import Search, make_search
from cryopick.tomogram.locate_source import Corner, VoxelSource, VoxelStore
from cryopick.tomogram.locate_threshold import dark_threshold, smoothed_source
from cryopick.tomogram.shapes import Extent, measure_curvatures, measure_extents

__all__ = ["Located", "locate_particles"]

_AT_ONCE = 64  # boxes about picks in memory
_VOLUMES = (0.3, 1.5)  # of balls of the smallest and the largest diameter

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Located:
    """Picks of one tomogram, the best first."""

    places: NDArray[np.float64]  # (n, 3): z, y, x in voxels
    scores: NDArray[np.float64]  # (n,) z-score
    extent: Extent  # of the evidence about each
    features: NDArray[np.float64]  # (n, m) that no rotation changes
    curvatures: NDArray[np.float64]  # (n, 2) shares of the first
    threshold: float  # least score
    beads: tuple[Bead, ...]
    n_maxima: int  # above the threshold
    n_extended: int  # left out, as part of a membrane or filament

    def __len__(self) -> int:
        return len(self.scores)


def locate_particles(
    source: VoxelSource,
    *,
    voxel_size: float,
    parameters: TomogramPickParameters,
    evidence: VoxelStore,
    segmentation: VoxelSource | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Located:
    """Find the particles of a tomogram.

    Parameters
    ----------
    source
        The volume, read in boxes.
    voxel_size
        A.
    parameters
        How.
    evidence
        Of the shape of the volume; filled with the largest response of each voxel, a z-score.
    segmentation
        Probability that a voxel is of a particle, of the shape of the volume; for method
        `segment`.
    device
        Where the tomogram is filtered.
    progress
        Called with the number of blocks done and in all.

    Returns
    -------
    Located
        The picks.

    Raises
    ------
    DataError
        If the volume is constant or not finite.
    ParameterError
        If a diameter or section does not fit the volume, or the segmentation is missing.
    """
    slab = parameters.slab(source.shape[0])
    _check_diameters(parameters, voxel_size, source.shape)
    tomogram = prepare_tomogram(
        source,
        voxel_size=voxel_size,
        is_white=parameters.white_particles,
        find_gold=parameters.gold,
        side=parameters.block,
    )
    search = make_search(tomogram, parameters, voxel_size, slab, device=device)
    peaks = _peaks(search, parameters, evidence, progress)
    places, scores, n_maxima = peaks.places, peaks.scores, len(peaks)
    if parameters.method in ("segment", "threshold"):
        found = _instances(search, parameters, voxel_size, segmentation, evidence)
        places, scores = found.places, scores_at(found.places, evidence)
    if parameters.method == "dog":
        kept = suppress_close(places, scores, distance=parameters.distance / voxel_size)
        n_extended = 0
    else:
        places, scores, kept, n_extended = refine_places(
            search, parameters, voxel_size, evidence, places, scores
        )
    places, scores = places[kept], scores[kept]
    return _described(
        search,
        parameters,
        voxel_size,
        evidence,
        places,
        scores,
        counts=(n_maxima, n_extended),
    )


def _check_diameters(parameters: TomogramPickParameters, voxel_size: float, shape: Corner) -> None:
    if parameters.min_diameter < 4 * voxel_size:
        raise ParameterError(
            "min_diameter",
            must=f"be at least four voxels, {4 * voxel_size:g} A",
            got=f"{parameters.min_diameter:g} A",
            remedy="Raise --min-diameter, or reconstruct with smaller voxels",
        )
    if parameters.max_diameter > min(shape) * voxel_size:
        raise ParameterError(
            "max_diameter",
            must=f"be below the thickness of the tomogram, {min(shape) * voxel_size:g} A",
            got=f"{parameters.max_diameter:g} A",
            remedy="Lower --max-diameter",
        )


def _peaks(
    search: Search,
    parameters: TomogramPickParameters,
    evidence: VoxelStore,
    progress: Progress | None,
) -> Peaks:
    peaks = find_peaks(
        search.filters.respond,
        search.read,
        search.tomogram.shape,
        search.scales,
        halo=search.filters.halo,
        side=parameters.block,
        threshold=search.threshold,
        slab=search.slab,
        evidence=evidence,
        progress=progress,
    )
    away = ~search.tomogram.streaks.covers(peaks.places, margin=NEAR_BEAD)
    return peaks.keep(away)


def _instances(
    search: Search,
    parameters: TomogramPickParameters,
    voxel_size: float,
    segmentation: VoxelSource | None,
    evidence: VoxelStore,
) -> Instances:
    least = parameters.probability
    if parameters.method == "threshold":
        segmentation = smoothed_source(search.tomogram)
        least = dark_threshold(segmentation)
    elif segmentation is None:
        raise ParameterError(
            "segmentation",
            must="be given for method segment",
            got="none",
            remedy="Run cryopick tomo segment first and name its folder with --segmentation",
        )
    assert segmentation is not None
    ball = np.pi / 6 / voxel_size**3
    return find_instances(
        segmentation,
        least=least,
        slab=search.slab,
        distance=parameters.distance / voxel_size,
        radius=parameters.max_diameter / 2 / voxel_size,
        volumes=(
            _VOLUMES[0] * ball * parameters.min_diameter**3,
            _VOLUMES[1] * ball * parameters.max_diameter**3,
        ),
        how=parameters.instances,
        side=parameters.block,
        is_wanted=lambda places: scores_at(places, evidence) > search.threshold,
    )


def _described(
    search: Search,
    parameters: TomogramPickParameters,
    voxel_size: float,
    evidence: VoxelStore,
    places: NDArray[np.float64],
    scores: NDArray[np.float64],
    *,
    counts: tuple[int, int],
) -> Located:
    """Measure the picks."""
    radius = parameters.max_diameter / 2 / voxel_size
    return Located(
        places=places,
        scores=scores,
        extent=measure_extents(evidence, places, radius=radius, least=FLOOR),
        features=_features(search, places, radius),
        curvatures=measure_curvatures(evidence, places, radius=0.6 * radius),
        threshold=search.threshold,
        beads=search.tomogram.beads,
        n_maxima=counts[0],
        n_extended=counts[1],
    )


def _features(search: Search, places: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Describe what is about each place so that rotation changes nothing."""
    half = int(np.ceil(radius))
    side = 2 * half + 1
    found = [np.zeros((0, 1))]
    for first in range(0, len(places), _AT_ONCE):
        cubes = []
        for place in places[first : first + _AT_ONCE]:
            z, y, x = (int(c) - half for c in np.round(place))
            cubes.append(search.tomogram.read((z, y, x), (z + side, y + side, x + side)))
        found.append(invariant_features(torch.stack(cubes), radius=radius))
    return np.concatenate(found[1:] or found)
