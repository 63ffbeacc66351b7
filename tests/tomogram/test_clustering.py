"""Clusters of simulated vectors: the truth is found, sums add up, and the seed fixes all."""

from __future__ import annotations

import math

import pytest
import torch

from cryopick.tomogram.clustering import log_likelihoods, most_likely, posteriors
from cryopick.tomogram.clustering_cells import collect_cells, merge_cells, settle_in_cells
from cryopick.tomogram.clustering_fit import choose_number, fit_clusters


def vectors_of(means, sizes, spreads, seed=0):
    """Gaussian clouds in three dimensions, mixed."""
    generator = torch.Generator().manual_seed(seed)
    clouds = [
        torch.tensor(m)[:, None] + s * torch.randn(3, n, generator=generator)
        for m, n, s in zip(means, sizes, spreads, strict=True)
    ]
    truth = torch.cat([torch.full((n,), i) for i, n in enumerate(sizes)])
    order = torch.randperm(len(truth), generator=generator)
    return torch.cat(clouds, 1)[:, order].contiguous(), truth[order]


@pytest.fixture(scope="module")
def rare():
    """Two per cent of particles, 5 deviations from the noise."""
    return vectors_of([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0]], [39200, 800], [1.0, 1.0])


@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_few_particles_in_much_noise_are_a_cluster_of_their_own(rare, method):
    vectors, truth = rare

    clusters, _ = fit_clusters(method, vectors, 2, seed=0)

    labels = most_likely(log_likelihoods(clusters, vectors))
    particle = int(clusters.means[:, 0].argmax())
    found = labels == particle
    assert (found & (truth == 1)).sum() > 0.9 * (truth == 1).sum()
    assert (found & (truth == 1)).sum() > 0.75 * found.sum()


def test_a_mixture_finds_weights_means_and_covariances():
    vectors, _ = vectors_of([[0.0, 0.0, 0.0], [4.0, 1.0, 0.0]], [30000, 10000], [1.0, 0.5])

    clusters, _ = fit_clusters("gmm", vectors, 2, seed=1)

    second = int(clusters.means[:, 0].argmax())
    assert float(clusters.weights[second]) == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(
        clusters.means[second].float(), torch.tensor([4.0, 1.0, 0.0]), atol=0.05, rtol=0
    )
    inverse = clusters.factors[second].T @ clusters.factors[second]
    torch.testing.assert_close(
        torch.linalg.inv(inverse).float(), 0.25 * torch.eye(3), atol=0.03, rtol=0
    )


def test_log_likelihoods_differ_as_those_of_torch_do(rare):
    vectors, _ = rare
    clusters, _ = fit_clusters("gmm", vectors, 2, seed=0)
    some = vectors[:, :50].double()

    found = log_likelihoods(clusters, some)

    for k in range(2):
        precision = clusters.factors[k].T @ clusters.factors[k]
        normal = torch.distributions.MultivariateNormal(
            clusters.means[k], precision_matrix=precision
        )
        wanted = normal.log_prob(some.T) + clusters.weights[k].log() + 1.5 * math.log(2 * math.pi)
        torch.testing.assert_close(found[k], wanted, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(posteriors(clusters, some).sum(0), torch.ones(50).double())


@pytest.mark.parametrize("method", ["kmeans", "gmm"])
@pytest.mark.parametrize("number", [2, 3])
def test_cells_lead_from_a_sample_to_the_fit_of_all_vectors(method, number):
    means = [[0.0, 0.0, 0.0], [5.0, 0.0, 0.0], [1.0, 4.0, 0.0]][:number]
    vectors, _ = vectors_of(means, [37200, 800, 2000][:number], [1.0] * number)
    sample, _ = fit_clusters(method, vectors[:, ::20].contiguous(), number, seed=0)
    whole, _ = fit_clusters(method, vectors, number, seed=0)

    found = settle_in_cells(sample, collect_cells(sample, vectors))

    labels = [most_likely(log_likelihoods(c, vectors)) for c in (sample, whole, found)]
    order = [c.means[:, 0].argsort() for c in (sample, whole, found)]
    ranks = [o.argsort()[n.long()] for o, n in zip(order, labels, strict=True)]
    missed, left = (float((r != ranks[1]).double().mean()) for r in (ranks[0], ranks[2]))
    assert left < 0.01
    assert left <= missed
    if method == "gmm":
        centres = torch.tensor(sorted(means), dtype=torch.float64)
        off = [
            (c.means[o] - centres).norm(dim=1).max()
            for c, o in zip((sample, found), order[::2], strict=True)
        ]
        assert off[1] < min(0.12, float(off[0]))


@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_cells_of_parts_add_up_to_the_last_bit_in_any_order(rare, method):
    vectors, _ = rare
    clusters, _ = fit_clusters(method, vectors, 2, seed=0)

    parts = [collect_cells(clusters, part) for part in vectors.split([7, 20000, 0, 19993], 1)]
    forth, back = parts[0], parts[-1]
    for part, other in zip(parts[1:], parts[-2::-1], strict=True):
        forth, back = merge_cells(forth, part), merge_cells(back, other)

    assert torch.equal(forth.moments, back.moments)
    assert forth.n_vectors == back.n_vectors == vectors.shape[1]
    if method == "gmm":  # in k-means a vector counts by where it is
        sums = forth.moments.sum(0).double() / 2**16
        assert float(sums[0, 0]) == vectors.shape[1]
        exact = vectors.double() @ vectors.double().T
        torch.testing.assert_close(sums[1:, 1:], exact, rtol=1e-4, atol=0.5)


def test_the_seed_fixes_every_bit(rare):
    vectors, _ = rare

    one, other = (fit_clusters("gmm", vectors, 3, seed=4)[0] for _ in range(2))

    assert torch.equal(one.means, other.means)
    assert torch.equal(one.factors, other.factors)


def test_the_number_of_clusters_is_that_of_the_clouds():
    means = [[0.0, 0.0, 0.0], [6.0, 0.0, 0.0], [0.0, 6.0, 0.0]]
    vectors, _ = vectors_of(means, [5000, 2000, 2000], [1.0, 0.7, 0.7])

    assert choose_number(vectors, seed=0, n_independent=9000) == 3
