"""How many peaks noise makes in the best response of many templates at all angles."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from cryopick.picking.background import NoisePeaks
from cryopick.picking.template_basis import SteerableBasis

__all__ = ["template_noise_peaks"]

Floats = NDArray[np.float64]
_THRESHOLDS = np.linspace(1.0, 20.0, 96)
_BLOCK_BYTES = 2**25  # of the templates and pairs of templates worked on at once
_BINS = 1024  # of the angle whose cosine is a correlation
_FLAT = 0.02  # change of a correlation over all angles that makes no peaks


def template_noise_peaks(
    basis: SteerableBasis, frequency: NDArray[np.float64], *, area: float
) -> NoisePeaks:
    """Count the peaks above a threshold that noise makes.

    Parameters
    ----------
    basis
        Of the field, with unit variance of each response.
    frequency
        (rings,) 1/A.
    area
        Searched, A^2.

    Returns
    -------
    NoisePeaks
        Expected number of peaks above each of some thresholds, for smooth Gaussian noise.

    Notes
    -----
    A response is a Gaussian field over place and angle, (y, x, psi). The expected number of its
    peaks above t is close to the Euler characteristic of its excursion set (Adler, The Geometry of
    Random Fields, 1981; for fields over rotations Shafie, Sigal, Siegmund & Worsley, Ann. Stat. 31
    (2003) 1732), with L the covariance of its gradient:

        area [2 pi |L|^(1/2) (2 pi)^-2 (t^2 - 1) + |L_xy|^(1/2) (2 pi)^(-3/2) t] exp(-t^2 / 2)

    The second term is what is left of a round template. Templates alike, and a template that is
    alike at two angles, find the same peaks: each is counted one over the number of those that
    expectedly are above t where it is, from their correlations.
    """
    spectra, thinned = basis.spectra, frequency[:: basis.thinning]
    count, orders, rings = spectra.shape
    t = _THRESHOLDS[:, None]
    total = np.zeros(len(_THRESHOLDS))
    numbers = 8 * orders * max(4 * rings, 5 * count)  # of a template
    step = max(1, _BLOCK_BYTES // (8 * numbers))
    for first in range(0, count, step):
        part = slice(first, first + step)
        solid, flat = _roughness(_both_signs(spectra[part]), thinned)
        each = solid / (2 * math.pi) * (t**2 - 1) + flat * (2 * math.pi) ** -1.5 * t
        total += (each * _share(_likeness(spectra, part))).sum(1)
    log_density = np.log(total.clip(1e-300)) - _THRESHOLDS**2 / 2

    def expected(thresholds: Floats) -> Floats:
        result: Floats = area * np.exp(np.interp(thresholds, _THRESHOLDS, log_density))
        return result

    return expected


def _both_signs(spectra: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Coefficients of exp(i m phi) of the transforms, in the order of numpy's FFT."""
    count, orders, rings = spectra.shape
    size = 4 * orders
    result = np.zeros((count, size, rings), np.complex128)
    m = np.arange(orders)
    phase = ((-1j) ** m)[:, None]
    halves = spectra / np.where(m == 0, 1.0, math.sqrt(2))[:, None]
    result[:, m] = phase * halves
    result[:, -m[1:]] = phase[1:] * halves[:, 1:].conj()
    return result


def _roughness(
    coefficients: NDArray[np.complex128], frequency: NDArray[np.float64]
) -> tuple[Floats, Floats]:
    """Square roots of the determinants of L and of its part in the plane, for each template."""
    size = coefficients.shape[1]
    angle = 2 * math.pi * np.arange(size) / size
    order = np.fft.fftfreq(size, 1 / size)[:, None]
    values = np.fft.ifft(coefficients, axis=1, norm="forward")
    turned = np.fft.ifft(1j * order * coefficients, axis=1, norm="forward")
    slopes = np.stack(
        [
            2j * math.pi * frequency * np.sin(angle)[:, None] * values,
            2j * math.pi * frequency * np.cos(angle)[:, None] * values,
            turned,
        ],
        axis=1,
    ).reshape(len(values), 3, -1)
    covariance = (slopes @ slopes.conj().transpose(0, 2, 1)).real / size
    solid = np.sqrt(np.linalg.det(covariance).clip(0))
    flat = np.sqrt(np.linalg.det(covariance[:, :2, :2]).clip(0))
    return solid, flat


def _likeness(spectra: NDArray[np.complex128], part: slice) -> NDArray[np.int64]:
    """Count the other templates and angles that each template of a part is most like.

    They are local maxima over the angle, binned by the arc cosine of their correlation: (n, bins).
    """
    count, orders, _ = spectra.shape
    by_order = spectra.transpose(1, 0, 2)
    products = by_order @ by_order[:, part].conj().transpose(0, 2, 1)  # (orders, k, n)
    size = 8 * orders
    half = np.zeros((size // 2 + 1, *products.shape[1:]), np.complex128)
    half[:orders] = products
    half[1:] /= 2
    curves = np.fft.irfft(half, n=size, axis=0, norm="forward")  # (angles, k, n)
    is_top = (curves > np.roll(curves, 1, 0)) & (curves >= np.roll(curves, -1, 0))
    is_flat = np.ptp(curves, axis=0) < _FLAT  # round templates: all angles are one peak
    is_top &= ~is_flat
    is_top[0] |= is_flat
    own = np.arange(count)[part]
    is_top[0, own, np.arange(len(own))] = False  # a template with itself
    _, _, template = is_top.nonzero()
    angle = np.arccos(curves[is_top].clip(0, 1))
    bins = np.minimum((angle * (2 * _BINS / math.pi)).astype(np.int64), _BINS - 1)
    counts = np.bincount(template * _BINS + bins, minlength=len(own) * _BINS)
    return counts.reshape(len(own), _BINS)


def _share(likeness: NDArray[np.int64]) -> Floats:
    """One over the expected number of responses above each threshold where one of them is."""
    angle = (np.arange(_BINS) + 0.5) * (math.pi / 2 / _BINS)
    level = _THRESHOLDS[:, None]
    typical = level + 1 / level  # mean height of a peak above it
    chance = ndtr((np.cos(angle) * typical - level) / np.sin(angle))
    result: Floats = 1 / (1 + chance @ likeness.T)
    return result
