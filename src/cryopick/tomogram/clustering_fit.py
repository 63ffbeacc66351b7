"""Fit clusters: starts by k-means++, both steps until they rest, and the number of clusters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from cryopick.tomogram.clustering import Clusters, Method, Sums, counts_of, expect, maximise

__all__ = ["choose_number", "fit_clusters", "settle"]

_STARTS = 4  # of k-means; the one with the least variance within is taken
_PILOT = 25_000  # vectors that a fit begins with
_ITERATIONS = 100  # over the pilot
_PASSES = 5  # over all vectors, from where the pilot ended
_TOLERANCE = 1e-4  # change of the log-likelihood of a vector that ends a fit
_MOST = 6  # clusters


def settle(
    clusters: Clusters, sums_for: Callable[[Clusters], Sums], *, steps: int
) -> tuple[Clusters, float]:
    """Repeat both steps until the likelihood (of k-means, the means) stands still.

    Parameters
    ----------
    clusters
        To begin with.
    sums_for
        Gives the sums over the vectors for a model.
    steps
        At most.

    Returns
    -------
    Clusters, float
        The model, and the mean log-likelihood of a vector in the one before.
    """
    before = -math.inf
    for _ in range(steps):
        sums = sums_for(clusters)
        new = maximise(clusters, sums)
        score = sums.log_likelihood / max(sums.n_vectors, 1)
        if clusters.method == "kmeans":
            step = ((new.means - clusters.means) * clusters.factors[0, 0, 0]).abs().max()
            is_settled = float(step) < 1e-3
        else:
            is_settled = score - before < _TOLERANCE
        clusters, before = new, score
        if is_settled:
            break
    return clusters, before


def fit_clusters(
    method: Method,
    vectors: Tensor,
    number: int,
    *,
    seed: int,
    is_tied: bool = False,
    is_odd: Tensor | None = None,
) -> tuple[Clusters, float]:
    """Fit K clusters to vectors.

    Parameters
    ----------
    method
        ``kmeans`` or ``gmm``.
    vectors
        (D, n), on one device; for a mixture of about unit variance each.
    number
        K, at least 2.
    seed
        Of the starts.
    is_tied
        A mixture with one covariance for all clusters.
    is_odd
        (D,) bool, features that a mirror image in the centre turns round; none if not given.

    Returns
    -------
    Clusters, float
        The model, and the mean log-likelihood of a vector in it, up to a constant that does not
        depend on the model.
    """
    generator = torch.Generator().manual_seed(seed)
    pilot = vectors[:, :: max(1, vectors.shape[1] // _PILOT)].contiguous()
    if is_odd is None:
        is_odd = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    starts = (_start(pilot, number, is_odd, generator) for _ in range(_STARTS))
    settled = [_settle(start, pilot, steps=_ITERATIONS) for start in starts]
    found, score = min(settled, key=lambda pair: _variance(pair[0]))
    if method == "gmm":
        mixture = replace(found, method="gmm", is_tied=is_tied)
        begun = maximise(mixture, expect(found, pilot, is_counted=False))
        found, score = _settle(begun, pilot, steps=_ITERATIONS)
    if pilot.shape[1] < vectors.shape[1]:
        found, score = _settle(found, vectors, steps=_PASSES)
    return found, score


def choose_number(
    vectors: Tensor,
    *,
    seed: int,
    n_independent: float,
    is_tied: bool = False,
    is_odd: Tensor | None = None,
) -> int:
    """Find the number of clusters, 2 to 6, by the Bayesian information criterion of mixtures.

    Parameters
    ----------
    vectors
        (D, n), of about unit variance each.
    seed
        Of the starts.
    n_independent
        How many of the vectors are independent: neighbourhoods that overlap count as one.
    is_tied, is_odd
        As for `fit_clusters`.
    """
    n_odd = int(is_odd.sum()) if is_odd is not None else 0
    n_even = len(vectors) - n_odd
    n_covariance = n_even * (n_even + 1) // 2 + n_odd * (n_odd + 1) // 2
    criteria = {}
    for number in range(2, _MOST + 1):
        _, score = fit_clusters("gmm", vectors, number, seed=seed, is_tied=is_tied, is_odd=is_odd)
        n_covariances = 1 if is_tied else number
        n_parameters = number * (1 + n_even) - 1 + n_covariances * n_covariance
        criteria[number] = -2 * score * n_independent + n_parameters * math.log(n_independent)
    return min(criteria, key=lambda number: criteria[number])


def _variance(clusters: Clusters) -> float:
    """Variance within the clusters of k-means."""
    return float(clusters.factors[0, 0, 0] ** -2)


def _start(vectors: Tensor, number: int, is_odd: Tensor, generator: torch.Generator) -> Clusters:
    """Choose vectors far from each other as the first means (k-means++)."""
    n_features, n_vectors = vectors.shape
    chosen = [int(torch.randint(n_vectors, (1,), generator=generator))]
    distance = torch.full((n_vectors,), math.inf, dtype=torch.float64)
    for _ in range(number - 1):
        last = vectors[:, chosen[-1]].unsqueeze(1)
        distance = torch.minimum(distance, (vectors - last).square().sum(0).double())
        along = (distance * counts_of(vectors)).cumsum(0)
        place = float(torch.rand((), generator=generator, dtype=torch.float64)) * float(along[-1])
        chosen.append(min(int(torch.searchsorted(along, place)), n_vectors - 1))
    means = vectors[:, chosen].T.double().masked_fill(is_odd, 0)
    variance = vectors.double().var(1).mean().clamp(min=1e-12)
    eye = torch.eye(n_features, dtype=torch.float64, device=means.device)
    return Clusters(
        method="kmeans",
        weights=torch.full((number,), 1 / number, dtype=torch.float64, device=means.device),
        means=means,
        factors=(eye / variance.sqrt()).expand(number, -1, -1),
        is_tied=True,
        is_odd=is_odd,
    )


def _settle(clusters: Clusters, vectors: Tensor, *, steps: int) -> tuple[Clusters, float]:
    return settle(clusters, lambda model: expect(model, vectors), steps=steps)
