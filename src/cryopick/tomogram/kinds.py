"""Grouping of picks into kinds by features that no rotation changes.

The features of a pick are moments of the density about its centre, means over shells, and the
power of spherical harmonics of the shells (Kazhdan et al. 2003). They are brought to unit
variance and reduced to the directions above the noise; a mixture of Gaussians groups them, and
the Bayesian information criterion (Schwarz 1978) says how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.special import sph_harm_y

__all__ = ["Kinds", "group_picks", "invariant_features"]

_SHELLS = 8
_ORDERS = 4  # harmonics up to this degree
_MOST_KINDS = 6
_FEWEST = 8  # picks to a kind
_DIRECTIONS = 4
_ROUNDS = 200
_FLOOR = 0.05  # of the variance of a direction: no group is narrower
_STARTS = 5


@dataclass(frozen=True)
class Kinds:
    """Groups of picks."""

    kind: NDArray[np.int64]  # (n,) from 1
    probability: NDArray[np.float64]  # (n,) of that kind
    criterion: NDArray[np.float64]  # (k,) BIC of 1, 2, ... kinds; lower is better

    @property
    def number(self) -> int:
        """How many kinds there are."""
        return int(self.kind.max(initial=0))


def invariant_features(cubes: torch.Tensor, *, radius: float) -> NDArray[np.float64]:
    """Describe densities so that rotation changes nothing.

    Parameters
    ----------
    cubes
        (n, k, k, k), k odd, centred on the picks.
    radius
        Of the ball that is described, voxels.

    Returns
    -------
    numpy.ndarray
        (n, m): mean of each shell, then the power of each degree in shells weighted by the share
        of voxels they hold, as square roots.
    """
    side = cubes.shape[-1]
    steps = np.arange(side) - side // 2
    z, y, x = np.meshgrid(steps, steps, steps, indexing="ij")
    distance = np.sqrt(x**2 + y**2 + z**2)
    inside = distance <= radius
    shell = np.minimum(distance[inside] / radius * _SHELLS, _SHELLS - 1).astype(int)
    polar = np.arccos(z[inside] / np.maximum(distance[inside], 1e-9))
    azimuth = np.arctan2(y[inside], x[inside])
    members = (shell == np.arange(_SHELLS)[:, None]).astype(np.float64)
    members /= np.maximum(members.sum(1, keepdims=True), 1)
    values = cubes.numpy()[:, inside].astype(np.float64)
    features = [values @ members.T]
    weight = (np.arange(_SHELLS) + 0.5) / _SHELLS
    for degree in range(1, _ORDERS + 1):
        power = np.zeros((len(values), _SHELLS))
        for order in range(degree + 1):
            wave = sph_harm_y(degree, order, polar, azimuth)
            wave = np.where(distance[inside] > 0, wave, 0)  # the centre has no direction
            part = (values * wave.conj()) @ members.T
            power += (1 if order == 0 else 2) * np.abs(part) ** 2
        half = _SHELLS // 2
        amplitude = np.sqrt(power) * weight
        features.append(np.stack([amplitude[:, :half].mean(1), amplitude[:, half:].mean(1)], 1))
    return np.concatenate(features, 1)


def group_picks(features: NDArray[np.float64], *, number: int = 0, seed: int = 0) -> Kinds:
    """Group picks into kinds.

    Parameters
    ----------
    features
        (n, m).
    number
        Of kinds; 0 takes the one of least BIC.
    seed
        Of the starts.

    Returns
    -------
    Kinds
        The largest kind is 1.
    """
    count = len(features)
    if count == 0:
        return Kinds(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    points = _reduce(features)
    most = max(1, min(number or _MOST_KINDS, count // _FEWEST if not number else count))
    tried = range(1, most + 1) if not number else [most]
    fits = [_fit(points, k, seed) for k in tried]
    best = min(fits, key=lambda f: f[1])
    shares = best[0]
    labels = shares.argmax(1)
    sizes = np.bincount(labels, minlength=shares.shape[1])
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes)) + 1
    return Kinds(rank[labels], shares.max(1), np.array([f[1] for f in fits]))


def _reduce(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep the directions of largest variance of the standardised features."""
    spread = features.std(0)
    scaled = (features - features.mean(0)) / np.where(spread > 0, spread, 1)
    u, s, _ = np.linalg.svd(scaled, full_matrices=False)
    kept = min(_DIRECTIONS, len(s))
    return np.asarray(u[:, :kept] * s[:kept])


def _fit(points: NDArray[np.float64], kinds: int, seed: int) -> tuple[NDArray[np.float64], float]:
    """Fit a mixture of Gaussians; shares (n, kinds) and BIC of the best of several starts."""
    fits = [_expect(points, kinds, seed + start) for start in range(_STARTS if kinds > 1 else 1)]
    shares, likelihood = max(fits, key=lambda f: f[1])
    n, d = points.shape
    free = kinds * (2 * d) + kinds - 1
    return shares, float(free * np.log(n) - 2 * likelihood)


def _expect(
    points: NDArray[np.float64], kinds: int, seed: int
) -> tuple[NDArray[np.float64], float]:
    n = len(points)
    floor = _FLOOR * points.var(0) + 1e-12
    _, labels = kmeans2(points, kinds, minit="++", rng=seed, missing="warn") if kinds > 1 else (
        None, np.zeros(n, int))  # fmt: skip
    shares = np.eye(kinds)[labels]
    likelihood = -np.inf
    for _ in range(_ROUNDS):
        mass = shares.sum(0) + 1e-9
        means = shares.T @ points / mass[:, None]
        variances = shares.T @ points**2 / mass[:, None] - means**2
        variances = np.maximum(variances, floor)
        terms: Any = -0.5 * (
            ((points[:, None] - means) ** 2 / variances).sum(2)
            + np.log(2 * np.pi * variances).sum(1)
        ) + np.log(mass / n)
        top = terms.max(1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(terms - top).sum(1))
        shares = np.exp(terms - total[:, None])
        before, likelihood = likelihood, float(total.sum())
        if likelihood - before < 1e-6 * n:
            break
    return shares, likelihood
