"""What a segmentation will take, and whether it can be done, before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.errors import ParameterError
from cryopick.execution.local import count_cores
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.volumes import Volume, open_volume
from cryopick.pipeline.tomo_segment_parameters import SegmentOutputParameters
from cryopick.pipeline.tomo_segment_request import SegmentRequest, TomogramInput
from cryopick.tables.paths import micrograph_key
from cryopick.tomogram.segment_parameters import FeatureParameters

__all__ = ["PILOT", "PlannedTomogram", "SegmentPlan", "plan_segmentation"]

PILOT = 200_000  # neighbourhoods that are held in memory to begin a fit
_BLOCK = 1 << 23  # voxels that are read at once
_TILE = 32
_VOXEL_SIZES = 0.05  # relative difference within one data set
_BLUR = 2.0  # voxels, where no length is given
_REACH = 4
_BASE_BYTES = 330 << 20  # the program with its libraries
_SECONDS = {"ffts": 0.35e-6, "gabor": 0.10e-6, "intensities": 0.10e-6}  # a voxel, one core
_SECONDS_OF_METHOD, _SECONDS_OF_FIT, _SECONDS_OF_SAMPLE = 0.03e-6, 3e-6, 5e-6


@dataclass(frozen=True, kw_only=True)
class PlannedTomogram:
    """A tomogram that is there and can be segmented."""

    source: TomogramInput
    key: str  # in names of files
    shape: tuple[int, int, int]  # (z, y, x)
    voxel_size: float  # A
    lower_z: int
    upper_z: int

    @property
    def size(self) -> int:
        """Voxels in all."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class SegmentPlan:
    """The sizes that a segmentation will have."""

    tomograms: tuple[PlannedTomogram, ...]
    side: int  # of a neighbourhood, voxels
    sigma: float  # of the smoothing, voxels
    n_voxels: int  # to learn from
    block_voxels: int
    block_reason: str  # what bounds the block
    memory: int  # bytes of one process
    disk: int  # bytes of all results
    seconds: float  # of one core

    @property
    def voxel_size(self) -> float:
        """Of the data set, A."""
        return self.tomograms[0].voxel_size

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "n_tomograms": len(self.tomograms),
            "voxel_size": round(self.voxel_size, 4),
            "neighborhood_voxels": self.side,
            "neighborhood_angstrom": round(self.side * self.voxel_size, 2),
            "blur_voxels": round(self.sigma, 4),
            "blur_angstrom": round(self.sigma * self.voxel_size, 2),
            "n_voxels_for_fitting": self.n_voxels,
            "block_voxels": self.block_voxels,
            "block_bound_by": self.block_reason,
            "memory_bytes_per_worker": self.memory,
            "disk_bytes": self.disk,
            "cpu_seconds": round(self.seconds, 1),
        }

    def sentences(self, compute: ComputeParameters) -> list[str]:
        """Say it to a person."""
        size = self.voxel_size
        threads = compute.threads * max(1, compute.workers) or count_cores()
        return [
            f"{len(self.tomograms)} tomograms, {sum(t.size for t in self.tomograms):,} voxels "
            f"of {size:.4g} A.",
            f"Neighbourhood {self.side} voxels ({self.side * size:.4g} A), smoothed by "
            f"{self.sigma:.3g} voxels ({self.sigma * size:.4g} A).",
            f"{self.n_voxels:,} voxels to learn from.",
            f"Blocks of at most {self.block_voxels:,} voxels, bound by {self.block_reason}; "
            "results do not depend on them.",
            f"About {self.memory / 2**30:.2f} GiB of memory for each worker, "
            f"{self.disk / 1e9:.3g} GB of disk, and {self.seconds:.0f} s of CPU time "
            f"({self.seconds / threads:.0f} s on {threads} cores).",
        ]


def plan_segmentation(
    request: SegmentRequest,
    output: SegmentOutputParameters,
    *,
    voxel_size: float | None = None,
) -> SegmentPlan:
    """Open every tomogram's header, check what can be known, and count.

    Parameters
    ----------
    request
        What is asked for.
    output
        What is written.
    voxel_size
        A, instead of what the files say.

    Returns
    -------
    SegmentPlan
        Estimates are of this program on one core of a common server.

    Raises
    ------
    FormatError
        If a tomogram is missing or broken.
    ParameterError
        If limits of z are wrong, a tomogram is smaller than a neighbourhood, or voxel sizes differ.
    """
    keys = _keys([i.path for i in request.inputs])
    opened = [(i, open_volume(i.path, voxel_size=voxel_size)) for i in request.inputs]
    size = _common_size(opened)
    parameters = request.parameters
    side = parameters.neighborhood_size
    if parameters.neighborhood is not None:
        side = max(3, round((parameters.neighborhood / size - 1) / 2) * 2 + 1)
    sigma = _BLUR if parameters.blur is None else parameters.blur / size
    tomograms = tuple(
        _planned(item, key, volume.shape, volume.voxel_size, side)
        for (item, volume), key in zip(opened, keys, strict=True)
    )
    usable = sum(
        (t.upper_z - t.lower_z) * (t.shape[1] - side + 1) * (t.shape[2] - side + 1)
        for t in tomograms
    )
    n_voxels = min(parameters.max_num_neighborhoods_for_fitting, usable)
    largest = max(t.size for t in tomograms)
    block, reason = _block(request.features, largest)
    return SegmentPlan(
        tomograms=tomograms,
        side=side,
        sigma=sigma,
        n_voxels=n_voxels,
        block_voxels=block,
        block_reason=reason,
        memory=_memory(tomograms, side, sigma, block, min(n_voxels, PILOT), request, output),
        disk=sum(t.size for t in tomograms) * _bytes_per_voxel(request, output),
        seconds=_seconds(request, sum(t.size for t in tomograms), n_voxels),
    )


def _common_size(opened: Sequence[tuple[TomogramInput, Volume]]) -> float:
    """Voxel size of the first tomogram, which the others must have, too."""
    size = opened[0][1].voxel_size
    for item, volume in opened:
        if abs(volume.voxel_size - size) > _VOXEL_SIZES * size:
            raise ParameterError(
                str(item.path),
                must=f"have the voxel size of the data set, {size:.4g} A",
                got=f"{volume.voxel_size:.4g} A",
                remedy="Segment it as a data set of its own",
            )
    return size


def _planned(
    item: TomogramInput, key: str, shape: tuple[int, int, int], size: float, side: int
) -> PlannedTomogram:
    if min(shape) < side:
        raise ParameterError(
            str(item.path),
            must=f"be at least a neighbourhood of {side} voxels along each axis",
            got=" x ".join(map(str, shape)),
            remedy="Make neighborhood_size smaller",
        )
    half = side // 2
    low = 0 if item.lower_z is None else item.lower_z
    high = shape[0] if item.upper_z is None else item.upper_z
    if not 0 <= low < high <= shape[0]:
        raise ParameterError(
            f"the limits of z of {item.path.name}",
            must=f"be lower < upper, within 0 and {shape[0]} (upper is the first section beyond)",
            got=f"{low} and {high}",
            remedy="Change lower_z-slice_limit or upper_z-slice_limit",
        )
    low, high = max(low, half), min(high, shape[0] - half)
    if low >= high:
        raise ParameterError(
            f"the limits of z of {item.path.name}",
            must=f"hold a section with {half} more on both sides in the tomogram",
            got=f"none of {shape[0]}",
            remedy="Widen lower_z-slice_limit and upper_z-slice_limit",
        )
    return PlannedTomogram(
        source=item, key=key, shape=shape, voxel_size=size, lower_z=low, upper_z=high
    )


def _keys(paths: Sequence[Path]) -> list[str]:
    """Name the tomograms in files: by their names, or with folders where names are alike."""
    stems = [p.stem if p.suffix else p.name for p in paths]
    if len(set(stems)) == len(stems):
        return stems
    return [micrograph_key(str(p)) for p in paths]


def _block(features: Sequence[FeatureParameters], largest: int) -> tuple[int, str]:
    """Most voxels of a block: what the batch keys of the modes leave, or the usual."""
    bounds = [(_BLOCK, "the usual size"), (largest, "the largest tomogram")]
    for feature in features:
        if feature.mode == "ffts":
            parts, words = float(feature.n_fft_subsets), f"n_fft_subsets {feature.n_fft_subsets}"
        elif feature.mode == "gabor":
            at_once = min(1.0, feature.num_parallel_filters / feature.num_output_features)
            parts = feature.num_neighborhoods_subsets / at_once
            words = f"num_neighborhoods_subsets {feature.num_neighborhoods_subsets}"
            words += f" and num_parallel_filters {feature.num_parallel_filters}"
        else:
            continue
        if parts > 1:
            bounds.append((int(largest / parts), words))
    voxels, reason = min(bounds)
    if voxels < _TILE**3:
        return _TILE**3, f"one tile, the least there is, by {reason}"
    return voxels, reason


def _bytes_per_voxel(request: SegmentRequest, output: SegmentOutputParameters) -> int:
    n_clusters = request.parameters.clusters or 6
    n_posteriors = n_clusters if output.all_posteriors else 1
    a_posterior = 2 if output.posterior_type == "float16" else 4
    labels = 2 if output.format == "mrc" else 1
    one = labels + n_posteriors * a_posterior + (2 if output.hdf5 else 0)
    return one * len(request.features) * len(request.methods)


def _memory(
    tomograms: Sequence[PlannedTomogram],
    side: int,
    sigma: float,
    block: int,
    pilot: int,
    request: SegmentRequest,
    output: SegmentOutputParameters,
) -> int:
    """Bytes at the peak: of the fit, or of a block with its halo and results."""
    halo = math.ceil(_REACH * sigma) + side // 2
    fit = pilot * side**3 * 4 * 3 + pilot * 64 * 4
    padded = 0
    for tomogram in tomograms:
        depth, height, width = (-(-n // _TILE) * _TILE for n in tomogram.shape)
        columns = min(width, max(_TILE, block // _TILE**2))
        rows = min(height, max(_TILE, block // (_TILE * columns)))
        sections = min(depth, max(_TILE, block // (rows * columns)))
        padded = max(padded, (sections + 2 * halo) * (rows + 2 * halo) * (columns + 2 * halo))
    results = min(block, max(t.size for t in tomograms)) * _bytes_per_voxel(request, output)
    return _BASE_BYTES + max(fit, 2 * 4 * padded + results)


def _seconds(request: SegmentRequest, n_voxels: int, n_fit: int) -> float:
    n_methods, n_modes = len(request.methods), len(request.features)
    label = sum(_SECONDS[f.mode] for f in request.features) + (
        _SECONDS_OF_METHOD * n_methods * n_modes
    )
    pilot = min(n_fit, PILOT)
    passes = 1 if n_fit > pilot else 0
    fit = _SECONDS_OF_FIT * pilot * n_methods * n_modes + _SECONDS_OF_SAMPLE * pilot
    return n_voxels * label * (1 + passes) + fit
