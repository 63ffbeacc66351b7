"""Segment a tomogram by the features of each voxel's neighbourhood, tile by tile.

What is learned is one model for all tomograms: a basis of neighbourhoods, the features, their
principal components, and clusters of these (`cryopick.tomogram.clustering`). Each tomogram has its
own grey levels (`cryopick.tomogram.segment_levels`). A neighbourhood of a smooth volume lies close
to a space of few dimensions; its basis is all that is ever correlated with the volume, and the
kernels of a bank are applied to the coefficients.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryopick.tomogram.clustering import Clusters, most_likely, posteriors
from cryopick.tomogram.features import FilterBank, feature_values, keep_strongest, make_bank
from cryopick.tomogram.segment_levels import Levels, scale_levels, smooth
from cryopick.tomogram.segment_parameters import FeatureParameters
from cryopick.tomogram.segment_tiles import TILE

__all__ = [
    "UNLABELLED",
    "FeatureModel",
    "TileSegmenter",
    "fit_features",
    "label_tile",
    "neighbourhood_features",
    "tile_features",
    "whitening",
]

UNLABELLED = 255  # of the border, whose neighbourhoods are not within the volume

_BASIS_SHARE = 1e-4  # of the variance that the basis of neighbourhoods may miss
_MOST_COMPONENTS = 12
_COMPONENT_SHARE = 0.005  # of the variance that the principal components may miss
_PIECE = 2048  # voxels whose features fit in the cache


@dataclass(frozen=True, kw_only=True)
class FeatureModel:
    """From a neighbourhood to the principal components of its features."""

    mode: str
    neighborhood_size: int
    n_features: int
    kernels: Tensor  # (r, n^3) float32: the basis of neighbourhoods
    even: Tensor  # (m, r) float32; no rows where the components are linear
    odd: Tensor  # (m, r) float32; likewise
    is_magnitude: Tensor  # (m,) bool
    components: Tensor  # (q, m) float32
    offset: Tensor  # (q, 1) float32: components of the mean feature
    variances: Tensor  # (q,) float64: of the components
    is_odd: Tensor  # (q,) bool: components that a mirror image in the centre turns round
    kept: float  # share of the variance of the features that the components hold

    def to(self, device: str) -> FeatureModel:
        """Copy to a device."""
        tensors = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return FeatureModel(**{**vars(self), **tensors})


@dataclass(frozen=True, kw_only=True)
class TileSegmenter:
    """One workflow: features of a mode, and the clusters of their components."""

    features: FeatureModel
    scale: Tensor  # (q, 1) float32: factors of the components
    clusters: Clusters  # of scaled components

    def to(self, features: FeatureModel, device: str) -> TileSegmenter:
        """Copy to a device, with features that are there already."""
        scale = self.scale.to(device)
        return TileSegmenter(features=features, scale=scale, clusters=self.clusters.to(device))


def fit_features(patches: Tensor, parameters: FeatureParameters, *, side: int) -> FeatureModel:
    """Learn the basis of neighbourhoods and the principal components of a mode's features.

    Parameters
    ----------
    patches
        (n, side^3) float32: neighbourhoods on the scale of their tomograms.
    parameters
        Of the mode.
    side
        Of a neighbourhood, voxels.

    Returns
    -------
    FeatureModel
        On the CPU. The components hold 99.5 % of the features' variance, or there are 12.
    """
    covariance, mean = _covariance(patches)
    bank = make_bank(parameters, neighborhood_size=side)
    if parameters.mode == "gabor":
        bank = keep_strongest(bank, covariance, parameters.num_output_features)
    if not bool(bank.is_magnitude.any()):
        return _linear_model(parameters.mode, bank, covariance, mean)
    kernels = _basis(covariance)
    even, odd = (k @ kernels.T for k in (bank.even, bank.odd))
    model = FeatureModel(
        mode=parameters.mode,
        neighborhood_size=side,
        n_features=len(bank),
        kernels=kernels.float(),
        even=even.float(),
        odd=odd.float(),
        is_magnitude=bank.is_magnitude,
        components=torch.eye(len(bank)),
        offset=torch.zeros(len(bank), 1),
        variances=torch.ones(len(bank), dtype=torch.float64),
        is_odd=torch.zeros(len(bank), dtype=torch.bool),
        kept=1.0,
    )
    return _with_components(model, kernels.float() @ patches.T)


def neighbourhood_features(model: FeatureModel, patches: Tensor) -> Tensor:
    """Principal components of neighbourhoods (n, side^3), as (q, n)."""
    return _components(model, model.kernels @ patches.T)


def tile_features(model: FeatureModel, scaled: Tensor) -> Tensor:
    """Principal components of the features of each voxel of a tile.

    Parameters
    ----------
    model
        On the device of the tile.
    scaled
        (s, s, s) float32, the tile with n // 2 voxels around it, smoothed and scaled.

    Returns
    -------
    Tensor
        (q, t^3) float32, t = s - n + 1.
    """
    side = model.neighborhood_size
    kernels = model.kernels.view(-1, 1, side, side, side)
    exact: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if scaled.is_cuda:  # its convolutions would round to 10 bits
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with exact:
        coefficients = torch.nn.functional.conv3d(scaled[None, None], kernels)[0]
    return _components(model, coefficients.flatten(1))


def whitening(model: FeatureModel) -> Tensor:
    """Factors (q, 1) that give each component unit variance."""
    return model.variances.clamp(min=1e-12).rsqrt().float()[:, None]


def label_tile(
    segmenters: list[TileSegmenter], tile: Tensor, matrix: Tensor, levels: Levels
) -> list[tuple[Tensor, Tensor]]:
    """Segment a tile by several workflows; what they share is done once.

    Parameters
    ----------
    segmenters
        Workflows of one neighbourhood size.
    tile
        (s, s, s) float32 raw voxels, the tile with its halo.
    matrix
        Of the smoothing.
    levels
        Of the tomogram.

    Returns
    -------
    list of (Tensor, Tensor)
        For each workflow labels, uint8 (TILE, TILE, TILE), and posteriors, float32
        (K, TILE, TILE, TILE).
    """
    scaled = scale_levels(smooth(tile, matrix), levels)
    features: dict[int, Tensor] = {}
    found = []
    for segmenter in segmenters:
        model = segmenter.features
        if id(model) not in features:
            features[id(model)] = tile_features(model, scaled)
        components = features[id(model)] * segmenter.scale
        shares = posteriors(segmenter.clusters, components)
        labels = most_likely(shares)
        cube = (TILE, TILE, TILE)
        found.append((labels.view(cube), shares.view(-1, *cube)))
    return found


def _covariance(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Covariance and mean of neighbourhoods and of their mirror images in the centre, float64."""
    mean = patches.mean(0, dtype=torch.float64)
    mean = 0.5 * (mean + mean.flip(0))
    total = torch.zeros(patches.shape[1], patches.shape[1], dtype=torch.float64)
    middle = mean.float()
    for piece in torch.split(patches, _PIECE):
        centred = piece - middle
        total += (centred.T @ centred).double()
    return 0.5 * (total + total.flip(0, 1)) / len(patches), mean


def _basis(covariance: Tensor) -> Tensor:
    """Directions of neighbourhoods that hold all but a small share of the variance, in rows."""
    values, vectors = torch.linalg.eigh(covariance)
    missed = values.clamp(min=0).cumsum(0) / values.clamp(min=0).sum()
    return _signed(vectors[:, missed > _BASIS_SHARE].flip(1).T)


def _signed(rows: Tensor) -> Tensor:
    """Give each row the sign that makes its largest entry positive, whatever the solver did."""
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return rows * torch.where(largest < 0, -1.0, 1.0).to(rows)


def _components(model: FeatureModel, coefficients: Tensor) -> Tensor:
    """From coefficients in the basis, (r, n), to principal components, (q, n)."""
    if not len(model.even):
        return coefficients - model.offset
    pieces = []
    for piece in torch.split(coefficients, _PIECE, 1):
        values = feature_values(model.is_magnitude, model.even @ piece, model.odd @ piece)
        pieces.append(torch.addmm(-model.offset, model.components, values))
    return torch.cat(pieces, 1) if len(pieces) > 1 else pieces[0]


def _linear_model(mode: str, bank: FilterBank, covariance: Tensor, mean: Tensor) -> FeatureModel:
    """Principal components of linear features: kernels that are even or odd about their centre."""
    variances, components, kept = _principal(bank.even @ covariance @ bank.even.T)
    kernels = components @ bank.even
    mirrored = kernels.flip(1)
    is_odd = (kernels * mirrored).sum(1) < 0
    kernels = 0.5 * torch.where(is_odd[:, None], kernels - mirrored, kernels + mirrored)
    order = torch.argsort(is_odd.int(), stable=True)  # the density comes first
    kernels, variances, is_odd = kernels[order], variances[order], is_odd[order]
    nothing = torch.zeros(0, len(kernels))
    return FeatureModel(
        mode=mode,
        neighborhood_size=round(len(mean) ** (1 / 3)),
        n_features=len(bank),
        kernels=kernels.float(),
        even=nothing,
        odd=nothing,
        is_magnitude=bank.is_magnitude[: len(kernels)],
        components=torch.eye(len(kernels)),
        offset=(kernels @ mean)[:, None].float(),
        variances=variances,
        is_odd=is_odd,
        kept=kept,
    )


def _with_components(model: FeatureModel, coefficients: Tensor) -> FeatureModel:
    """Find the principal components of features that are not linear, from a sample."""
    mean = torch.zeros(model.n_features, dtype=torch.float64)
    second = torch.zeros(model.n_features, model.n_features, dtype=torch.float64)
    for piece in torch.split(coefficients, _PIECE, 1):
        values = _components(model, piece)
        mean += values.sum(1, dtype=torch.float64)
        second += (values @ values.T).double()
    mean = mean / coefficients.shape[1]
    variances, components, kept = _principal(second / coefficients.shape[1] - mean.outer(mean))
    return replace(
        model,
        components=components.float(),
        offset=(components @ mean)[:, None].float(),
        variances=variances,
        is_odd=model.is_odd[: len(components)],
        kept=kept,
    )


def _principal(covariance: Tensor) -> tuple[Tensor, Tensor, float]:
    """Variances (q,) and rows (q, m) of the principal components, and the share that they hold."""
    variances, vectors = torch.linalg.eigh(covariance)
    variances, vectors = variances.flip(0).clamp(min=0), vectors.flip(1)
    held = variances.cumsum(0) / variances.sum()
    number = min(_MOST_COMPONENTS, int((held < 1 - _COMPONENT_SHARE).sum()) + 1)
    return variances[:number], _signed(vectors[:, :number].T), float(held[number - 1])
