"""Clusters of feature vectors: k-means and Gaussian mixtures, as two steps that are repeated.

Both are one model: a cluster has a weight w, a mean m and a matrix A with A'A the inverse
covariance, and the log-likelihood of x in it is log w + log |A| - |A (x - m)|^2 / 2. K-means has
one A for all clusters, a multiple of the identity, and equal weights, so the likeliest cluster is
the nearest (Lloyd 1982). Its vectors count by 1 + x^2 where their first feature x is positive, as
that of particles is: particles fill a few per cent of a noisy volume, and plain k-means halves the
noise. A mixture has one A for each cluster or one for all; it is fitted by expectation-maximisation
(Dempster, Laird and Rubin 1977) from k-means, which begins with k-means++ (Arthur and Vassilvitskii
2007).

A volume has no direction in which particles look, so a neighbourhood is as likely as its mirror
image in its centre. Features that change sign with it, odd ones, have mean 0 in every cluster and
no covariance with the others. Without this rule a mixture takes one side of each particle.

``expect`` makes sums over vectors, in float64 over pieces of fixed size, in order; ``maximise``
makes the model that they ask for. `cryopick.tomogram.clustering_fit` repeats both until they rest,
and `cryopick.tomogram.clustering_cells` does so for more vectors than are held in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "Clusters",
    "Method",
    "Sums",
    "counts_of",
    "expect",
    "log_likelihoods",
    "maximise",
    "most_likely",
    "posteriors",
]

Method = Literal["kmeans", "gmm"]

_PIECE = 8192  # vectors whose sums are made at once
_RIDGE = 1e-4  # added to the covariance of whitened features
_LEAST_SHARE = 1e-4  # of the vectors in a cluster


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """A fitted model of K clusters of vectors with D features."""

    method: Method
    weights: Tensor  # (K,) float64, sum 1
    means: Tensor  # (K, D) float64
    factors: Tensor  # (K, D, D) float64: A of each cluster
    is_tied: bool  # one covariance for all clusters
    is_odd: Tensor  # (D,) bool: features that a mirror image in the centre turns round

    def __len__(self) -> int:
        return len(self.weights)

    def to(self, device: str) -> Clusters:
        """Copy to a device, for posteriors there."""
        tensors = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return Clusters(**{**vars(self), **tensors})

    def take(self, order: Tensor) -> Clusters:
        """Take clusters in another order."""
        return Clusters(
            method=self.method,
            weights=self.weights[order],
            means=self.means[order],
            factors=self.factors[order],
            is_tied=self.is_tied,
            is_odd=self.is_odd,
        )


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Sums over vectors, weighted by their posterior."""

    counts: Tensor  # (K,) float64
    firsts: Tensor  # (K, D)
    seconds: Tensor  # (K, D, D)
    log_likelihood: float
    n_vectors: int


def log_likelihoods(clusters: Clusters, vectors: Tensor) -> Tensor:
    """Log-likelihood of vectors in each cluster, up to a constant.

    Parameters
    ----------
    clusters
        K clusters of D features.
    vectors
        (D, n), of any device and floating type.

    Returns
    -------
    Tensor
        (K, n), of the type of `vectors`.
    """
    n_clusters, n_features = clusters.means.shape
    factors = clusters.factors.reshape(-1, n_features)
    offsets = (clusters.factors @ clusters.means[:, :, None]).reshape(-1, 1)
    scaled = torch.addmm(-offsets.to(vectors), factors.to(vectors), vectors)
    squares = scaled.square_().view(n_clusters, n_features, -1).sum(1)
    volume = clusters.factors.diagonal(dim1=1, dim2=2).abs().log().sum(1)
    constants = clusters.weights.log() + volume
    return torch.add(constants.to(vectors)[:, None], squares, alpha=-0.5)


def posteriors(clusters: Clusters, vectors: Tensor) -> Tensor:
    """Posterior probability of each cluster, (K, n), for vectors (D, n)."""
    return torch.softmax(log_likelihoods(clusters, vectors), 0)


def most_likely(likelihoods: Tensor) -> Tensor:
    """Find the likeliest cluster, uint8 (n,), from likelihoods or posteriors (K, n).

    Of equal ones the first. A loop over a few clusters is far quicker than ``argmax`` over the
    short axis.
    """
    best = likelihoods[0].clone()
    found = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for number in range(1, len(likelihoods)):
        found.masked_fill_(likelihoods[number] > best, number)
        torch.maximum(best, likelihoods[number], out=best)
    return found


def counts_of(vectors: Tensor) -> Tensor:
    """How much each vector (D, n) counts in k-means: (n,)."""
    return vectors[0].clamp(min=0).square_().add_(1)


def expect(clusters: Clusters, vectors: Tensor, *, is_counted: bool = True) -> Sums:
    """Add up vectors by cluster: the nearest for k-means, by posterior for a mixture.

    Parameters
    ----------
    clusters
        The model so far.
    vectors
        (D, n), on the device of the clusters; n may be zero.
    is_counted
        Vectors count as they do in k-means; else each counts as one.

    Returns
    -------
    Sums
        Float64. For k-means weighted as the vectors count.
    """
    n_clusters, n_features = clusters.means.shape
    zero = clusters.means.new_zeros
    counts, firsts = zero(n_clusters), zero(n_clusters, n_features)
    seconds, score = zero(n_clusters, n_features, n_features), 0.0
    for piece in torch.split(vectors, _PIECE, 1):
        likelihoods = log_likelihoods(clusters, piece)
        total = torch.logsumexp(likelihoods, 0)
        if clusters.method == "kmeans":
            nearest = most_likely(likelihoods).long()
            is_in = torch.nn.functional.one_hot(nearest, n_clusters).T.to(piece)
            shares = is_in * counts_of(piece) if is_counted else is_in
        else:
            shares = (likelihoods - total).exp_()
        weighted = shares[:, None, :] * piece
        products = weighted.reshape(-1, piece.shape[1]) @ piece.T
        counts += shares.sum(1).double()
        firsts += weighted.sum(2).double()
        seconds += products.view(-1, n_features, n_features).double()
        score += float(total.sum())
    return Sums(
        counts=counts,
        firsts=firsts,
        seconds=seconds,
        log_likelihood=score,
        n_vectors=vectors.shape[1],
    )


def maximise(clusters: Clusters, sums: Sums) -> Clusters:
    """Make the model that the sums ask for; a cluster that has lost its vectors keeps its place."""
    n_clusters, n_features = clusters.means.shape
    n_vectors = sums.counts.sum()
    is_alive = sums.counts > _LEAST_SHARE * n_vectors
    counts = sums.counts.clamp(min=1e-9)
    means = torch.where(is_alive[:, None], sums.firsts / counts[:, None], clusters.means)
    means = means.masked_fill(clusters.is_odd, 0)
    outer = means[:, :, None] * means[:, None, :]
    spreads = sums.seconds / counts[:, None, None] - outer
    spreads = spreads.masked_fill(clusters.is_odd[:, None] != clusters.is_odd, 0)
    weights = sums.counts.clamp(min=_LEAST_SHARE * n_vectors)
    weights = weights / weights.sum()
    within = (weights[:, None, None] * spreads)[is_alive].sum(0) / weights[is_alive].sum()
    eye = torch.eye(n_features, dtype=means.dtype, device=means.device)
    if clusters.method == "kmeans":
        variance = within.diagonal().mean().clamp(min=1e-12)
        factors = (eye / variance.sqrt()).expand(n_clusters, -1, -1)
        weights = torch.full_like(weights, 1 / n_clusters)
    else:
        tied = within if clusters.is_tied else spreads
        spreads = torch.where(is_alive[:, None, None], tied, within)
        factors = torch.linalg.inv(torch.linalg.cholesky(spreads + _RIDGE * eye))
    return Clusters(
        method=clusters.method,
        weights=weights,
        means=means,
        factors=factors,
        is_tied=clusters.is_tied,
        is_odd=clusters.is_odd,
    )
