"""Clusters of more vectors than are held in memory, in one pass: vectors are gathered in cells.

A cell holds vectors between whose two likeliest clusters, in a first model, lies nearly the same
difference of log-likelihood; kept are their number, sum and sum of products. All vectors of a cell
then share one posterior, that of their mean log-likelihood, which follows from these sums. So
expectation-maximisation goes on over cells to its end, and each step raises a lower bound of the
likelihood of all vectors (Verbeek, Nunnink and Vlassis 2006). For k-means a cell goes to one
cluster.

Sums are whole multiples of 2^-16, so that the order in which they are added changes nothing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryopick.tomogram.clustering import Clusters, Sums, counts_of, log_likelihoods, most_likely
from cryopick.tomogram.clustering_fit import settle

__all__ = ["Cells", "collect_cells", "expect_cells", "merge_cells", "settle_in_cells"]

_BINS = 48  # of the difference of two log-likelihoods, for each pair of clusters
_FINENESS = 8  # bins for a unit of its inverse hyperbolic sine: 1/8 near 0, wider far away
_UNIT = 2.0**-16
_STEPS = 200


@dataclass(frozen=True)
class Cells:
    """Sums over the vectors of each cell."""

    moments: Tensor  # (cells, D + 1, D + 1) int64, 2^-16: sums of w (1, x) (1, x)'
    n_vectors: int


def collect_cells(clusters: Clusters, vectors: Tensor) -> Cells:
    """Gather vectors in cells.

    Parameters
    ----------
    clusters
        The first model, of K clusters.
    vectors
        (D, n) float32, on the device of the clusters; below 1e5 in size.

    Returns
    -------
    Cells
        K^2 times 48 of them, on the CPU. For k-means weighted as the vectors count.
    """
    n_clusters, n_features = clusters.means.shape
    moments = torch.zeros(n_clusters**2 * _BINS, n_features + 1, n_features + 1, dtype=torch.int64)
    if vectors.shape[1]:
        keys = _keys(clusters, vectors).cpu().numpy().astype(np.uint16)
        order = np.argsort(keys, kind="stable")
        here = vectors.cpu().numpy()[:, order]
        extended = np.concatenate((np.ones_like(here[:1]), here))
        weighted = extended
        if clusters.method == "kmeans":
            weighted = extended * counts_of(torch.from_numpy(here)).numpy()
        found, firsts = np.unique(keys[order], return_index=True)
        edges = [*firsts.tolist(), len(order)]
        products = [
            weighted[:, start:end] @ extended[:, start:end].T
            for start, end in itertools.pairwise(edges)
        ]
        whole = np.rint(np.array(products, np.float64) / _UNIT).astype(np.int64)
        moments[torch.from_numpy(found.astype(np.int64))] = torch.from_numpy(whole)
    return Cells(moments, vectors.shape[1])


def merge_cells(one: Cells, other: Cells) -> Cells:
    """Add the cells of two sets of vectors, made with one model."""
    return Cells(one.moments + other.moments, one.n_vectors + other.n_vectors)


def expect_cells(clusters: Clusters, cells: Cells) -> Sums:
    """Add up cells by cluster, as `cryopick.tomogram.clustering.expect` adds up vectors.

    Parameters
    ----------
    clusters
        The model so far.
    cells
        Gathered with any model of as many features; at least one vector.

    Returns
    -------
    Sums
        With the lower bound as log-likelihood.
    """
    moments = cells.moments[cells.moments[:, 0, 0] > 0].double() * _UNIT
    counts = moments[:, 0, 0]
    likelihoods = _mean_log_likelihoods(clusters, moments)
    total = torch.logsumexp(likelihoods, 0)
    if clusters.method == "kmeans":
        nearest = most_likely(likelihoods).long()
        shares = torch.nn.functional.one_hot(nearest, len(clusters)).T.double()
    else:
        shares = torch.exp(likelihoods - total)
    sums = torch.einsum("kb,bij->kij", shares, moments)
    return Sums(
        counts=sums[:, 0, 0],
        firsts=sums[:, 1:, 0],
        seconds=sums[:, 1:, 1:],
        log_likelihood=float((counts * total).sum()),
        n_vectors=cells.n_vectors,
    )


def settle_in_cells(clusters: Clusters, cells: Cells) -> Clusters:
    """Repeat both steps over cells until they rest."""
    return settle(clusters, lambda model: expect_cells(model, cells), steps=_STEPS)[0]


def _keys(clusters: Clusters, vectors: Tensor) -> Tensor:
    """Cell of each vector, (n,) int64."""
    likelihoods = log_likelihoods(clusters, vectors)
    if len(clusters) == 2:
        difference = likelihoods[0] - likelihoods[1]
        first = (difference < 0).long()
        second, difference = 1 - first, difference.abs_()
    else:
        first = most_likely(likelihoods).long()
        best = likelihoods.gather(0, first[None])[0]
        others = likelihoods.scatter_(0, first[None], -torch.inf)
        second = most_likely(others).long()
        difference = best - others.gather(0, second[None])[0]
    bins = (torch.asinh(difference) * _FINENESS).long().clamp_(max=_BINS - 1)
    return (first * len(clusters) + second) * _BINS + bins


def _mean_log_likelihoods(clusters: Clusters, moments: Tensor) -> Tensor:
    """Mean log-likelihood of the vectors of each cell in each cluster, (K, cells)."""
    precisions = clusters.factors.mT @ clusters.factors
    along = (precisions @ clusters.means[:, :, None])[:, :, 0]
    size = clusters.means.shape[1] + 1
    forms = torch.empty(len(clusters), size, size, dtype=torch.float64)
    forms[:, 0, 0] = (along * clusters.means).sum(1)
    forms[:, 1:, 0] = forms[:, 0, 1:] = -along
    forms[:, 1:, 1:] = precisions
    squares = torch.einsum("kij,bij->kb", forms, moments) / moments[:, 0, 0]
    volume = clusters.factors.diagonal(dim1=1, dim2=2).abs().log().sum(1)
    return (clusters.weights.log() + volume)[:, None] - 0.5 * squares
