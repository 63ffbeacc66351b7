"""A junk component: which particles fit the classes no better than noise does.

Every image has a best class and pose, pure noise too. How well noise does is measured: images of
noise, with the noise spectrum of the data, are aligned like particles. A member of a class of n
gains about 2 f / n of log-likelihood from its own part in the average, f being the degrees of
freedom that the filter leaves the average; that is taken away from the particles first.

The log-likelihoods L (best pose against no particle) are then split into two components on the
scale asinh(L / 4), on which particles are about normal: one like the noise images, its mean and
spread free within limits; and one above it, the particles. Where the two cannot be told apart
nothing is called junk. Contamination that looks alike is not noise: it gets classes of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.em_images import WorkingImages
from cryopick.ctf.evaluate import evaluate_ctf

__all__ = ["NoiseImages", "junk_probability"]

Floats = NDArray[np.float64]

_ROUNDS = 200
_LINEAR = 4.0  # log-likelihoods below this are counted linearly, above it by their logarithm
_RISE = 1.0  # most that the noise component's mean may be above that of noise, in its spreads
_WIDEN = 1.7  # most that its spread may be above that of noise
_LEAST_DISTANCE = 3.0  # of the means, in the noise component's standard deviations
_LEAST_SPREAD = 1e-3


@dataclass
class NoiseImages(WorkingImages):
    """Working images of noise in the place of each particle, the same at each reading."""

    noise: Tensor = field(default_factory=lambda: torch.ones(1, 2))  # (optics groups, R)
    frequencies: Tensor = field(default_factory=lambda: torch.ones(2))  # (R,) 1/A
    norm: NDArray[np.float32] | None = None  # (n,) brightness of the particles' noise
    seed: int = 0

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Noise images (m, s, s) float32."""
        size = self.geometry.working_size
        white = torch.stack([self._white(int(i), size) for i in indices])
        axis = torch.fft.fftfreq(size, self.geometry.working_pixel)
        half = torch.fft.rfftfreq(size, self.geometry.working_pixel)
        radius = torch.hypot(axis[:, None], half).numpy()
        optics = self.source.optics_numbers[indices]
        known = self.frequencies.numpy()
        amplitude = np.stack(
            [np.sqrt(np.interp(radius, known, spectrum)) for spectrum in self.noise.numpy()]
        )
        coloured = torch.fft.rfft2(white) * torch.from_numpy(amplitude[optics]).float()
        coloured = coloured * self._ctf(indices, size)
        if self.norm is not None:
            coloured = coloured * torch.from_numpy(self.norm[indices])[:, None, None]
        images: Tensor = torch.fft.irfft2(coloured * size, s=(size, size))
        return images

    def _ctf(self, indices: NDArray[np.int64], size: int) -> Tensor:
        """CTF that the noise has been multiplied by with the image, 1 where it has not."""
        source = self.source
        factor = torch.ones(len(indices), size, size // 2 + 1)
        is_multiplied = source.is_premultiplied[source.optics_numbers[indices]]
        rows = source.ctf_parameters(indices) if is_multiplied.any() else None
        if rows is None:
            return factor
        for place in np.flatnonzero(is_multiplied):
            u, v, angle, phase, bfactor, scale, voltage, cs, contrast = map(float, rows[place])
            factor[place] = evaluate_ctf(
                (size, size),
                pixel_size=self.geometry.working_pixel,
                defocus_u=u,
                defocus_v=v,
                defocus_angle=angle,
                voltage=voltage,
                spherical_aberration=cs,
                amplitude_contrast=contrast,
                phase_shift=phase,
                bfactor=bfactor,
                scale=scale,
            )[0]
        return factor

    def _white(self, index: int, size: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        return torch.randn(size, size, generator=generator)


def junk_probability(
    log_likelihood: NDArray[np.float32], of_noise: Sequence[float] | NDArray[np.float32]
) -> NDArray[np.float32]:
    """Posterior probability that a particle is no more than noise.

    Parameters
    ----------
    log_likelihood
        (n,) of the particles.
    of_noise
        (m,) of images of noise aligned alike; fewer than 10 call nothing junk.

    Returns
    -------
    numpy.ndarray
        (n,) float32, falling with the log-likelihood.
    """
    values, null = _scaled(log_likelihood), _scaled(of_noise)
    nothing = np.zeros(len(values), np.float32)
    if len(null) < 10:
        return nothing
    low, spread = float(null.mean()), max(float(null.std()), _LEAST_SPREAD)
    fit = _fit(values, low, spread)
    if fit.high - fit.low < _LEAST_DISTANCE * spread:
        return nothing
    probability = fit.share_of_noise(np.minimum(values, fit.high))
    order = np.argsort(-values, kind="stable")
    falling = np.maximum.accumulate(probability[order])
    probability[order] = np.where(values[order] >= fit.high, 0.0, falling)
    return probability.astype(np.float32)


def _scaled(log_likelihood: Sequence[float] | NDArray[np.float32]) -> Floats:
    values = np.asarray(log_likelihood, np.float64)
    scaled: Floats = np.arcsinh(values / _LINEAR)
    return scaled


@dataclass(frozen=True, kw_only=True)
class _Fit:
    weight: float  # share of noise
    low: float
    low_spread: float
    high: float
    high_spread: float

    def share_of_noise(self, values: Floats) -> Floats:
        noise = self.weight * _gaussian(values, self.low, self.low_spread)
        real = (1 - self.weight) * _gaussian(values, self.high, self.high_spread)
        return noise / np.maximum(noise + real, 1e-300)


def _fit(values: Floats, low: float, spread: float) -> _Fit:
    """Expectation-maximisation of the two components; the lower one stays near noise."""
    middle, upper = np.quantile(values, [0.6, 0.88])
    fit = _Fit(
        weight=0.2,
        low=low,
        low_spread=spread,
        high=float(middle),
        high_spread=max(float(upper - middle), spread / 2),
    )
    for _ in range(_ROUNDS):
        noise = fit.share_of_noise(values)
        own, own_spread = _moments(values, noise, fallback=(low, spread))
        mean, deviation = _moments(values, 1 - noise, fallback=(fit.high, fit.high_spread))
        fit = _Fit(
            weight=float(np.clip(noise.mean(), 1e-4, 0.9)),
            low=float(np.clip(own, low, low + _RISE * spread)),
            low_spread=float(np.clip(own_spread, spread, _WIDEN * spread)),
            high=mean,
            high_spread=max(deviation, spread / 2),
        )
    return fit


def _moments(
    values: Floats, weight: Floats, *, fallback: tuple[float, float]
) -> tuple[float, float]:
    total = float(weight.sum())
    if total < 2:
        return fallback
    mean = float((weight * values).sum() / total)
    return mean, math.sqrt(float((weight * (values - mean) ** 2).sum() / total))


def _gaussian(values: Floats, mean: float, spread: float) -> Floats:
    scaled: Floats = np.exp(-((values - mean) ** 2) / (2 * spread**2)) / spread
    return scaled
