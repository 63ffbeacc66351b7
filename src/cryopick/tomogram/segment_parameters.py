"""Parameters of the segmentation of tomograms; the names are those of PickET's YAML file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["MODES", "BatchParameters", "FeatureParameters", "SegmentParameters"]

MODES = ("ffts", "gabor", "intensities")


@dataclass(frozen=True, kw_only=True)
class BatchParameters(Parameters):
    """Kinds of features."""

    n_fft_subsets: int = option(
        1,
        help="ffts: parts that a tomogram is worked on in at least; more parts, smaller blocks.",
        minimum=1,
    )
    num_sinusoids: int = option(
        10,
        help="gabor: frequencies along each axis; their cube is the number of filters.",
        minimum=2,
        maximum=32,
    )
    num_neighborhoods_subsets: int = option(
        1,
        help="gabor: parts that a tomogram is worked on in at least; more parts, smaller blocks.",
        minimum=1,
    )
    num_parallel_filters: int = option(
        64,
        help="gabor: filters worked on at once; fewer than num_output_features, smaller blocks.",
        minimum=1,
    )
    num_output_features: int = option(
        64,
        help="gabor: filters that are kept, those whose responses vary most.",
        minimum=3,
    )


@dataclass(frozen=True, kw_only=True)
class FeatureParameters(BatchParameters):
    """One kind of features."""

    mode: Literal["ffts", "gabor", "intensities"] = option(help="Kind of features.")


@dataclass(frozen=True, kw_only=True)
class SegmentParameters(Parameters):
    """Segmentation."""

    neighborhood_size: int = option(
        5, help="Side of the neighbourhood of a voxel, odd.", unit="voxels", minimum=3, maximum=15
    )
    neighborhood: float | None = option(
        None, help="The same as a length, in place of the voxels.", unit="A", above=0
    )
    blur: float | None = option(
        None,
        help="Standard deviation of the Gaussian that smooths the volume; 2 voxels if not given.",
        unit="A",
        minimum=0,
    )
    max_num_neighborhoods_for_fitting: int = option(
        200_000, help="Most voxels, of all tomograms together, to learn from.", minimum=1000
    )
    clusters: int = option(2, help="Number of clusters, up to 6; 0 finds it.", minimum=0, maximum=6)
    covariance: Literal["tied", "full"] = option(
        "tied",
        help="gmm: one covariance for all clusters, that of the noise; or one for each.",
    )
    particle_clusters: tuple[int, ...] = option(
        (),
        help="Clusters that are particles, 0 is the largest; by evidence if not given.",
        minimum=0,
    )
    white: bool = option(default=False, help="Particles are brighter than what is around them.")
    seed: int = option(0, help="Of the random numbers.", minimum=0)

    def check_together(self) -> None:
        """Check that the neighbourhood has a centre and that there are two clusters.

        Raises
        ------
        ParameterError
            If not.
        """
        if self.neighborhood_size % 2 == 0:
            raise ParameterError(
                "neighborhood_size",
                must="be odd",
                got=f"{self.neighborhood_size} voxels",
                remedy=f"Try {self.neighborhood_size + 1}",
            )
        if len(set(self.particle_clusters)) < len(self.particle_clusters):
            raise ParameterError(
                "particle_clusters",
                must="name each cluster once",
                got=", ".join(map(str, self.particle_clusters)),
                remedy="Change --particle-clusters",
            )
        if self.clusters == 1:
            raise ParameterError(
                "clusters",
                must="be at least 2, or 0 to find the number",
                got=1,
                remedy="Change --clusters",
            )
