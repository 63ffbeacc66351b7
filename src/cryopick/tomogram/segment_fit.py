"""Learn one segmentation of a data set from neighbourhoods of its tomograms.

Clusters are numbered by what they are, not by chance: 0 is the largest, the others follow from the
one that is most like particles (darkest, or brightest if particles are white) on. Which of
them are particles is decided by that contrast and said in a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cryopick.errors import ParameterError
from cryopick.tomogram.clustering import Method, log_likelihoods, most_likely
from cryopick.tomogram.clustering_cells import Cells, collect_cells, settle_in_cells
from cryopick.tomogram.clustering_fit import choose_number, fit_clusters
from cryopick.tomogram.segment import (
    FeatureModel,
    TileSegmenter,
    fit_features,
    neighbourhood_features,
    whitening,
)
from cryopick.tomogram.segment_parameters import FeatureParameters, SegmentParameters

__all__ = [
    "ClusterEvidence",
    "Workflow",
    "cells_of",
    "fit_workflows",
    "refine_workflows",
]

_PARTICLE_SHARE = 0.5  # of the highest contrast that another cluster of particles has


@dataclass(frozen=True, kw_only=True)
class ClusterEvidence:
    """What is known of a cluster."""

    number: int
    share: float  # of the voxels learned from
    density: float  # mean at the voxel, deviations from the tomogram's median; dark is negative
    is_particle: bool
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**vars(self), "share": round(self.share, 5), "density": round(self.density, 3)}


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """Features of a mode with a clustering method, fitted."""

    method: Method
    segmenter: TileSegmenter
    evidence: tuple[ClusterEvidence, ...]

    @property
    def name(self) -> str:
        """As it appears in names of files."""
        return f"{self.segmenter.features.mode}_{self.method}"

    @property
    def particle_clusters(self) -> tuple[int, ...]:
        """Numbers of the clusters that are taken for particles."""
        return tuple(e.number for e in self.evidence if e.is_particle)


def fit_workflows(
    patches: Tensor,
    features: Sequence[FeatureParameters],
    methods: Sequence[Method],
    parameters: SegmentParameters,
    *,
    n_independent: float,
) -> list[Workflow]:
    """Fit every method on every mode of features.

    Parameters
    ----------
    patches
        (n, side^3) float32: neighbourhoods of all tomograms, each on its own scale.
    features, methods
        What is asked for.
    parameters
        Of the segmentation.
    n_independent
        How many of the neighbourhoods are independent of each other.

    Returns
    -------
    list of Workflow
        By mode, then method.

    Raises
    ------
    ParameterError
        If a cluster that is to be of particles does not exist.
    """
    workflows = []
    for feature in features:
        model = fit_features(patches, feature, side=round(patches.shape[1] ** (1 / 3)))
        components = neighbourhood_features(model, patches)
        is_tied = parameters.covariance == "tied"
        number = parameters.clusters or choose_number(
            components * _scale(model, "gmm", components, patches, is_white=parameters.white),
            seed=parameters.seed,
            n_independent=n_independent,
            is_tied=is_tied,
            is_odd=model.is_odd,
        )
        for method in methods:
            scale = _scale(model, method, components, patches, is_white=parameters.white)
            clusters, _ = fit_clusters(
                method,
                components * scale,
                number,
                seed=parameters.seed,
                is_tied=is_tied,
                is_odd=model.is_odd,
            )
            segmenter = TileSegmenter(features=model, scale=scale, clusters=clusters)
            workflows.append(_told(method, segmenter, patches, parameters))
    return workflows


def refine_workflows(
    workflows: Sequence[Workflow],
    cells: Sequence[Cells],
    patches: Tensor,
    parameters: SegmentParameters,
) -> list[Workflow]:
    """Fit the models anew to more voxels than are held in memory.

    Parameters
    ----------
    workflows
        The first models.
    cells
        Of each, by `cells_of`.
    patches, parameters
        As for `fit_workflows`, to tell the clusters by.
    """
    refined = []
    for workflow, gathered in zip(workflows, cells, strict=True):
        old = workflow.segmenter
        clusters = settle_in_cells(old.clusters, gathered)
        new = TileSegmenter(features=old.features, scale=old.scale, clusters=clusters)
        refined.append(_told(workflow.method, new, patches, parameters))
    return refined


def _scale(
    model: FeatureModel, method: Method, components: Tensor, patches: Tensor, *, is_white: bool
) -> Tensor:
    """Give each component of a mixture unit variance; all have one factor for k-means.

    The sign makes the first component positive where particles are.
    """
    middle = patches[:, patches.shape[1] // 2]
    along = float((components[0] * (middle - middle.mean())).sum())
    sign = 1.0 if (along > 0) == is_white else -1.0
    factors = whitening(model) * sign
    return factors if method == "gmm" else factors[:1].expand_as(factors).contiguous()


def _told(
    method: Method, segmenter: TileSegmenter, patches: Tensor, parameters: SegmentParameters
) -> Workflow:
    """Order the clusters and tell which are particles."""
    shares, densities = _densities(segmenter, patches)
    sign = 1.0 if parameters.white else -1.0
    background = int(shares.argmax())
    contrast = sign * (densities - densities[background])
    contrast[background] = torch.inf
    order = torch.argsort(contrast, descending=True, stable=True)
    numbered = TileSegmenter(
        features=segmenter.features, scale=segmenter.scale, clusters=segmenter.clusters.take(order)
    )
    evidence = _evidence(shares[order], densities[order], parameters)
    return Workflow(method=method, segmenter=numbered, evidence=evidence)


def _densities(segmenter: TileSegmenter, patches: Tensor) -> tuple[Tensor, Tensor]:
    """Share of the voxels and mean density of each cluster."""
    components = neighbourhood_features(segmenter.features, patches) * segmenter.scale
    labels = most_likely(log_likelihoods(segmenter.clusters, components)).long()
    counts = torch.bincount(labels, minlength=len(segmenter.clusters)).double()
    middle = patches[:, patches.shape[1] // 2].double()
    sums = torch.zeros_like(counts).index_add_(0, labels, middle)
    return counts / counts.sum(), sums / counts.clamp(min=1)


def _evidence(
    shares: Tensor, densities: Tensor, parameters: SegmentParameters
) -> tuple[ClusterEvidence, ...]:
    number, asked = len(shares), parameters.particle_clusters
    if asked and max(asked) >= number:
        raise ParameterError(
            "particle_clusters",
            must=f"be among the clusters 0 to {number - 1}",
            got=max(asked),
            remedy="Change --particle-clusters",
        )
    word = "brighter" if parameters.white else "darker"
    contrasts = (densities - densities[0]) * (1.0 if parameters.white else -1.0)
    highest = float(contrasts[1:].max())
    found = []
    for index in range(number):
        contrast = float(contrasts[index])
        is_particle = index > 0 and (
            contrast >= _PARTICLE_SHARE * highest > 0 or (highest <= 0 and number == 2)
        )
        why = f"{contrast:.1f} deviations {word} than the largest cluster"
        if not index:
            why = "the largest cluster"
        elif is_particle and contrast <= 0:
            why = f"the smaller cluster, though it is not {word} than the other; see --white"
        if asked:
            is_particle, why = index in asked, "as asked for"
        found.append(
            ClusterEvidence(
                number=index,
                share=float(shares[index]),
                density=float(densities[index]),
                is_particle=is_particle,
                why=why,
            )
        )
    return tuple(found)


def cells_of(workflow: Workflow, components: Tensor) -> Cells:
    """Gather voxels for `refine_workflows`, by the components of their features, (q, n)."""
    segmenter = workflow.segmenter
    return collect_cells(segmenter.clusters, components * segmenter.scale)
